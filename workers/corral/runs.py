"""A run: its record, and what users see of it. All of it is values; nothing here can act.

States of a record (`Record.state`); `starting` and `aborted` occur only with a unique key:

    starting ──> queued ──> running ──> ending ───────> final
        │           │          └──────> interrupting ────┘
        └─> aborted └──────────────────────┘
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec

from corral.decoding import Natural, decoder
from corral.errors import Unreadable
from corral.events import Receipt
from corral.ledger import Counts, Ledger, TaskState
from corral.messages import TaskId, task_text
from corral.selection import Selection

State = Literal["starting", "queued", "running", "ending", "interrupting", "final", "aborted", "reopening"]
Status = Literal["queued", "running", "interrupting", "success", "failed", "interrupted"]

ENDED: tuple[Status, ...] = ("success", "failed", "interrupted")
"""The statuses that are final, until a retry."""


RunId = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{1,64}\Z")]
TopicName = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9_-]+(\.[a-z0-9_-]+)*\Z", max_length=128)]
"""Checked when a record is read, so that no subject is ever made of something else."""


LONG, LONGEST = 1.0, 10
"""Seconds from which on a heartbeat names what is executed, and how many at most."""


class Record(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What is stored under `run.<id>`. Written by compare-and-set only, by whoever takes the next step.

    Times are seconds since the epoch.
    """

    id: RunId
    topic: TopicName
    body: msgspec.Raw
    state: State
    created_at: float
    unique: str | None = None
    round: Natural = 0
    claim: tuple[Natural, Natural] | None = None
    """(round, stream sequence) of the one message that may be the root of that round."""
    started_at: float | None = None
    finished_at: float | None = None
    updated_at: float | None = None
    """When the counts were written."""
    seq: Natural = 0
    """Stream sequence of the last event in the counts."""
    status: str = ""
    """The outcome, once `state` is final."""
    root: TaskState = "pending"
    counts: Counts = Counts(total=1, pending=1)
    topics: dict[str, Counts] = {}
    interrupted_by: str | None = None
    interrupt_reason: str | None = None
    receipt: Receipt | None = None
    resent: Annotated[int, msgspec.Meta(ge=-1, le=2**63 - 1)] = 0
    """Of a run that a retry brings back: up to this stream sequence the tasks of stored errors have their messages.

    -1: all have, and only the root's is missing.
    """
    selection: Selection | None = None
    """What the retry that began this round is limited to, until the run has ended again; None: everything."""

    @property
    def live(self) -> bool:
        """Whether the run holds its key: it has not ended, and was not refused."""
        return self.state not in ("final", "aborted")


class RunStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a run stands. Always `total == pending + running + success + error + interrupted`."""

    id: str
    topic: str
    status: Status
    root: TaskState
    """The state of the root task itself, which is counted only while it has sent nothing, or if it ended badly."""
    unique: str | None
    total: int
    pending: int
    running: int
    """The workers' last word: about a second old at most."""
    retrying: int
    """The part of `pending` that waits for its next attempt."""
    success: int
    error: int
    interrupted: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    updated_at: datetime | None
    """How fresh the counts are."""
    seq: int
    """The last event in the counts: its stream sequence."""
    interrupted_by: str | None
    interrupt_reason: str | None
    topics: dict[str, Counts]

    @property
    def ended(self) -> bool:
        """Whether the run has ended."""
        return self.status in ENDED


