"""What the screens render: frozen values, made by the state and read by nobody's clock but the caller's.

Times are seconds since the epoch, durations are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from corral.events import Receipt
from corral.ledger import Counts, TaskState
from corral.messages import TaskId
from corral.runs import Status

FRESH = 5.0
"""Seconds for which a heartbeat is taken to hold."""
Phase = Literal["connecting", "live", "offline"]


@dataclass(frozen=True, slots=True)
class Link:
    """The connection to the server."""

    server: str = ""
    """Its address, without credentials."""
    phase: Phase = "connecting"
    since: float = 0.0
    """When this phase began."""
    ready: bool = False
    """The runs that are stored have been read: an empty list means that there are none."""
    reason: str = ""
    """Why it is not connected, as far as known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """A run, now."""

    id: str
    topic: str
    status: Status
    counts: Counts
    topics: Mapping[str, Counts]
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    unique: str | None = None
    sequence: int = 0
    """The last event in the counts."""
    folded: bool = False
    """The counts are this dashboard's own fold, not those of the record."""
    growing: bool = False
    """The root has not ended: there may be more tasks to come."""
    root: TaskState = "pending"
    rate: float = 0.0
    """Ends per second: of the last seconds while it is live, and on average when it has ended."""
    eta: float | None = None
    """Seconds until all that is known has ended, at the present rate."""
    stalled: bool = False
    """Nothing has ended for long, although there is something to do."""
    interrupted_by: str | None = None
    interrupt_reason: str | None = None
    receipt: Receipt | None = None

    @property
    def ended(self) -> bool:
        return self.status in ("success", "failed", "interrupted")

    @property
    def done(self) -> int:
        """Tasks that ended by themselves."""
        return self.counts.success + self.counts.error

    @property
    def holds(self) -> bool:
        """Whether the counts add up."""
        c = self.counts
        return c.total == c.pending + c.running + c.success + c.error + c.interrupted


@dataclass(frozen=True, slots=True)
class Selected:
    """Some tasks of a run that ended badly, for a retry of these alone."""

    tasks: tuple[str, ...]
    kinds: tuple[str, ...] = ()
    """What they have in common, for people."""
    outcome: Literal["error", "interrupted"] = "error"


@dataclass(frozen=True, slots=True)
class Unlisted:
    """How many runs there are beside those that are kept, by how they stand."""

    live: int = 0
    success: int = 0
    failed: int = 0
    interrupted: int = 0

    @property
    def ended(self) -> int:
        return self.success + self.failed + self.interrupted


@dataclass(frozen=True, slots=True, kw_only=True)
class Doing:
    """Tasks of one run and topic that a worker executes."""

    run: str
    topic: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AtWork:
    """A task that a worker executes, as its last heartbeat names it."""

    worker: str
    run: str
    topic: str
    task: TaskId
    since: float
    """When it began, by the local clock."""
    seen_at: float
    """When the heartbeat came."""

    def seconds(self, now: float) -> float:
        """For how long it has been executed; where nothing was heard for long, for how long it had been then."""
        return max(0.0, (now if now - self.seen_at <= FRESH else self.seen_at) - self.since)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """A worker process, as its last heartbeat says."""

    id: str
    pool: str
    host: str
    pid: int
    topics: tuple[str, ...]
    slots: int
    busy: int
    rss: int
    """Bytes of memory."""
    started_at: float
    seen_at: float
    silent: bool
    """Not heard of for so long that it is taken for dead."""
    version: str = ""
    rate: float = 0.0
    """Ends per second."""
    doing: tuple[Doing, ...] = ()
    """The most first."""
    longest: tuple[AtWork, ...] = ()
    """What it has executed for longer than a second, the longest first, as far as it is named."""
    blocked: float = 0.0
    """Seconds for which its loop has been blocked."""
    blocked_by: str = ""
    waiting: int = 0
    """Tasks whose messages wait for room in the queue."""
    leaves: str = ""
    """`drain` or `stop`: it was told to leave, and takes nothing new."""
    leaves_by: str = ""
    """The operator who told it; empty if its pool ends."""
    stopping: tuple[str, ...] = ()
    """Runs that are ordered to stop, of which something still runs there."""
    settings: tuple[tuple[str, float], ...] = ()
    """What is not the default, of what all pools should agree on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareView:
    """What a worker does for one run."""

    worker: str
    running: int
    """Tasks of the run that it executes now."""
    success: int
    error: int
    interrupted: int
    rate: float
    """Ends per second."""
    last_at: float
    """When something ended there; 0 if nothing has."""
    host: str = ""
    """Empty for a worker that is gone."""
    known: bool = True
    """Whether it is known what it does now: of what was, it is not."""
    longest: AtWork | None = None
    """What of the run it has executed for longest, if for longer than a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """The line on top: where the numbers come from, and how fresh they are."""

    link: Link
    pools: int = 0
    workers: int = 0
    busy: int = 0
    slots: int = 0
    rate: float = 0.0
    """Ends per second, over all runs."""
    unheard: float = 0.0
    """Seconds since anything came from the server, if that is longer than it should be."""
    stale: float = 0.0
    """Seconds for which a run has moved and its record has not: no bookkeeper, if that goes on."""
    abreast: bool = True
    """What was stored before has been read."""
    lag: float = 0.0
    """Seconds from the storing of the last event to its being counted here."""
    bookkeeper: str | None = None
    """The pool that keeps the books; empty: there is none; None: not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventView:
    """A stored event, as one line."""

    sequence: int
    at: float
    kind: str
    text: str
    """Cleaned already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorView:
    """Why a task ended as error; all of it cut to what a person reads."""

    key: str
    group: str = ""
    """The key of its kind."""
    task: str
    topic: str
    type: str
    message: str
    traceback: tuple[str, ...]
    """Cleaned lines."""
    body: tuple[str, ...]
    """Cleaned lines."""
    attempt: int
    at: float
    worker: str
    round: int = 0
    """0, and one more for each retry of the run before it."""
