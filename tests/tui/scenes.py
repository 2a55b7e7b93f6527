"""Plain values to look at: a source without a server, and a state with everything in it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

import msgspec

from corral import events
from corral.doctor import Facts, diagnose
from corral.errors import CorralError
from corral.events import Receipt, bucket
from corral.leaving import Departure, How
from corral.ledger import Counts
from corral.messages import TaskId
from corral.runs import Beat, Execution, Record
from corral_tui.diagnosis import Diagnosis
from corral_tui.fold import Detail
from corral_tui.replay import History
from corral_tui.state import State
from corral_tui.story import Story
from corral_tui.values import Link

NOW = 1_795_514_400.0
"""Tuesday morning."""
TRACEBACK = """Traceback (most recent call last):
  File "/srv/shop/processors.py", line 41, in reindex_entity
    row = await table.fetch(message.id)
          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/srv/shop/table.py", line 112, in fetch
    raise Missing(f"no row {id} in {self.name}")
shop.table.Missing: no row 8412 in product
"""


class PlainSource:
    """A source that is what a test makes it."""

    def __init__(self, state: State | None = None) -> None:
        self.state = state or State()
        self.failure: Exception | None = None
        self.read_only = False
        self.looks: list[str | None] = []
        self.interrupted: list[str] = []
        self.answer: asyncio.Future[Receipt | None] | None = None
        self.answers: list[asyncio.Future[Receipt | None]] = []
        self.retried: list[str] = []
        self.selected: list[Sequence[str] | None] = []
        """What each of these retries is limited to."""
        self.brought_back: asyncio.Future[int] | None = None
        self.dismissed: list[tuple[How, list[str]]] = []
        self.departed: asyncio.Future[list[Departure]] | None = None
        self.stopped = False
        self.diagnosed: list[str | None] = []
        self.undiagnosed: CorralError | None = None
        self.facts = Facts(at=NOW, namespace="corral", server="127.0.0.1:4222", version="0.1.0")
        self.told: list[tuple[str, TaskId]] = []
        self.stored: list[tuple[int, float, events.AnyEvent]] = []

    @property
    def lock(self) -> AbstractContextManager[object]:
        return contextlib.nullcontext()

    def start(self) -> None: ...

    def stop(self) -> None:
        self.stopped = True

    def look_at(self, run_id: str | None) -> None:
        self.looks.append(run_id)
        if self.state.detail is not None and self.state.detail.run_id != run_id:
            self.state.detail = None

    async def interrupt(self, run_id: str) -> Receipt | None:
        self.interrupted.append(run_id)
        self.answer = asyncio.get_running_loop().create_future()
        self.answers.append(self.answer)
        return await self.answer

    async def dismiss(self, how: How, workers: Sequence[str]) -> list[Departure]:
        self.dismissed.append((how, list(workers)))
        self.departed = asyncio.get_running_loop().create_future()
        return await self.departed

    async def story(self, run_id: str, task: TaskId) -> Story:
        self.told.append((run_id, task))
        story = Story(task)
        for sequence, at, event in self.stored:
            story.apply(sequence, at, event)
        story.complete = True
        return story

    async def diagnose(self, run_id: str | None) -> Diagnosis:
        self.diagnosed.append(run_id)
        if self.undiagnosed is not None:
            raise self.undiagnosed
        return Diagnosis(NOW, self.facts, tuple(diagnose(self.facts)))

    async def history(self, run_id: str) -> tuple[History, bool]:
        del run_id
        return [(sequence, at, events.encode_event(event)) for sequence, at, event in self.stored], True

    async def retry(self, run_id: str, tasks: Sequence[str] | None = None) -> int:
        self.retried.append(run_id)
        self.selected.append(tasks)
        self.brought_back = asyncio.get_running_loop().create_future()
        return await self.brought_back


def record(run_id: str, topic: str = "reindex", **fields: object) -> Record:
    """A record with defaults."""
    values: dict[str, object] = {"state": "running", "created_at": NOW - 15, "started_at": NOW - 14.9, **fields}
    return Record(id=run_id, topic=topic, body=msgspec.Raw(b"{}"), **values)  # type: ignore[arg-type]


def final(run_id: str, topic: str, ago: float, took: float, **counts: int) -> Record:
    """The record of a run that ended `ago` seconds ago."""
    made = Counts(total=sum(counts.values()), **counts)
    return record(
        run_id,
        topic,
        state="final",
        counts=made,
        topics={f"{topic}-entity": made},
        created_at=NOW - ago - took,
        started_at=NOW - ago - took,
        finished_at=NOW - ago,
        seq=4_000,
    )


def beat(worker: str, running: dict[str, dict[str, int]], **fields: object) -> Beat:
    """A heartbeat."""
    values: dict[str, object] = {
        "pool": "ws1-4021",
        "host": "ws1",
        "pid": 4_100 + int(worker[-1]),
        "topics": ["reindex", "reindex-entity", "import-csv"],
        "slots": 100,
        "started_at": NOW - 4_000,
        "version": "0.1.0",
        "rss": 61_000_000,
        **fields,
    }
    return Beat(id=worker, running=running, **values)  # type: ignore[arg-type]


def live_events(
    *, batch: int, topic: str, total: int, done: int, errors: int, seconds: float
) -> Iterator[tuple[int, float, events.AnyEvent]]:
    """The events of a run that has been going for a while: (sequence, time, event)."""
    at = NOW - seconds
    yield batch, at, events.Opened(parent=(0, 0), nonce="n")
    sent = events.Sent(batch=batch, first=0, count=total, topics=[topic])
    yield batch + 1, at + 0.1, sent
    step = max(1, done // 200)
    spread = [(bucket(0.002), step // 2 + 1), (bucket(0.009), step // 3), (bucket(0.041), 1)]
    for number, first in enumerate(range(0, done, step)):
        last = min(done, first + step)
        share = number / (done / step)
        ends = events.Ends(topic, batch, 0, "success", [(first, last)])
        when = at + 0.2 + (seconds - 0.2) * (share**0.8)
        yield (
            batch + 2 + number,
            when,
            events.Ended(
                worker=f"ws1-4021-{1 + number % 8}",
                number=number,
                tasks=[ends],
                durations=spread,
                waits=[(bucket(1.2), step)],
            ),
        )
    for number in range(errors):
        ordinal = done + number
        when = NOW - seconds * (errors - number) / (errors + 1)
        body = msgspec.Raw(b'{"id": %d, "target_class": "Product"}' % (8_000 + ordinal))
        yield (
            batch + 1_000 + 2 * number,
            when,
            events.Failed(
                topic=topic,
                task=(batch, ordinal),
                error="shop.table.Missing",
                message=f"no row {8_000 + ordinal} in product",
                traceback=TRACEBACK,
                attempt=3,
                worker="ws1-4021-2",
                body=body,
            ),
        )
        bad = events.Ends(topic, batch, 0, "error", [(ordinal, ordinal + 1)])
        yield batch + 1_001 + 2 * number, when, events.Ended(worker="ws1-4021-2", number=1_000 + number, tasks=[bad])


def busy_state() -> State:
    """Live runs of every kind, ended ones, workers: the picture of a working day."""
    state = State()
    state.link = Link(server="127.0.0.1:4222", phase="live", since=NOW - 4_000, ready=True)
    state.history_from = NOW - 1_000
    state.put_record(record("7qk2mzt4w9ha", unique="Product/7", claim=(0, 1)))
    for sequence, at, event in live_events(
        batch=1_000, topic="reindex-entity", total=1_000_000, done=627_990, errors=194, seconds=15
    ):
        state.apply("7qk2mzt4w9ha", sequence, at, event, now=at)
    state.put_record(record("3fbn81xcp6te", "import-csv", created_at=NOW - 4, claim=(0, 2)))
    for sequence, at, event in live_events(
        batch=9_000, topic="import-csv.row", total=12_400, done=1_014, errors=0, seconds=4
    ):
        state.apply("3fbn81xcp6te", sequence, at, event, now=at)
    for run_id, fold in state.folds.items():
        state.put_record(
            msgspec.structs.replace(state.records[run_id], seq=fold.ledger.sequence, counts=fold.ledger.counts()[0])
        )
    state.put_record(record("k0avd5rm27jy", "mail.digest", state="queued", created_at=NOW - 1, started_at=None))
    state.put_record(final("jzx40we9bqn1", "thumbnails", 660, 42, success=22_811, error=2, interrupted=37_187))
    state.put_record(final("ya6m2pdk83fs", "reindex", 3_700, 3.1, success=4_988, error=12))
    state.put_record(final("w3thc90xgv5r", "nightly", 7_300, 91, success=812))
    for index in range(14):
        state.put_record(
            final(
                f"h{index:02d}q7dnm4xk2",
                ("nightly", "import-csv")[index % 2],
                9_000 + 900 * index,
                30,
                success=300 + 7_000 * (index % 3),
            )
        )
    for number in range(1, 9):
        tasks = {"7qk2mzt4w9ha": {"reindex-entity": 70}, "3fbn81xcp6te": {"import-csv.row": 6 + number}}
        # The first one executes the root, and a task that takes long.
        roots, longest = ["7qk2mzt4w9ha"], [Execution("7qk2mzt4w9ha", "reindex", (0, 0), 14.6), takes_long(11.2)]
        state.beat(
            beat(
                f"ws1-4021-{number}",
                tasks,
                roots=roots if number == 1 else [],
                longest=longest if number == 1 else [Execution("3fbn81xcp6te", "import-csv.row", (9_000, number), 1.3)],
            ),
            NOW - 0.4,
        )
    return state


def takes_long(seconds: float) -> Execution:
    """A task of the big run that a worker executes."""
    return Execution("7qk2mzt4w9ha", "reindex-entity", (1_000, 628_500), seconds)


def look_into(state: State, run_id: str = "7qk2mzt4w9ha") -> State:
    """The detail of the big run, read to its end."""
    detail = state.detail = Detail(run_id, "reindex")
    for sequence, at, event in live_events(
        batch=1_000, topic="reindex-entity", total=1_000_000, done=627_990, errors=194, seconds=15
    ):
        detail.apply(sequence, at, event)
    detail.caught_up = True
    return state
