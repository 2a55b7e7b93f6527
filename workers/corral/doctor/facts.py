"""What was seen when somebody asked why nothing moves: plain values, gathered by `corral.checkup`.

Times are seconds since the epoch by this machine's clock, durations are seconds, sizes are bytes.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from corral.runs import Beat, Marker, Record

Kind = Literal["tasks", "events", "runs"]


class StreamFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A stream of the namespace."""

    name: str
    kind: Kind
    messages: int
    bytes: int
    limit: int
    """The most bytes that it may take; less than 1 where there is no limit."""
    problems: list[str] = []
    """What of its configuration is not as Corral needs it."""
    behind: list[str] = []
    """Servers whose copy is not up to date, or which are not there."""

    @property
    def share(self) -> float:
        """How much of the limit is in use, from 0 to 1."""
        return self.bytes / self.limit if self.limit > 0 else 0.0


class ConsumerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The consumer of a topic."""

    waiting: int
    """Messages that were not delivered yet."""
    held: int
    """Messages that were delivered and are not acknowledged: running, in back-off, or with a worker that is gone."""
    asks: int
    """Pulls of workers that wait for messages."""
    delivered: int
    """Counts every delivery."""
    ack_wait: float
    paused: float = 0.0
    """Seconds for which it delivers nothing, because somebody has paused it."""
    problems: list[str] = []


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """The queue at one moment."""

    queued: dict[tuple[str, str], int] = {}
    """Messages by (run, topic), those included that are being executed."""
    consumers: dict[str, ConsumerFacts] = {}
    listed: bool = True
    """The consumers could be seen."""


class WorkerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A worker that was heard."""

    beat: Beat
    ago: float = 0.0
    """Seconds since it was heard."""
    ahead: float | None = None
    """Seconds by which its clock is ahead of this machine's, about."""


class OddMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message in the queue that nobody will execute as it is."""

    kind: Literal["stranded", "poison"]
    run: str
    topic: str
    sequence: int


class RunFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is live, or that was asked about."""

    record: Record
    moved: bool = False
    """It changed while it was looked at."""
    queued: int = 0
    """Its messages in the queue, by the look that saw more."""
    marker: Marker | None = None
    marker_revision: int = 0
    next_attempt: float | None = None
    """When the first of its tasks that are in back-off is due."""
    last_attempt: float | None = None
    """When the last of them is, as far as it is known."""
    deaths: int = 0
    """Workers that have died while they executed something of it."""
    death: str = ""
    """Of the last one: which worker, and how it died."""
    death_at: float = 0.0
    refusal: str = ""
    """Why it was refused its unique key, if it was."""

    @property
    def stopping(self) -> bool:
        """Whether it is ordered to stop, and has not ended."""
        marker = self.marker
        return self.record.live and marker is not None and marker.kind == "stop" and marker.round >= self.record.round


class Bookkeeper(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds the lease, and whether that one answers."""

    pool: str | None
    answers: bool | None = None
    """None: it was not asked."""
    seconds: float = 0.0
    """How long the answer took."""


class Unseen(msgspec.Struct, frozen=True):
    """Something that could not be looked at."""

    what: str
    why: str


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What all streams of the account take, and may take."""

    bytes: int
    limit: int
    """Less than 1 where there is none that is told."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    at: float
    namespace: str
    server: str
    version: str
    """Of this Corral."""
    run: str | None = None
    """Only this run was asked about."""
    jetstream: str = ""
    """Why JetStream cannot be used; empty if it can."""
    slow: bool = False
    """That is only because no answer came in time: it may be there."""
    missing: list[str] = []
    """Streams that do not exist."""
    server_ahead: float | None = None
    """Seconds by which the server's clock is ahead of this machine's."""
    streams: list[StreamFacts] = []
    account: Account | None = None
    bookkeeper: Bookkeeper | None = None
    """None where the lease could not be read."""
    workers: list[WorkerFacts] | None = None
    """None where they could not be heard."""
    before: Look = Look()
    after: Look = Look()
    """The queue before and after the workers were listened to, about a second apart."""
    runs: list[RunFacts] = []
    """Live ones, and the one that was asked about."""
    ended: dict[str, bool] = {}
    """Of the runs that have messages and are not live: whether there is a record of them."""
    odd: list[OddMessage] = []
    unseen: list[Unseen] = []
    death: float = 5.0
    """Seconds without a heartbeat after which a worker is taken for dead."""