class Marker(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What is stored under `interrupt.<run>`: from this round on downwards, nothing of the run is executed any more."""

    kind: Literal["stop", "over"]
    round: Natural = 0
    by: str = ""
    reason: str | None = None
    at: float = 0.0
    kill_after: float | None = None
    """Seconds after which a worker that still executes something of the run is replaced; None: it may take its time."""


class TaskError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a task ended as error."""

    task: str
    topic: str
    type: str
    message: str
    traceback: str
    attempt: int
    at: datetime
    worker: str
    body: msgspec.Raw
    fingerprint: str


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A worker process, as its last heartbeat says."""

    id: str
    pool: str
    host: str
    pid: int
    topics: list[str]
    slots: int
    running: int
    rss: int
    """Bytes of memory."""
    started_at: datetime
    seen_at: datetime
    version: str
    waiting: int = 0
    """Tasks whose messages wait for room in the queue: it is full."""
    leaves: str = ""
    """`drain` or `stop`: it was told to leave, and takes nothing new; empty while it works."""
    leaves_by: str = ""
    """The operator who told it; empty if its pool ends."""
    longest: list[Executing] = []
    """What it has executed for longer than a second, the longest first; ten at most."""


class Executing(msgspec.Struct, frozen=True, kw_only=True):
    """A task that a worker executes."""

    run: str
    topic: str
    task: str
    since: datetime


class TopicStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A topic: messages that wait, tasks that run, workers that serve it and stay (0: nobody does)."""

    topic: str
    pending: int
    running: int
    workers: int


class Execution(msgspec.Struct, frozen=True, array_like=True):
    """A task that a worker executes, as its heartbeat tells."""

    run: str
    topic: str
    task: TaskId
    seconds: float
    """For how long, when the heartbeat was sent."""


class Beat(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A worker's heartbeat, on core NATS: nobody stores it."""

    id: str
    pool: str
    host: str
    pid: Natural
    topics: list[str]
    slots: Natural
    started_at: float
    version: str
    rss: Natural = 0
    running: dict[str, dict[str, Natural]] = {}
    """Tasks that are executed now, by run and topic, without roots."""
    roots: list[str] = []
    """Runs whose root is executed now."""
    longest: list[Execution] = []
    """What is executed for longer than `LONG`, roots too: the `LONGEST` longest, the longest first."""
    markers: Natural = 0
    """Revision of the last marker that was seen."""
    stopping: list[str] = []
    """Runs with a seen marker of which something still runs, or is not settled."""
    blocked: float = 0.0
    """Seconds for which the worker's loop has been blocked; 0 when it is not."""
    blocked_by: str = ""
    """What blocks it: topic, run and task."""
    waiting: Natural = 0
    """Tasks whose messages wait for room in the queue."""
    leaves: str = ""
    """`drain` or `stop`: it was told to leave, and takes nothing new."""
    leaves_by: str = ""
    """The operator who told it; empty if its pool ends."""
    leaving: bool = False
    """The worker's last word: it holds nothing any more."""
    at: float = 0.0
    """When it was sent, by the worker's clock."""
    settings: dict[str, float] = {}
    """What all pools should agree on, as far as it is not the default."""

    @property
    def busy(self) -> int:
        """Tasks that are executed now."""
        return sum(sum(topics.values()) for topics in self.running.values()) + len(self.roots)


def outcome(counts: Counts) -> Status:
    """The status of a run that has ended with these counts."""
    if counts.interrupted:
        return "interrupted"
    return "failed" if counts.error else "success"


def public_status(record: Record) -> Status:
    """The status that users see."""
    match record.state:
        case "final":
            return outcome(record.counts)
        case "running" | "ending":
            return "running"
        case "interrupting":
            return "interrupting"
        case _:
            return "queued"


def status_of(record: Record) -> RunStatus:
    """The record as users see it."""
    counts = record.counts
    return RunStatus(
        id=record.id,
        topic=record.topic,
        status=public_status(record),
        root=record.root,
        unique=record.unique,
        total=counts.total,
        pending=counts.pending,
        running=counts.running,
        retrying=counts.retrying,
        success=counts.success,
        error=counts.error,
        interrupted=counts.interrupted,
        created_at=moment(record.created_at),
        started_at=maybe_moment(record.started_at),
        finished_at=maybe_moment(record.finished_at),
        updated_at=maybe_moment(record.updated_at),
        seq=record.seq,
        interrupted_by=record.interrupted_by,
        interrupt_reason=record.interrupt_reason,
        topics=record.topics or {record.topic: counts},
    )


def counted(record: Record, ledger: Ledger, running: dict[str, int], *, root_running: bool) -> Record:
    """The record with the ledger's counts in it."""
    counts, topics = ledger.counts(running, root_running)
    return msgspec.structs.replace(
        record,
        counts=counts,
        topics=topics,
        root=ledger.root_state(root_running or (record.claim is not None and record.claim[0] == record.round)),
        seq=ledger.sequence,
    )


def worker_status(beat: Beat, seen_at: float) -> WorkerStatus:
    """A heartbeat as users see it."""
    return WorkerStatus(
        id=beat.id,
        pool=beat.pool,
        host=beat.host,
        pid=beat.pid,
        topics=beat.topics,
        slots=beat.slots,
        running=beat.busy,
        rss=beat.rss,
        started_at=moment(beat.started_at),
        seen_at=moment(seen_at),
        version=beat.version,
        waiting=beat.waiting,
        leaves=beat.leaves,
        leaves_by=beat.leaves_by,
        longest=[
            Executing(run=each.run, topic=each.topic, task=task_text(each.task), since=moment(seen_at - each.seconds))
            for each in beat.longest
        ],
    )


# --- times and JSON ---------------------------------------------------------------------------------


def moment(seconds: float) -> datetime:
    """Seconds since the epoch as a datetime in UTC, to the millisecond; absurd ones as the nearest that there is."""
    return datetime.fromtimestamp(round(min(max(seconds, 0.0), _LAST_MOMENT), 3), UTC)


def maybe_moment(seconds: float | None) -> datetime | None:
    """As `moment`, where there may be none."""
    return None if seconds is None else moment(seconds)


def plain(value: Any) -> Any:
    """Structs as dicts and lists that any JSON encoder takes; times as `2026-11-24T10:00:00.123Z`."""
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        case msgspec.Raw():
            return _plain_json(value)
        case msgspec.Struct():
            return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
        case dict():
            return {key: plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case _:
            return value


_decode_any = decoder(Any, "a body")
_LAST_MOMENT = 253_402_300_799.0
"""The last second of the year 9999."""


def _plain_json(raw: msgspec.Raw) -> Any:
    """A body as it is; as text if a program that is not ours has stored what is no JSON."""
    try:
        return _decode_any(raw)
    except Unreadable:
        return bytes(raw).decode(errors="replace")


_decode_record = decoder(Record, "a run's record")
_decode_beat = decoder(Beat, "a heartbeat")
_decode_marker = decoder(Marker, "a marker")
_encode = msgspec.json.Encoder().encode


def decode_record(data: bytes, run_id: str | None = None) -> Record:
    """The record in `data`; Unreadable if there is none, or if it is of another run than `run_id`."""
    record: Record = _decode_record(data)
    if run_id not in (None, record.id):
        raise Unreadable(f"the record of run {run_id}", f"it names run {record.id!r}")
    return record


def decode_beat(data: bytes) -> Beat:
    """The heartbeat in `data`; Unreadable if there is none."""
    beat: Beat = _decode_beat(data)
    return beat


def decode_marker(data: bytes) -> Marker:
    """The marker in `data`; Unreadable if there is none."""
    marker: Marker = _decode_marker(data)
    return marker


def encode(value: Record | Beat | Marker) -> bytes:
    """Any of the stored values as JSON."""
    return _encode(value)
