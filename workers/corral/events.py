"""The facts about a run, as they are stored: the only source of counts.

Every event is JSON with its kind in `type`, under the subject `<namespace>.event.<run>.<kind>`; what a
dispatcher opens and sends is under a subject of its own, so that its appends can be compared-and-set. New fields
have defaults, and a field's type never changes. The time of an event is the time at which the server stored it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec

from corral.decoding import Natural, decoder
from corral.errors import Unreadable
from corral.subjects import REASON_LIMIT, is_run_id, run_and_kind

MOST = 1 << 24
"""Tasks in one batch at most: a fan-out of more goes on in another batch."""

Ordinal = Annotated[int, msgspec.Meta(ge=0, le=MOST)]
"""Checked when an event is read, so that nobody who folds events meets a negative ordinal, or one so absurd that a set
of all below it would not fit into memory."""

_Task = tuple[Natural, Ordinal]
"""A `TaskId` as it is stored."""

Outcome = Literal["success", "error", "interrupted", "killed"]
"""`killed` is an interrupted task whose process had to be ended; it counts as interrupted."""

Range = tuple[Ordinal, Ordinal]
"""Ordinals from the first up to and without the second. Those of one list ascend, and none is empty."""

SentList = list[tuple[Natural, Ordinal]]
"""What one execution of a dispatcher sent: (batch, count) in the order of sending, kept prefixes included."""

Histogram = list[tuple[Annotated[int, msgspec.Meta(ge=0, le=1000)], Annotated[int, msgspec.Meta(ge=0, le=2**53)]]]
"""(bucket, count); see `bucket`."""


class Event(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", gc=False):
    """The base of all events."""


class Opened(Event, tag="opened", frozen=True):
    """A dispatcher is about to send: a new batch, whose id is the stream sequence of this event."""

    parent: _Task
    nonce: str
    """Random, of this append: a refused append may be its own resend."""
    round: Natural = 0
    keep: SentList = []
    """Batches of earlier executions that stay, each up to a count."""


class Sent(Event, tag="sent", frozen=True):
    """A window of a batch is in the queue, acknowledged."""

    batch: Natural
    first: Ordinal
    """Ordinal of the window's first message."""
    count: Ordinal
    """Messages of the batch so far, this window included."""
    topics: list[str]
    layout: str = ""
    """With more than one topic: a character a message, `chr(48 + index into topics)`."""
    digest: str = ""
    """blake2b of the window's topics and bodies."""
    nonce: str = ""


