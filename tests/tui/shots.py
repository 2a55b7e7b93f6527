"""What snapshots are taken of: states of the dashboard, by name, and the sizes of terminal in which they are drawn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass

import msgspec

from corral import events
from corral.doctor.facts import Bookkeeper, ConsumerFacts, Facts, Look, RunFacts, StreamFacts, WorkerFacts
from corral.doctor.finding import Finding
from corral.events import AnyEvent, Receipt
from corral.runs import Beat, Execution, Record
from corral_tui.diagnosis import Diagnosis
from corral_tui.fold import Detail
from corral_tui.screens.replay import ReplayScreen
from corral_tui.state import State
from corral_tui.values import Link
from tests.tui.drawn import Stage
from tests.tui.scenes import NOW, TRACEBACK, PlainSource, beat, busy_state, final, live_events, look_into, record

Size = tuple[int, int]
Told = Iterable[tuple[int, float, AnyEvent]]

LEAST, NARROW, MIDDLE, WIDE = (60, 15), (80, 24), (120, 40), (200, 50)
ALL, BOTH = (NARROW, MIDDLE, WIDE), (NARROW, MIDDLE)
BIG, STOPPED, BATCH = "7qk2mzt4w9ha", "jzx40we9bqn1", 1_000


async def nothing(stage: Stage) -> None:
    """It is taken as it stands."""
    del stage


@dataclass(frozen=True, slots=True)
class Shot:
    """A state, how one gets there, and in which sizes it is kept."""

    make: Callable[[], PlainSource]
    keys: str = ""
    sizes: tuple[Size, ...] = ALL
    run: str | None = None
    read_only: bool = False
    theme: str = "corral"
    then: Callable[[Stage], Awaitable[None]] = nothing


# --- the list of runs ---------------------------------------------------------------------------------


def linked(**fields: object) -> PlainSource:
    """A dashboard that knows nothing but how it is connected."""
    source = PlainSource()
    source.state.link = Link(server="127.0.0.1:4222", since=NOW - 80, **fields)  # type: ignore[arg-type]
    return source


def working_day() -> PlainSource:
    """Runs of every status, and their workers."""
    state = busy_state()
    state.bookkeeper = "ws1-4021"
    tell(state, record("5rd8vhw20c7n", "mail.digest", unique="digest/2026-11-24", **begun(640)), stalled_story())
    tell(state, record("c1yq6xk3na4e", "thumbnails", **begun(31)), stopping_story())
    return PlainSource(state)


def begun(ago: float) -> dict[str, object]:
    return {"created_at": NOW - ago, "started_at": NOW - ago, "claim": (0, 1)}


def tell(state: State, run: Record, story: Told) -> None:
    """A run and its events."""
    state.put_record(run)
    for sequence, at, event in story:
        state.apply(run.id, sequence, at, event, now=at)
    if run.live:
        fold = state.folds[run.id]
        state.put_record(msgspec.structs.replace(run, seq=fold.ledger.sequence, counts=fold.ledger.counts()[0]))


def earlier(seconds: float, story: Told) -> Iterator[tuple[int, float, AnyEvent]]:
    return ((sequence, at - seconds, event) for sequence, at, event in story)


def stalled_story() -> Told:
    return earlier(290, live_events(batch=20_000, topic="mail", total=9_000, done=4_210, errors=3, seconds=350))


def stopping_story() -> Iterator[tuple[int, float, AnyEvent]]:
    yield from live_events(batch=30_000, topic="thumbnail", total=60_000, done=22_811, errors=0, seconds=31)
    yield 40_000, NOW - 0.3, events.Interrupted(by="ana@ws1", reason="wrong shop")


def offline() -> PlainSource:
    source = working_day()
    source.state.link = Link(
        server="127.0.0.1:4222", phase="offline", since=NOW - 12, ready=True, reason="connection refused"
    )
    return source


def silent() -> PlainSource:
    """The server was heard 12 seconds ago, and the connection stands: frozen, or far away."""
    source = working_day()
    source.state.heard_at = NOW - 12
    return source


def no_books() -> PlainSource:
    """Nobody keeps the books, and the last look at everything found why."""
    source = working_day()
    source.state.bookkeeper = ""
    said = [
        Finding(severity="wrong", code="c", about="a", text=text, help="h")
        for text in ("no bookkeeper: records stand still, and redelivered tasks wait", "no worker serves mail.digest")
    ]
    source.state.diagnosis = Diagnosis(NOW, source.facts, tuple(said))
    return source


async def stopped(stage: Stage) -> None:
    """What was ordered has happened."""
    assert stage.source.answer is not None
    stage.source.answer.set_result(Receipt(removed=371_204, stopped=609, finished_first=3, seconds=0.084))
    await stage.tick()


async def palette_listed(stage: Stage) -> None:
    await stage.app.workers.wait_for_complete()
    await stage.type("sort")
    await stage.app.workers.wait_for_complete()


# --- a run --------------------------------------------------------------------------------------------


def big_run() -> PlainSource:
    """A run under way, with errors of several kinds."""
    state = look_into(busy_state())
    assert state.detail is not None
    kinds = [
        ("TimeoutError", "no answer within 30 s", TRACEBACK.replace("fetch", "ask")),
        ("Killed", "the process was ended by signal 9", ""),
    ]
    for number in range(7):
        error, message, traceback = kinds[number % 2]
        told = failed(700_000 + number, error, message, traceback)
        ends = events.Ends("reindex-entity", BATCH, 0, "error", [(700_000 + number, 700_001 + number)])
        pair: tuple[AnyEvent, ...] = (told, events.Ended(worker="ws1-4021-3", number=5_000 + number, tasks=[ends]))
        for place, event in enumerate(pair):
            sequence, at = 3_000 + 2 * number + place, NOW - 4 + number / 2
            state.apply(BIG, sequence, at, event, now=at)
            state.detail.apply(sequence, at, event)
    fold = state.folds[BIG]
    state.put_record(
        msgspec.structs.replace(state.records[BIG], seq=fold.ledger.sequence, counts=fold.ledger.counts()[0])
    )
    source = PlainSource(state)
    source.stored = task_story()
    return source


def failed(ordinal: int, error: str, message: str, traceback: str, *, worker: str = "ws1-4021-3") -> events.Failed:
    return events.Failed(
        topic="reindex-entity",
        task=(BATCH, ordinal),
        error=error,
        message=message,
        traceback=traceback,
        attempt=3,
        worker=worker,
        body=msgspec.Raw(b'{"id": %d, "target_class": "Product", "target_id": "7"}' % ordinal),
    )


def task_story() -> list[tuple[int, float, AnyEvent]]:
    """The task that `n` finds first: it was tried three times."""
    task = (BATCH, 627_990)
    at = NOW - 14

    def again(attempt: int) -> events.Retrying:
        why = "shop.table.Missing: no row 635990 in product"
        return events.Retrying(topic="reindex-entity", task=task, attempt=attempt, delay=2.0 * attempt, error=why)

    ends = events.Ends("reindex-entity", BATCH, 0, "error", [(627_990, 627_991)])
    return [
        (BATCH, at, events.Opened(parent=(0, 0), nonce="n")),
        (BATCH + 1, at + 0.1, events.Sent(batch=BATCH, first=0, count=1_000_000, topics=["reindex-entity"])),
        (1_300, at + 2.3, again(2)),
        (1_600, at + 6.35, again(3)),
        (
            2_000,
            at + 12.4,
            failed(627_990, "shop.table.Missing", "no row 635990 in product", TRACEBACK, worker="ws1-4021-2"),
        ),
        (2_001, at + 12.4, events.Ended(worker="ws1-4021-2", number=9, tasks=[ends])),
    ]


def run_of(run: Record, story: Told = (), *, read: bool = True) -> PlainSource:
    """One run that is looked at, with its events."""
    state = busy_state()
    kept = list(story)
    tell(state, run, kept)
    detail = state.detail = Detail(run.id, run.topic)
    for sequence, at, event in kept:
        detail.apply(sequence, at, event)
    detail.caught_up = read
    return PlainSource(state)


def ended_story(*, done: int, errors: int, seconds: float, stop: bool = False) -> Iterator[tuple[int, float, AnyEvent]]:
    """Of 5,000 tasks; what has not ended by itself was removed by an interrupt."""
    yield from earlier(
        600, live_events(batch=BATCH, topic="thumbnail", total=5_000, done=done, errors=errors, seconds=seconds)
    )
    if stop:
        yield 3_000, NOW - 600, events.Interrupted(by="ana@ws1", reason="wrong shop")
    root = events.DispatcherEnd("thumbnails", (0, 0), 0, "success", [(BATCH, 5_000)])
    yield 3_001, NOW - 599.9, events.Ended(worker="ws1-4021-1", number=9_000, dispatchers=[root])
    yield 3_002, NOW - 599.8, events.RunEnded(interrupted=stop)


def ended_run(**counts: int) -> Record:
    ended = final("jzx40we9bqn1", "thumbnails", 599.8, 42, **counts)
    return msgspec.structs.replace(ended, seq=3_002, topics={"thumbnail": ended.counts})


def stopped_run() -> PlainSource:
    receipt = Receipt(removed=1_980, stopped=18, finished_first=2, seconds=0.084)
    run = msgspec.structs.replace(
        ended_run(success=2_998, error=2, interrupted=2_000),
        interrupted_by="ana@ws1",
        interrupt_reason="wrong shop",
        receipt=receipt,
    )
    return run_of(run, ended_story(done=2_998, errors=2, seconds=42, stop=True))


def failed_run(*, recorded: int = 12) -> PlainSource:
    run = ended_run(success=5_000 - recorded, error=recorded)
    return run_of(run, ended_story(done=4_988, errors=12, seconds=42))


def mixed_run() -> PlainSource:
    """A run that has ended with errors of three kinds: 6, 4 and 2."""

    def kind(event: AnyEvent) -> AnyEvent:
        if not isinstance(event, events.Failed) or event.task[1] < 4_994:
            return event
        if event.task[1] < 4_998:
            return failed(event.task[1], "TimeoutError", "no answer within 30 s", TRACEBACK.replace("fetch", "ask"))
        return failed(event.task[1], "Killed", "the process was ended by signal 9", "")

    story = ended_story(done=4_988, errors=12, seconds=42)
    return run_of(ended_run(success=4_988, error=12), [(sequence, at, kind(event)) for sequence, at, event in story])


def partly_retried() -> PlainSource:
    """The same, of which a retry has brought back two of one kind, of which one has failed again."""
    source = mixed_run()
    ends = [
        events.Ends("thumbnail", BATCH, 1, "success", [(4_988, 4_989)]),
        events.Ends("thumbnail", BATCH, 1, "error", [(4_989, 4_990)]),
    ]
    again = msgspec.structs.replace(
        failed(4_989, "shop.table.Missing", "no row 12989 in product", TRACEBACK), round=1, topic="thumbnail"
    )
    told: list[AnyEvent] = [
        events.Reopened(round=1, tasks=[("thumbnail", BATCH, [(4_988, 4_990)])]),
        again,
        events.Ended(worker="ws1-4021-3", number=9_001, tasks=ends),
        events.RunEnded(round=1, status="failed"),
    ]
    run = msgspec.structs.replace(ended_run(success=4_989, error=11), round=1, seq=3_010)
    detail = source.state.detail
    assert detail is not None
    for number, event in enumerate(told):
        source.state.apply(STOPPED, 3_007 + number, NOW - 300 + number, event, now=NOW - 300)
        detail.apply(3_007 + number, NOW - 300 + number, event)
    source.state.put_record(run)
    return source


def queued_run() -> PlainSource:
    waits = record("k0avd5rm27jy", "mail.digest", state="queued", created_at=NOW - 130, started_at=None)
    return run_of(msgspec.structs.replace(waits, unique="digest/2026-11-24"))


def replayed_run() -> PlainSource:
    source = big_run()
    source.stored = list(
        live_events(batch=BATCH, topic="reindex-entity", total=1_000_000, done=627_990, errors=194, seconds=15)
    )
    return source


# --- workers, and why nothing moves -------------------------------------------------------------------


def crew() -> PlainSource:
    """Workers of two pools: blocked, still stopping something, without room, idle, silent."""
    source = working_day()
    state = source.state
    tasks = {BIG: {"reindex-entity": 70}}
    longest = [Execution(BIG, "reindex-entity", (1_000, 600_000 + 977 * n), 12.4 - 0.9 * n) for n in range(10)]
    blocked = {"blocked": 12.4, "blocked_by": "reindex-entity 7qk2mzt4w9ha 1000-600000", "longest": longest}
    state.beat(beat("ws1-4021-3", tasks, **blocked), NOW - 0.3)
    leaves = {"leaves": "drain", "leaves_by": "ana@ws1", "stopping": ["c1yq6xk3na4e"]}
    state.beat(beat("ws1-4021-4", {"c1yq6xk3na4e": {"thumbnail": 3}}, **leaves), NOW - 0.2)
    state.beat(beat("ws1-4021-5", tasks, waiting=2, settings={"ack_wait": 2.0}), NOW - 0.2)
    state.beat(beat("ws2-77-1", {}, pool="ws2-77", host="ws2"), NOW - 0.6)
    state.beat(beat("ws2-77-2", tasks, pool="ws2-77", host="ws2"), NOW - 9)
    return source


def facts(**fields: object) -> Facts:
    """What is looked at where all is well."""
    values: dict[str, object] = {
        "at": NOW,
        "namespace": "corral",
        "server": "127.0.0.1:4222",
        "version": "0.1.0",
        "server_ahead": 0.004,
        "streams": [stream("TASKS", 71_000, 0.1), stream("EVENTS", 212_000, 0.03)],
        "bookkeeper": Bookkeeper(pool="ws1-4021", answers=True, seconds=0.003),
        "workers": [WorkerFacts(beat=each) for each in (beat("ws1-4021-1", {}), beat("ws1-4021-2", {}))],
        "after": Look(listed=False),
        **fields,
    }
    return Facts(**values)  # type: ignore[arg-type]


def stream(kind: str, messages: int, share: float) -> StreamFacts:
    limit = int(4e9)
    return StreamFacts(
        name=f"corral_{kind}",
        kind="tasks" if kind == "TASKS" else "events",
        messages=messages,
        bytes=int(share * limit),
        limit=limit,
    )


def well() -> PlainSource:
    source = working_day()
    source.facts = facts()
    return source


def unwell() -> PlainSource:
    """A blocked loop, a topic that nobody serves, a stream that is nearly full, and clocks that differ."""
    source = working_day()
    blocked: Beat = beat("ws1-4021-1", {BIG: {"reindex-entity": 4}}, blocked=42.0, blocked_by=f"reindex {BIG} 1000-5")
    lonely = record("k0avd5rm27jy", "mail.digest", state="queued", created_at=NOW - 130, started_at=None)
    topics = ("mail.digest", "reindex", "reindex-entity", "import-csv")
    waits = ConsumerFacts(waiting=1, held=0, asks=0, delivered=0, ack_wait=15.0)
    look = Look(queued={("k0avd5rm27jy", "mail.digest"): 1}, consumers=dict.fromkeys(topics, waits))
    source.facts = facts(
        streams=[stream("TASKS", 690_000, 0.87), stream("EVENTS", 212_000, 0.03)],
        workers=[WorkerFacts(beat=blocked), WorkerFacts(beat=beat("ws2-77-1", {}, host="ws2"), ahead=41.0)],
        runs=[RunFacts(record=lonely, queued=1)],
        before=look,
        after=look,
    )
    return source


async def halfway(stage: Stage) -> None:
    """In the middle of the life of a run."""
    await stage.tick()
    assert isinstance(stage.app.screen, ReplayScreen)
    replay = stage.app.screen.replay
    replay.seek((replay.begins + replay.ends) / 2)
    await stage.tick(1)


INTERRUPT_BIG = "j j i"

SHOTS: dict[str, Shot] = {
    # The list of runs.
    "runs": Shot(working_day, sizes=(LEAST, *ALL)),
    "runs-connecting": Shot(lambda: linked(reason="connection refused"), sizes=(NARROW,)),
    "runs-never-connected": Shot(lambda: linked(phase="offline", reason="connection refused"), sizes=(NARROW,)),
    "runs-empty": Shot(lambda: linked(phase="live", ready=True), sizes=(LEAST, *BOTH)),
    "runs-offline": Shot(offline, sizes=BOTH),
    "runs-silent-server": Shot(silent, sizes=(NARROW,)),
    "runs-no-bookkeeper": Shot(no_books, sizes=BOTH),
    "runs-filtered": Shot(working_day, "slash s t a t u s colon l i v e", sizes=BOTH),
    "runs-filtered-to-nothing": Shot(working_day, "slash z z z enter", sizes=BOTH),
    "runs-marked": Shot(working_day, "E space space j space", sizes=BOTH),
    "runs-frozen": Shot(working_day, "p", sizes=(NARROW,)),
    "runs-read-only": Shot(working_day, sizes=(NARROW,), read_only=True),
    "runs-light": Shot(working_day, sizes=(MIDDLE,), theme="corral-light"),
    "runs-ansi": Shot(working_day, sizes=(MIDDLE,), theme="corral-ansi"),
    "runs-no-colour": Shot(working_day, sizes=(MIDDLE,), theme="NO_COLOR"),
    "too-small": Shot(working_day, sizes=((59, 15), (60, 14))),
    # One run.
    "run-tasks": Shot(big_run, run=BIG, sizes=(LEAST, *ALL)),
    "run-topics": Shot(big_run, "2", run=BIG),
    "run-errors": Shot(big_run, "3", run=BIG, sizes=(LEAST, *ALL)),
    "run-each-error": Shot(big_run, "3 e j", run=BIG, sizes=(LEAST, *ALL)),
    "run-errors-ended": Shot(mixed_run, "3 space", run=STOPPED, sizes=BOTH),
    "run-errors-retried": Shot(partly_retried, "3 e G", run=STOPPED, sizes=BOTH),
    "run-error-read": Shot(big_run, "3 enter enter", run=BIG, sizes=(LEAST, NARROW)),
    "run-workers": Shot(big_run, "4", run=BIG),
    "run-events": Shot(big_run, "5", run=BIG),
    "run-zoomed": Shot(big_run, "n enter", run=BIG, sizes=BOTH),
    "run-queued": Shot(queued_run, run="k0avd5rm27jy", sizes=BOTH),
    "run-stalled": Shot(
        lambda: run_of(record("5rd8vhw20c7n", "mail.digest", **begun(640)), stalled_story()),
        run="5rd8vhw20c7n",
        sizes=BOTH,
    ),
    "run-stopping": Shot(
        lambda: run_of(record("c1yq6xk3na4e", "thumbnails", **begun(31)), stopping_story()),
        run="c1yq6xk3na4e",
        sizes=BOTH,
    ),
    "run-interrupted": Shot(stopped_run, run=STOPPED),
    "run-failed": Shot(failed_run, run=STOPPED, sizes=BOTH),
    "run-disproved": Shot(lambda: failed_run(recorded=11), run=STOPPED, sizes=BOTH),
    "run-gone": Shot(working_day, run="0" * 12, sizes=(NARROW,)),
    "run-light": Shot(big_run, "3", run=BIG, sizes=(MIDDLE,), theme="corral-light"),
    "run-no-colour": Shot(big_run, run=BIG, sizes=(MIDDLE,), theme="NO_COLOR"),
    "task": Shot(big_run, "n enter enter", run=BIG),
    "replay": Shot(replayed_run, "left_square_bracket", run=BIG, then=halfway),
    # Questions, and what comes of them.
    "ask-interrupt": Shot(working_day, INTERRUPT_BIG, sizes=(LEAST, *BOTH)),
    "ask-retry": Shot(working_day, "E g j r right", sizes=(NARROW,)),
    "ask-retry-group": Shot(mixed_run, "3 j r", run=STOPPED, sizes=(LEAST, *BOTH)),
    "ask-retry-marked": Shot(mixed_run, "3 space j space r", run=STOPPED, sizes=(NARROW,)),
    "ask-many": Shot(working_day, "asterisk i", sizes=BOTH),
    "ask-drain": Shot(crew, "w D", sizes=BOTH),
    "ask-stop-many": Shot(crew, "w P S", sizes=(NARROW,)),
    "order-given": Shot(working_day, f"{INTERRUPT_BIG} y", sizes=(NARROW,)),
    "order-done": Shot(working_day, f"{INTERRUPT_BIG} y", sizes=BOTH, then=stopped),
    # Workers, and why nothing moves.
    "workers": Shot(crew, "w j j", sizes=(LEAST, *ALL)),
    "workers-none": Shot(lambda: linked(phase="live", ready=True), "w", sizes=(NARROW,)),
    "doctor-well": Shot(well, "d", sizes=BOTH),
    "doctor-unwell": Shot(unwell, "d", sizes=(LEAST, *ALL)),
    # Help.
    "help-runs": Shot(working_day, "question_mark", sizes=(LEAST, *BOTH)),
    "help-run": Shot(big_run, "question_mark", run=BIG, sizes=BOTH),
    "palette": Shot(working_day, "colon", sizes=BOTH, then=palette_listed),
}
