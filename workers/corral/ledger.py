"""The ledger of one run: a pure fold of its events into counts.

Every reader folds the same events in the same order (the stream's), so every reader sees the same counts, wherever
it starts and however often an event comes again. What the rules are for:

- A worker may die or freeze at any moment, so a task can be executed twice: the first stored end of a task wins.
- A dispatcher that runs again may send other messages: a batch counts only as far as its parent's winning end lists
  it; while the parent is open, as far as the parent's last opening keeps it, or if it is that last opening. And only if
  the parent itself counts. So a total can shrink, but `total == pending + success + error + interrupted` always holds.
- A list of what was sent is believed where the log is shorter, and not where it names what its task did not open.
- Of a batch that is still being sent, what counts is what is known: what the log says was sent, and beyond that the
  tasks that have ended or wait for another attempt. So every task that counts has a topic, and topics add up.
- An event that belongs to an earlier round of the run, or of a task that was brought back, says nothing about the
  current one; nor does what is stored between the end of a round and the next.
- The end of an interrupted round ends every open task.

How it is kept: each batch has bitmaps of the ordinals that are known, ended, in error, interrupted; and the tallies by
topic are adjusted for what is new in a bitmap, so that an event costs what it says and not what the run holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, assert_never

from corral import events
from corral.batch import Batch, Cap
from corral.bitmap import EMPTY, Bitmap
from corral.events import AnyEvent, Outcome, Receipt, SentList
from corral.messages import ROOT, TaskId
from corral.tally import Counts, Tally

__all__ = ["SUSPECT", "Counts", "Ledger", "TaskState"]

TaskState = Literal["pending", "running", "retrying", "success", "error", "interrupted"]
SUSPECT = 2
"""Worker deaths under a task after which it runs isolated."""

_EventOfARound = (
    events.Opened
    | events.Sent
    | events.Ended
    | events.Retrying
    | events.Failed
    | events.Crashed
    | events.Interrupted
    | events.RunEnded
)

_NOBODY: TaskId = (-1, -1)
"""Who sent the root."""


class Ledger:
    """The fold of one run's events. `topic` is the root's."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.sequence = 0
        """Stream sequence of the last event that was applied."""
        self.round = 0
        self.over = False
        self.status = ""
        """The run's final status, once it is over."""
        self.receipt: Receipt | None = None
        self.interrupt: events.Interrupted | None = None
        """The order to stop of the current round."""
        self.interrupted_at: float | None = None
        self.first_at: float | None = None
        self.last_at: float | None = None
        self.durations: dict[int, int] = {}
        self.waits: dict[int, int] = {}
        self._root = Batch(0, _NOBODY)
        self._root.fill(1, topic)
        self._root.cap = 1
        self._batches: dict[int, Batch] = {0: self._root}
        self._chains: dict[TaskId, dict[int, Cap]] = {}
        """What a task is taken to have sent: batch -> how far."""
        self._tallies: dict[str, Tally] = {}
        """What counts, without the root."""
        self._numbers: dict[str, int] = {}
        self._crashes: dict[TaskId, int] = {}
        self._crashed: set[str] = set()

    # --- what it says ------------------------------------------------------------------------------

    def counts(
        self,
        running: Mapping[str, int] | None = None,
        root_running: bool = False,  # noqa: FBT001, FBT002
    ) -> tuple[Counts, dict[str, Counts]]:
        """The run's counts, and those of each topic.

        `running` is the workers' last word, tasks by topic without the root; it is capped at what is open.
        """
        running = running or {}
        topics = {topic: tally.counts(running.get(topic, 0)) for topic, tally in self._tallies.items() if tally.total}
        if self.root_counts:
            topics[self.topic] = topics.get(self.topic, Counts()) + self._root_counts(root_running)
        return sum(topics.values(), Counts()), topics

    @property
    def root_counts(self) -> bool:
        """Whether the root is one of the tasks that are counted: it sent nothing, or did not end well."""
        return self.outcome(ROOT) in ("error", "interrupted") or not any(t.total for t in self._tallies.values())

    @property
    def finished(self) -> bool:
        """Every task has ended, and whatever each of them sent."""
        return 0 in self._root.ended and all(t.total == t.ended for t in self._tallies.values())

    def _root_counts(self, running: bool) -> Counts:  # noqa: FBT001
        state = self.root_state(running)
        if state == "retrying":
            return Counts(total=1, pending=1, retrying=1)
        return Counts(total=1, **{state: 1})

    def root_state(self, running: bool = False) -> TaskState:  # noqa: FBT001, FBT002
        """`running`: a worker has begun with the root and nobody said that it stopped."""
        outcome = self.outcome(ROOT)
        if outcome is not None:
            return outcome
        if running:
            return "running"
        return "retrying" if 0 in self._root.waiting else "pending"

    def outcome(self, task: TaskId) -> Literal["success", "error", "interrupted"] | None:
        """How `task` ended; None while it is open or not known."""
        batch = self._batches.get(task[0])
        if batch is None or task[1] not in batch.ended:
            return None
        if task[1] in batch.error:
            return "error"
        return "interrupted" if task[1] in batch.interrupted else "success"

    def knows(self, task: TaskId) -> bool:
        """Whether the task's batch was opened."""
        return task[0] in self._batches

    def is_counted(self, task: TaskId) -> bool:
        """Whether what becomes of the task matters: it was sent by an execution whose messages count."""
        batch = self._batches.get(task[0])
        return batch is not None and batch.counts(task[1]) and task[1] in batch.known()

    def stale(self, task: TaskId, round: int) -> bool:
        """Whether a retry has brought the task back in a later round than this."""
        batch = self._batches.get(task[0])
        return batch is not None and task[1] in batch.stale(round)

    def attempt(self, task: TaskId) -> int:
        """The number of the attempt that comes next, from 1."""
        batch = self._batches.get(task[0])
        return batch.attempts.get(task[1], 1) if batch else 1

    def suspect(self, task: TaskId) -> bool:
        """Whether so many workers died under this task that it should run isolated."""
        return self.crashes(task) >= SUSPECT

    def crashes(self, task: TaskId) -> int:
        """Worker processes that died while they executed this task."""
        return self._crashes.get(task, 0)

    def sent_by(self, task: TaskId) -> SentList:
        """What a task is known to have sent."""
        chain = self._chains.get(task, {})
        return [(batch, self._batches[batch].extent() if cap is None else cap) for batch, cap in chain.items()]

    def open_tasks(self) -> Iterator[tuple[str, int, list[events.Range]]]:
        """(topic, batch, ranges) of what has not ended, the root included."""
        for batch in self._counting():
            if still_open := batch.still_open():
                for topic, known in batch.topics.items():
                    if left := list(known.both(still_open).ranges()):
                        yield topic, batch.id, left

    def badly_ended(self) -> Iterator[tuple[str, int, Bitmap]]:
        """(topic, batch, ordinals) of what counts and ended as error or interrupted, the root included."""
        for batch in self._counting():
            bad = batch.error.plus(batch.interrupted).within(batch.cap)
            for topic, known in batch.topics.items():
                if bits := known.both(bad):
                    yield topic, batch.id, bits

    def parent(self, batch: int) -> TaskId:
        """The task that sent a known batch."""
        return self._batches[batch].parent

    def topic_of(self, task: TaskId) -> str:
        """The topic of a known task."""
        topics = self._batches[task[0]].topics
        return next((topic for topic, known in topics.items() if task[1] in known), self.topic)

    def to_restore(self, task: TaskId) -> list[tuple[int, list[events.Range]]]:
        """(batch, ranges) of what a task sent, and the last retry has brought back, and has not ended since."""
        chain = [self._batches[batch] for batch in self._chains.get(task, {})]
        left = [(batch.id, batch.reopened.get(self.round, EMPTY).both(batch.still_open())) for batch in chain]
        return [(batch, list(bits.ranges())) for batch, bits in left if bits]

    def make_receipt(self, seconds: float) -> Receipt:
        """What the interrupt of this round did, once the run is over or as if it ended now."""
        parts = [batch.account() for batch in self._counting()]
        return Receipt(
            removed=sum(part.removed for part in parts),
            stopped=sum(part.stopped for part in parts),
            killed=sum(part.killed for part in parts),
            finished_first=sum(part.finished_first for part in parts),
            seconds=round(seconds, 6),
        )

    # --- the fold ----------------------------------------------------------------------------------

    def apply(self, event: AnyEvent, sequence: int, at: float = 0.0) -> None:
        """Fold one event: its stream sequence, and when it was stored (seconds since the epoch).

        Events come in the order of the stream; one that was applied already changes nothing.
        """
        if sequence <= self.sequence:
            return
        self.sequence = sequence
        if isinstance(event, events.Reopened):
            self._reopen(event, at)
        elif not self.over:
            self._note_time(at)
            self._fold(event, at)

    def _note_time(self, at: float) -> None:
        self.first_at = at if self.first_at is None else self.first_at
        self.last_at = at

    def _fold(self, event: _EventOfARound, at: float) -> None:
        match event:
            case events.Ended():
                self._ended(event)
            case events.Sent():
                self._sent(event)
            case events.Opened():
                self._opened(event)
            case events.Retrying():
                self._retrying(event)
            case events.Crashed():
                self._crash(event)
            case events.Interrupted():
                self._order_to_stop(event, at)
            case events.RunEnded():
                self._run_ended(event)
            case events.Failed():
                pass  # why, not whether: `Ended` says that
            case _:
                assert_never(event)

    def _opened(self, event: events.Opened) -> None:
        batch_id, ordinal = event.parent
        sequence = self.sequence
        above = self._batches.get(batch_id)
        if above is None:
            return
        self._batches[sequence] = Batch(sequence, event.parent)
        above.dispatchers = above.dispatchers.plus(Bitmap.of_one(ordinal))
        # A superseded execution may open after the winner's end is stored: its batch is known (its ends are kept),
        # and never counts.
        if ordinal not in above.ended and not self.stale(event.parent, event.round):
            self._set_chain(event.parent, [*event.keep, (sequence, None)])

    def _sent(self, event: events.Sent) -> None:
        batch = self._batches.get(event.batch)
        if batch is not None and event.count > batch.sent:
            with self._changing(batch, Bitmap.of_range(batch.sent, event.count)):
                batch.send(event, self.topic)

    def _ended(self, event: events.Ended) -> None:
        for ends in event.tasks:
            if batch := self._batches.get(ends.batch):
                fresh = self._end(batch, ends.topic, ends.round, ends.outcome, Bitmap.of_ranges(ends.ranges))
                for ordinal in fresh.both(batch.dispatchers):
                    self._set_chain((batch.id, ordinal), [])
        for end in event.dispatchers:
            if batch := self._batches.get(end.task[0]):
                this = Bitmap.of_one(end.task[1])
                if self._end(batch, end.topic, end.round, end.outcome, this):
                    batch.dispatchers = batch.dispatchers.plus(this)
                    self._set_chain(end.task, end.sent)
        if event.number > self._numbers.get(event.worker, -1):
            self._numbers[event.worker] = event.number
            _add_histogram(self.durations, event.durations)
            _add_histogram(self.waits, event.waits)

    def _end(self, batch: Batch, topic: str, round: int, outcome: Outcome, bits: Bitmap) -> Bitmap:
        """Let these end; returns the part that had not, and was not brought back in a later round."""
        fresh = bits.minus(batch.ended)
        if round < self.round:
            fresh = fresh.minus(batch.stale(round))
        if fresh:
            with self._changing(batch, fresh):
                batch.learn(topic, fresh)
                batch.end(fresh, outcome, late=self.interrupt is not None)
        return fresh

    def _retrying(self, event: events.Retrying) -> None:
        batch_id, ordinal = event.task
        batch = self._batches.get(batch_id)
        if batch is None or ordinal in batch.ended or self.stale(event.task, event.round):
            return
        this = Bitmap.of_one(ordinal)
        with self._changing(batch, this):
            batch.learn(event.topic, this)
            batch.wait(ordinal, event.attempt)

    def _crash(self, event: events.Crashed) -> None:
        if event.worker in self._crashed:
            return
        self._crashed.add(event.worker)
        for task in event.tasks:
            self._crashes[task] = self._crashes.get(task, 0) + 1

    def _order_to_stop(self, event: events.Interrupted, at: float) -> None:
        if event.round == self.round and self.interrupt is None:
            self.interrupt, self.interrupted_at = event, at

    def _run_ended(self, event: events.RunEnded) -> None:
        if event.round != self.round:
            return
        if event.interrupted:
            self._stop_everything()
        self.over = True
        self.status = event.status
        self.receipt = event.receipt

    def _stop_everything(self) -> None:
        """What is open ends; a dispatcher among it has sent what is known of it, and what must lie before that.

        Else a late event of a frozen worker could open tasks in the next round that nobody has a message of.
        """
        for batch in self._counting():
            if batch.cap is None:
                end = batch.extent()
                with self._changing(batch, Bitmap.of_range(batch.sent, end)):
                    batch.fill(end, self.topic)
                    batch.cap = self._chains[batch.parent][batch.id] = end
        for batch in self._counting():
            if left := batch.still_open():
                with self._changing(batch, left):
                    batch.end(left, "removed", late=True)

    def _reopen(self, event: events.Reopened, at: float) -> None:
        if not self.over or event.round != self.round + 1:
            return
        self._note_time(at)
        self.round = event.round
        self.over = False
        self.status, self.receipt = "", None
        self.interrupt, self.interrupted_at = None, None
        for batch in self._batches.values():
            batch.begin_round()
        for _, batch_id, spans in event.tasks:
            if reopened := self._batches.get(batch_id):
                back = Bitmap.of_ranges(spans)
                with self._changing(reopened, back):
                    reopened.bring_back(back, event.round)
                for task in [task for task in self._crashes if task[0] == batch_id and task[1] in back]:
                    del self._crashes[task]

    # --- what counts -------------------------------------------------------------------------------

    def _counting(self) -> Iterator[Batch]:
        """The batches of which something may count, the root's included."""
        return (batch for batch in self._batches.values() if batch.cap != 0)

    def _set_chain(self, task: TaskId, sent: Iterable[tuple[int, Cap]]) -> None:
        """From now on `task` is taken to have sent these batches, each as far as its cap, and no others."""
        before = self._chains.get(task, {})
        chain: dict[int, Cap] = {}
        for batch_id, cap in sent:
            batch = self._batches.get(batch_id)
            if batch is None or batch.parent != task:
                continue
            chain[batch_id] = cap
            if cap is not None and cap > batch.sent:
                with self._changing(batch, Bitmap.of_range(batch.sent, cap)):
                    batch.fill(cap, self.topic)
        self._chains[task] = chain
        counts = self._batches[task[0]].counts(task[1])
        dropped = [(batch_id, 0) for batch_id in before if batch_id not in chain]
        self._set_caps([*dropped, *((batch_id, cap if counts else 0) for batch_id, cap in chain.items())])

    def _set_caps(self, changes: list[tuple[int, Cap]]) -> None:
        """Let batches count as far as said, and what their tasks sent with them. A stack: chains can be deep."""
        while changes:
            batch_id, cap = changes.pop()
            batch = self._batches[batch_id]
            before = batch.cap
            if before == cap:
                continue
            # Only ordinals past the lower of the two are concerned: none, at the usual end of a dispatcher.
            floor = min(limit for limit in (before, cap) if limit is not None)
            with self._changing(batch, batch.known().beyond(floor)):
                batch.cap = cap
            for ordinal in batch.dispatchers.beyond(floor):
                counted, counts = before is None or ordinal < before, batch.counts(ordinal)
                if counted != counts:
                    chain = self._chains.get((batch_id, ordinal), {})
                    changes += [(child, limit if counts else 0) for child, limit in chain.items()]

    @contextmanager
    def _changing(self, batch: Batch, bits: Bitmap) -> Iterator[None]:
        """Whatever happens to these ordinals of the batch meanwhile, the tallies follow."""
        self._weigh(batch, bits, -1)
        yield
        self._weigh(batch, bits, +1)

    def _weigh(self, batch: Batch, bits: Bitmap, sign: Literal[-1, 1]) -> None:
        """Add to the tallies, or take away, what these ordinals of the batch count for."""
        if batch is self._root:
            return
        bits = bits.within(batch.cap)
        for topic, known in batch.topics.items():
            if counting := known.both(bits):
                tally = self._tallies.setdefault(topic, Tally())
                tally.total += sign * counting.count()
                tally.ended += sign * counting.both(batch.ended).count()
                tally.error += sign * counting.both(batch.error).count()
                tally.interrupted += sign * counting.both(batch.interrupted).count()
                tally.waiting += sign * counting.both(batch.waiting).count()


def _add_histogram(into: dict[int, int], more: events.Histogram) -> None:
    for index, count in more:
        into[index] = into.get(index, 0) + count