class Ends(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Tasks of one batch that ended alike and sent nothing."""

    topic: str
    batch: Natural
    round: Natural
    outcome: Outcome
    ranges: list[Range]

    def __post_init__(self) -> None:
        check_ranges(self.ranges)


class DispatcherEnd(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A task that ended after sending tasks."""

    topic: str
    task: _Task
    round: Natural
    outcome: Outcome
    sent: SentList


class Ended(Event, tag="ended", frozen=True):
    """Tasks have ended: one event for all that a worker finished while the previous event was being stored."""

    worker: str
    number: Natural
    """Counts this worker's events; durations and waits are counted once per (worker, number)."""
    tasks: list[Ends] = []
    dispatchers: list[DispatcherEnd] = []
    durations: Histogram = []
    """How long the processor ran."""
    waits: Histogram = []
    """From the message's storing to the processor's start."""


class Retrying(Event, tag="retrying", frozen=True):
    """A task will be executed again after `delay` seconds."""

    topic: str
    task: _Task
    attempt: Natural
    """The number of the attempt that comes next."""
    delay: float
    round: Natural = 0
    error: str = ""
    """Type and message of what it failed with; empty for a `Requeue`."""


class Failed(Event, tag="failed", frozen=True):
    """Why a task ended as error. Beside its end, never instead of it."""

    topic: str
    task: _Task
    error: str
    """The exception's type."""
    message: str
    traceback: str
    attempt: Natural
    worker: str
    body: msgspec.Raw
    fingerprint: str = ""
    round: Natural = 0


class Crashed(Event, tag="crashed", frozen=True):
    """A worker process died while it executed these tasks."""

    worker: str
    tasks: list[_Task]
    reason: str = ""


class Reopened(Event, tag="reopened", frozen=True):
    """A retry brings tasks of an ended run back.

    What does not fit into one event is said in several, in any order: nothing is brought back before the last of them
    that was missing, and then everything is. Any of them may come more than once.
    """

    round: Natural
    tasks: list[tuple[str, Natural, list[Range]]]
    """(topic, batch, ranges)."""
    bits: list[tuple[str, Natural, list[tuple[Ordinal, bytes]]]] = []
    """More of them, where ranges would be longer: (topic, batch, [(first, bits)]), the lowest bit of the first byte
    standing for `first`."""
    part: Natural = 0
    """From 0 on."""
    parts: Annotated[int, msgspec.Meta(ge=1)] = 1
    """How many events there are."""
    digest: str = ""
    """Of all of them together: events that belong to another whole are kept apart."""

    def __post_init__(self) -> None:
        for _, _, spans in self.tasks:
            check_ranges(spans)
        for _, _, pages in self.bits:
            check_bits(pages)


class Interrupted(Event, tag="interrupted", frozen=True):
    """The run is ordered to stop."""

    round: Natural = 0
    by: str = ""
    reason: str | None = None

    def cut(self) -> Interrupted:
        """The same, with no more text than a record has room for: a forged one is not to keep its run from ending."""
        if max(len(self.by), len(self.reason or "")) <= REASON_LIMIT:
            return self
        reason = self.reason[:REASON_LIMIT] if self.reason is not None else None
        return msgspec.structs.replace(self, by=self.by[:REASON_LIMIT], reason=reason)


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What an interrupt did. The four counts account for every task that had not ended when it was stored."""

    removed: Natural = 0
    """Taken out of the queue, or dropped before they ran."""
    stopped: Natural = 0
    """Were running, and stopped."""
    killed: Natural = 0
    """Were running, and their process was ended."""
    finished_first: Natural = 0
    """Ended by themselves after the order was stored."""
    seconds: float = 0.0
    """From the stored order to the last task's stop."""


class RunEnded(Event, tag="run-ended", frozen=True):
    """The run is over: nothing that is stored after it counts, until it is reopened."""

    round: Natural = 0
    interrupted: bool = False
    """Ends every open task as interrupted."""
    status: str = ""
    receipt: Receipt | None = None


AnyEvent = Opened | Sent | Ended | Retrying | Failed | Crashed | Reopened | Interrupted | RunEnded

_decode = decoder(AnyEvent, "an event")
_encode = msgspec.json.Encoder().encode


def decode_event(data: bytes, subject: str | None = None) -> AnyEvent:
    """The event in `data`; Unreadable if there is none.

    With the subject it was stored on, also if it is none for that subject: who may store what is said by subjects.
    """
    event: AnyEvent = _decode(data)
    if subject is not None:
        run_id, stands_on = run_and_kind(subject)
        if not is_run_id(run_id):
            raise Unreadable("an event", f"it is of {run_id!r}, which cannot be a run")
        if stands_on != ("dispatch" if isinstance(event, Opened | Sent) else kind(event)):
            raise Unreadable("an event", f"it is {kind(event)!r}, on a subject for {stands_on!r}")
    return event


def encode_event(event: Event) -> bytes:
    """`event` as JSON."""
    return _encode(event)


def kind(event: Event | type[Event]) -> str:
    """The last part of the subject of an event, or of all events of a type."""
    return str(event.__struct_config__.tag)


# --- histograms: four buckets for each doubling, from a microsecond on ------------------------------

_BUCKETS_PER_DOUBLING = 4
_SMALLEST = 1e-6


def bucket(seconds: float) -> int:
    """The bucket of a duration; its bounds are within 19% of each other."""
    if seconds <= _SMALLEST:
        return 0
    return int(math.log2(seconds / _SMALLEST) * _BUCKETS_PER_DOUBLING) + 1


def bucket_bound(index: int) -> float:
    """The upper bound of a bucket in seconds."""
    return float(_SMALLEST * 2 ** (index / _BUCKETS_PER_DOUBLING))


def quantile(histogram: dict[int, int], share: float) -> float | None:
    """The upper bound of the bucket in which the `share` of all values is reached; None without values."""
    total = sum(histogram.values())
    if not total:
        return None
    wanted, seen = share * total, 0
    for index in sorted(histogram):
        seen += histogram[index]
        if seen >= wanted:
            break
    return bucket_bound(index)


# --- small helpers for the writers of events ---------------------------------------------------------


def ranges(ordinals: Iterable[int]) -> list[Range]:
    """Sorted, touching ordinals put together; each ordinal once."""
    out: list[Range] = []
    for ordinal in sorted(set(ordinals)):
        if out and out[-1][1] == ordinal:
            out[-1] = (out[-1][0], ordinal + 1)
        else:
            out.append((ordinal, ordinal + 1))
    return out


def check_ranges(spans: Iterable[Range]) -> None:
    """ValueError if ranges do not ascend: reversed, empty or overlapping ones are nobody's, and might be costly."""
    end = 0
    for first, last in spans:
        if not end <= first < last:
            raise ValueError("ranges that do not ascend")
        end = last


def check_bits(pages: Iterable[tuple[int, bytes]]) -> None:
    """ValueError if pages of bits, (first, bits), go beyond the most that a batch can have."""
    if any(first + 8 * len(bits) > MOST for first, bits in pages):
        raise ValueError("ordinals beyond the most that a batch can have")


def layout(topics: list[str]) -> tuple[list[str], str]:
    """The topics of a window's messages, in order, as `Sent` carries them."""
    names = list(dict.fromkeys(topics))
    if len(names) == 1:
        return names, ""
    place = {name: chr(48 + index) for index, name in enumerate(names)}
    return names, "".join([place[topic] for topic in topics])
