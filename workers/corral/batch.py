"""What is known of one batch: the messages that one execution of a dispatcher sent."""

from __future__ import annotations

from typing import Literal

from corral import events
from corral.bitmap import EMPTY, Bitmap
from corral.events import Outcome, Receipt
from corral.messages import TaskId

Cap = int | None
"""How far a batch counts: up to an ordinal, or None for all that is known of it."""


class Batch:
    """Bitmaps of what has become of its ordinals, whether they count or not.

    An ordinal is known once a `Sent` covers it, or once its own end or retry was stored; everything below `sent` is
    known. All that has ended or waits is known.
    """

    __slots__ = (
        "attempts",
        "cap",
        "dispatchers",
        "ended",
        "error",
        "id",
        "interrupted",
        "killed",
        "late",
        "parent",
        "removed",
        "reopened",
        "sent",
        "topics",
        "waiting",
    )

    def __init__(self, id: int, parent: TaskId) -> None:
        self.id = id
        self.parent = parent
        self.sent = 0
        self.cap: Cap = 0
        """How far it counts now; 0 is not at all."""
        self.topics: dict[str, Bitmap] = {}
        """The known ordinals by topic."""
        self.ended = EMPTY
        self.error = EMPTY
        self.interrupted = EMPTY
        """Killed and removed ones included."""
        self.waiting = EMPTY
        """Open ones that are to have another attempt."""
        self.attempts: dict[int, int] = {}
        """The number of that attempt."""
        self.dispatchers = EMPTY
        """Ordinals that have opened batches, known or not."""
        self.late = EMPTY
        """What ended after the order to stop; of these:"""
        self.killed = EMPTY
        self.removed = EMPTY
        self.reopened: dict[int, Bitmap] = {}
        """Round -> ordinals that it named."""

    def counts(self, ordinal: int) -> bool:
        """Whether an ordinal counts, if it is known."""
        return self.cap is None or ordinal < self.cap

    def known(self) -> Bitmap:
        """All known ordinals."""
        known = EMPTY
        for bits in self.topics.values():
            known = known.plus(bits)
        return known

    def extent(self) -> int:
        """One past the highest ordinal that was sent for sure: it is known, or it has sent something itself."""
        tops = [bits.top() for bits in self.topics.values()]
        return max(self.sent, self.dispatchers.top(), *tops, 0)

    def still_open(self) -> Bitmap:
        """What counts and has not ended."""
        return self.known().within(self.cap).minus(self.ended)

    def account(self) -> Receipt:
        """What has become of what had not ended when the order to stop was stored, as if the run ended now.

        Of a batch that is still being sent, the end of the run ends what must lie before the last known ordinal too.
        """
        late = self.late.within(self.cap)
        interrupted, removed, killed = (late.shared(bits) for bits in (self.interrupted, self.removed, self.killed))
        unknown = self.extent() - self.known().count() if self.cap is None else 0
        return Receipt(
            removed=removed + self.still_open().count() + unknown,
            stopped=interrupted - removed - killed,
            killed=killed,
            finished_first=late.count() - interrupted,
        )

    def stale(self, round: int) -> Bitmap:
        """What was brought back in a later round than this."""
        stale = EMPTY
        for reopened_in, bits in self.reopened.items():
            if reopened_in > round:
                stale = stale.plus(bits)
        return stale

    # --- changes -------------------------------------------------------------------------------------

    def learn(self, topic: str, bits: Bitmap) -> None:
        """These ordinals were sent, to `topic`; what is known already keeps its topic."""
        new = bits.beyond(self.sent)
        for known in self.topics.values():
            new = new.minus(known)
        if new:
            self.topics[topic] = self.topics.get(topic, EMPTY).plus(new)

    def send(self, event: events.Sent, default: str) -> None:
        """A window was sent."""
        for topic, bits in _window(event):
            self.learn(topic, bits.within(event.count))
        self.fill(event.count, default)

    def fill(self, count: int, default: str) -> None:
        """Everything below `count` was sent, whether the log says so or not.

        An end may list more than was logged: it was interrupted, or the server lost the log's tail. The topic is then
        that of the highest known ordinal, or `default`.
        """
        if count > self.sent:
            topic = max(self.topics, key=lambda name: self.topics[name].top(), default=default)
            self.learn(topic, Bitmap.of_range(self.sent, count))
            self.sent = count

    def end(self, bits: Bitmap, outcome: Outcome | Literal["removed"], *, late: bool) -> None:
        """These, known and open, have ended."""
        self.ended = self.ended.plus(bits)
        if outcome == "error":
            self.error = self.error.plus(bits)
        elif outcome != "success":
            self.interrupted = self.interrupted.plus(bits)
        if outcome == "killed":
            self.killed = self.killed.plus(bits)
        if outcome == "removed":
            self.removed = self.removed.plus(bits)
        if late:
            self.late = self.late.plus(bits)
        self._forget_attempts(bits)

    def wait(self, ordinal: int, attempt: int) -> None:
        """This one, known and open, is to have another attempt; a lower number than before is late news."""
        self.waiting = self.waiting.plus(Bitmap.of_one(ordinal))
        self.attempts[ordinal] = max(attempt, self.attempts.get(ordinal, 1))

    def bring_back(self, bits: Bitmap, round: int) -> None:
        """These are open again; what belongs to an earlier round says nothing about them any more."""
        self.ended = self.ended.minus(bits)
        self.error = self.error.minus(bits)
        self.interrupted = self.interrupted.minus(bits)
        self.reopened[round] = self.reopened.get(round, EMPTY).plus(bits)
        self._forget_attempts(bits)

    def begin_round(self) -> None:
        """No order to stop has been given in the new round."""
        self.late = self.killed = self.removed = EMPTY

    def _forget_attempts(self, bits: Bitmap) -> None:
        if not self.waiting:
            return
        for ordinal in self.waiting.both(bits):
            del self.attempts[ordinal]
        self.waiting = self.waiting.minus(bits)


def _window(event: events.Sent) -> list[tuple[str, Bitmap]]:
    """The ordinals of a window by topic."""
    if not event.layout:
        return [(topic, Bitmap.of_range(event.first, event.count)) for topic in event.topics[:1]]
    window = []
    for index, topic in enumerate(event.topics):
        mark = chr(48 + index)
        bits = "".join(["1" if place == mark else "0" for place in reversed(event.layout)])
        window.append((topic, Bitmap.of_int(int(bits, 2), event.first)))
    return window
