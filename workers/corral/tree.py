"""The batches of one run as a tree: who sent what, what has become of it, and what of it counts.

A batch hangs below the task that sent it. What a task is taken to have sent is its chain: batches, each as far as its
cap. A batch counts as far as its cap if its task counts, and so on up to the root.

How it is kept: each batch has bitmaps of the ordinals that are known, ended, in error, interrupted; and the tallies by
topic are adjusted for what is new in a bitmap, so that a change costs what it says and not what the run holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

from corral.batch import Batch, Cap
from corral.bitmap import EMPTY, Bitmap
from corral.events import Outcome, Range, SentList
from corral.messages import TaskId
from corral.tally import Tally

_NOBODY: TaskId = (-1, -1)
"""Who sent the root."""


class Tree:
    """All batches of a run whose root has `topic`. Who changes a batch does it within `changing`."""

    __slots__ = ("batches", "chains", "root", "tallies", "topic")

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.root = Batch(0, _NOBODY)
        self.root.fill(1, topic)
        self.root.cap = 1
        self.batches: dict[int, Batch] = {0: self.root}
        self.chains: dict[TaskId, dict[int, Cap]] = {}
        """What a task is taken to have sent: batch -> how far."""
        self.tallies: dict[str, Tally] = {}
        """What counts, by topic, without the root."""

    # --- what it says ------------------------------------------------------------------------------

    def outcome(self, task: TaskId) -> Literal["success", "error", "interrupted"] | None:
        """How `task` ended; None while it is open or not known."""
        batch = self.batches.get(task[0])
        if batch is None or task[1] not in batch.ended:
            return None
        if task[1] in batch.error:
            return "error"
        return "interrupted" if task[1] in batch.interrupted else "success"

    def knows(self, task: TaskId) -> bool:
        """Whether the task's batch was opened."""
        return task[0] in self.batches

    def is_counted(self, task: TaskId) -> bool:
        """Whether what becomes of the task matters: it was sent by an execution whose messages count."""
        batch = self.batches.get(task[0])
        return batch is not None and batch.counts(task[1]) and task[1] in batch.known()

    def stale(self, task: TaskId, round: int) -> bool:
        """Whether a retry has brought the task back in a later round than this."""
        batch = self.batches.get(task[0])
        return batch is not None and task[1] in batch.stale(round)

    def attempt(self, task: TaskId) -> int:
        """The number of the attempt that comes next, from 1."""
        batch = self.batches.get(task[0])
        return batch.attempts.get(task[1], 1) if batch else 1

    def sent_by(self, task: TaskId) -> SentList:
        """What a task is known to have sent."""
        chain = self.chains.get(task, {})
        return [(batch, self.batches[batch].extent() if cap is None else cap) for batch, cap in chain.items()]

    def open_tasks(self) -> Iterator[tuple[str, int, list[Range]]]:
        """(topic, batch, ranges) of what has not ended, the root included."""
        for batch in self.counting():
            if still_open := batch.still_open():
                for topic, known in batch.topics.items():
                    if left := list(known.both(still_open).ranges()):
                        yield topic, batch.id, left

    def badly_ended(self) -> Iterator[tuple[str, int, Bitmap]]:
        """(topic, batch, ordinals) of what counts and ended as error or interrupted, the root included."""
        for batch in self.counting():
            bad = batch.error.plus(batch.interrupted).within(batch.cap)
            for topic, known in batch.topics.items():
                if bits := known.both(bad):
                    yield topic, batch.id, bits

    def parent(self, batch: int) -> TaskId:
        """The task that sent a known batch."""
        return self.batches[batch].parent

    def topic_of(self, task: TaskId) -> str:
        """The topic of a known task."""
        topics = self.batches[task[0]].topics
        return next((topic for topic, known in topics.items() if task[1] in known), self.topic)

    def to_restore(self, task: TaskId, round: int) -> list[tuple[int, Bitmap]]:
        """(batch, ordinals) of what a task sent, that the retry of this round has brought back, still open."""
        chain = [self.batches[batch] for batch in sorted(self.chains.get(task, {}))]
        left = [(batch.id, batch.reopened.get(round, EMPTY).both(batch.still_open())) for batch in chain]
        return [(batch, bits) for batch, bits in left if bits]

    def counting(self) -> Iterator[Batch]:
        """The batches of which something may count, the root's included."""
        return (batch for batch in self.batches.values() if batch.cap != 0)

    # --- changes -----------------------------------------------------------------------------------

    def open(self, id: int, parent: TaskId) -> Batch | None:
        """A new batch that `parent` sends; it does not count yet. None if nobody knows the parent's batch."""
        above = self.batches.get(parent[0])
        if above is None:
            return None
        self.batches[id] = Batch(id, parent)
        above.dispatchers = above.dispatchers.plus(Bitmap.of_one(parent[1]))
        return above

    def end(self, batch: Batch, topic: str, outcome: Outcome, bits: Bitmap, *, late: bool) -> None:
        """Let these, which are open, end."""
        with self.changing(batch, bits):
            batch.learn(topic, bits)
            batch.end(bits, outcome, late=late)

    def stop_everything(self) -> None:
        """What is open ends; a dispatcher among it has sent what is known of it, and what must lie before that.

        Else a late event of a frozen worker could open tasks in the next round that nobody has a message of.
        """
        for batch in self.counting():
            if batch.cap is None:
                end = batch.extent()
                with self.changing(batch, Bitmap.of_range(batch.sent, end)):
                    batch.fill(end, self.topic)
                    batch.cap = self.chains[batch.parent][batch.id] = end
        for batch in self.counting():
            if left := batch.still_open():
                with self.changing(batch, left):
                    batch.end(left, "removed", late=True)

    def set_chain(self, task: TaskId, sent: Iterable[tuple[int, Cap]]) -> None:
        """From now on `task` is taken to have sent these batches, each as far as its cap, and no others."""
        before = self.chains.get(task, {})
        chain: dict[int, Cap] = {}
        for batch_id, cap in sent:
            batch = self.batches.get(batch_id)
            if batch is None or batch.parent != task:
                continue
            chain[batch_id] = cap
            if cap is not None and cap > batch.sent:
                with self.changing(batch, Bitmap.of_range(batch.sent, cap)):
                    batch.fill(cap, self.topic)
        self.chains[task] = chain
        counts = self.batches[task[0]].counts(task[1])
        dropped = [(batch_id, 0) for batch_id in before if batch_id not in chain]
        self._set_caps([*dropped, *((batch_id, cap if counts else 0) for batch_id, cap in chain.items())])

    def _set_caps(self, changes: list[tuple[int, Cap]]) -> None:
        """Let batches count as far as said, and what their tasks sent with them. A stack: chains can be deep."""
        while changes:
            batch_id, cap = changes.pop()
            batch = self.batches[batch_id]
            before = batch.cap
            if before == cap:
                continue
            # Only ordinals past the lower of the two are concerned: none, at the usual end of a dispatcher.
            floor = min(limit for limit in (before, cap) if limit is not None)
            with self.changing(batch, batch.known().beyond(floor)):
                batch.cap = cap
            for ordinal in batch.dispatchers.beyond(floor):
                counted, counts = before is None or ordinal < before, batch.counts(ordinal)
                if counted != counts:
                    chain = self.chains.get((batch_id, ordinal), {})
                    changes += [(child, limit if counts else 0) for child, limit in chain.items()]

    @contextmanager
    def changing(self, batch: Batch, bits: Bitmap) -> Iterator[None]:
        """Whatever happens to these ordinals of the batch meanwhile, the tallies follow."""
        self._weigh(batch, bits, -1)
        yield
        self._weigh(batch, bits, +1)

    def weigh_all(self) -> None:
        """Fill the tallies of a tree whose batches were put in as they are."""
        for batch in self.batches.values():
            self._weigh(batch, batch.known(), +1)

    def _weigh(self, batch: Batch, bits: Bitmap, sign: Literal[-1, 1]) -> None:
        """Add to the tallies, or take away, what these ordinals of the batch count for."""
        if batch is self.root:
            return
        bits = bits.within(batch.cap)
        for topic, known in batch.topics.items():
            if counting := known.both(bits):
                tally = self.tallies.setdefault(topic, Tally())
                tally.total += sign * counting.count()
                tally.ended += sign * counting.shared(batch.ended)
                tally.error += sign * counting.shared(batch.error)
                tally.interrupted += sign * counting.shared(batch.interrupted)
                tally.waiting += sign * counting.shared(batch.waiting)
