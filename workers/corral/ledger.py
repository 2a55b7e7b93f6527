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
- A round that is begun in several events begins with the last of them that was missing; up to then the run is over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, assert_never

from corral import events
from corral.batch import Batch
from corral.bitmap import Bitmap
from corral.events import AnyEvent, Outcome, Receipt
from corral.messages import ROOT, TaskId
from corral.parts import Parts, named
from corral.tally import Counts
from corral.tree import Tree

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


class Ledger:
    """The fold of one run's events. `topic` is the root's."""

    __slots__ = (
        "crash_counts",
        "crashed",
        "durations",
        "first_at",
        "interrupt",
        "interrupted_at",
        "last_at",
        "numbers",
        "over",
        "parts",
        "receipt",
        "round",
        "sequence",
        "status",
        "stored_at",
        "tree",
        "waits",
    )

    def __init__(self, topic: str) -> None:
        self.tree = Tree(topic)
        self.sequence = 0
        """Stream sequence of the last event that was applied."""
        self.stored_at = 0.0
        """When that event was stored, in seconds since the epoch."""
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
        self.numbers: dict[str, int] = {}
        """The last `Ended` of each worker whose durations are counted."""
        self.crash_counts: dict[TaskId, int] = {}
        self.crashed: set[str] = set()
        """The dead workers whose tasks are in `crash_counts`."""
        self.parts = Parts()
        """What was said so far of the next round, while some of it is missing."""

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
        topics = {
            topic: tally.counts(running.get(topic, 0)) for topic, tally in self.tree.tallies.items() if tally.total
        }
        if self.root_counts:
            topics[self.tree.topic] = topics.get(self.tree.topic, Counts()) + self._root_counts(root_running)
        return sum(topics.values(), Counts()), topics

    @property
    def root_counts(self) -> bool:
        """Whether the root is one of the tasks that are counted: it sent nothing, or did not end well."""
        return self.tree.outcome(ROOT) in ("error", "interrupted") or not any(
            t.total for t in self.tree.tallies.values()
        )

    @property
    def finished(self) -> bool:
        """Every task has ended, and whatever each of them sent."""
        return 0 in self.tree.root.ended and all(t.total == t.ended for t in self.tree.tallies.values())

    def _root_counts(self, running: bool) -> Counts:  # noqa: FBT001
        state = self.root_state(running)
        if state == "retrying":
            return Counts(total=1, pending=1, retrying=1)
        return Counts(total=1, **{state: 1})

    def root_state(self, running: bool = False) -> TaskState:  # noqa: FBT001, FBT002
        """`running`: a worker has begun with the root and nobody said that it stopped."""
        outcome = self.tree.outcome(ROOT)
        if outcome is not None:
            return outcome
        if running:
            return "running"
        return "retrying" if 0 in self.tree.root.waiting else "pending"

    def suspect(self, task: TaskId) -> bool:
        """Whether so many workers died under this task that it should run isolated."""
        return self.crashes(task) >= SUSPECT

    def crashes(self, task: TaskId) -> int:
        """Worker processes that died while they executed this task."""
        return self.crash_counts.get(task, 0)

    def make_receipt(self, seconds: float) -> Receipt:
        """What the interrupt of this round did, once the run is over or as if it ended now."""
        parts = [batch.account() for batch in self.tree.counting()]
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
        self.sequence, self.stored_at = sequence, at
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
        above = self.tree.open(self.sequence, event.parent)
        # A superseded execution may open after the winner's end is stored: its batch is known (its ends are kept),
        # and never counts.
        if above and event.parent[1] not in above.ended and not self.tree.stale(event.parent, event.round):
            self.tree.set_chain(event.parent, [*event.keep, (self.sequence, None)])

    def _sent(self, event: events.Sent) -> None:
        batch = self.tree.batches.get(event.batch)
        if batch is not None and event.count > batch.sent:
            with self.tree.changing(batch, Bitmap.of_range(batch.sent, event.count)):
                batch.send(event, self.tree.topic)

    def _ended(self, event: events.Ended) -> None:
        for ends in event.tasks:
            if batch := self.tree.batches.get(ends.batch):
                fresh = self._end(batch, ends.topic, ends.round, ends.outcome, Bitmap.of_ranges(ends.ranges))
                for ordinal in fresh.both(batch.dispatchers):
                    self.tree.set_chain((batch.id, ordinal), [])
        for end in event.dispatchers:
            if batch := self.tree.batches.get(end.task[0]):
                this = Bitmap.of_one(end.task[1])
                if self._end(batch, end.topic, end.round, end.outcome, this):
                    batch.dispatchers = batch.dispatchers.plus(this)
                    self.tree.set_chain(end.task, end.sent)
        if event.number > self.numbers.get(event.worker, -1):
            self.numbers[event.worker] = event.number
            _add_histogram(self.durations, event.durations)
            _add_histogram(self.waits, event.waits)

    def _end(self, batch: Batch, topic: str, round: int, outcome: Outcome, bits: Bitmap) -> Bitmap:
        """Let these end; returns the part that had not, and was not brought back in a later round."""
        fresh = bits.minus(batch.ended)
        if round < self.round:
            fresh = fresh.minus(batch.stale(round))
        if fresh:
            self.tree.end(batch, topic, outcome, fresh, late=self.interrupt is not None)
        return fresh

    def _retrying(self, event: events.Retrying) -> None:
        batch_id, ordinal = event.task
        batch = self.tree.batches.get(batch_id)
        if batch is None or ordinal in batch.ended or self.tree.stale(event.task, event.round):
            return
        this = Bitmap.of_one(ordinal)
        with self.tree.changing(batch, this):
            batch.learn(event.topic, this)
            batch.wait(ordinal, event.attempt)

    def _crash(self, event: events.Crashed) -> None:
        if event.worker in self.crashed:
            return
        self.crashed.add(event.worker)
        for task in event.tasks:
            self.crash_counts[task] = self.crash_counts.get(task, 0) + 1

    def _order_to_stop(self, event: events.Interrupted, at: float) -> None:
        if event.round == self.round and self.interrupt is None:
            self.interrupt, self.interrupted_at = event.cut(), at

    def _run_ended(self, event: events.RunEnded) -> None:
        if event.round != self.round:
            return
        if event.interrupted:
            self.tree.stop_everything()
        self.over = True
        self.status = event.status
        self.receipt = event.receipt

    def _reopen(self, event: events.Reopened, at: float) -> None:
        if not self.over or event.round != self.round + 1:
            return
        parts = self.parts.add(event)
        if parts is None:
            return
        self.parts = Parts()
        self._note_time(at)
        self.round = event.round
        self.over = False
        self.status, self.receipt = "", None
        self.interrupt, self.interrupted_at = None, None
        for batch in self.tree.batches.values():
            batch.begin_round()
        for batch_id, back in (each for part in parts for each in named(part)):
            if reopened := self.tree.batches.get(batch_id):
                with self.tree.changing(reopened, back):
                    reopened.bring_back(back, event.round)
                for task in [task for task in self.crash_counts if task[0] == batch_id and task[1] in back]:
                    del self.crash_counts[task]


_LARGEST = 2**63 - 1
"""What forged counts add up to at most: more could not be kept in a snapshot."""


def _add_histogram(into: dict[int, int], more: events.Histogram) -> None:
    for index, count in more:
        into[index] = min(into.get(index, 0) + count, _LARGEST)
