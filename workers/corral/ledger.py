"""The ledger of one run: a pure fold of its events into counts.

Every reader folds the same events in the same order (the stream's), so every reader sees the same counts, wherever
it starts and however often an event comes again. What the rules are for:

- A worker may die or freeze at any moment, so a task can be executed twice: the first stored end of a task wins.
- A dispatcher that runs again may send other messages: a batch counts only as far as its parent's winning end lists
  it; while the parent is open, as far as the parent's last opening keeps it, or if it is that last opening. And only if
  the parent itself counts. So a total can shrink, but `total == pending + success + error + interrupted` always holds.
- An order or an end that belongs to an earlier round of the run says nothing about the current one.

How it is kept: each batch has bitmaps of the ordinals that are known, ended, in error, interrupted; and the tallies by
topic are adjusted for what is new in a bitmap, so that an event costs what it says and not what the run holds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Literal, assert_never

import msgspec

from corral import events
from corral.bitmap import Bitmap
from corral.events import AnyEvent, Outcome, Receipt, SentList
from corral.messages import ROOT, TaskId

Cap = int | None
"""How far a batch counts: up to an ordinal, or None for all that is known of it."""

TaskState = Literal["pending", "running", "retrying", "success", "error", "interrupted"]
SUSPECT = 2
"""Worker deaths under a task after which it runs isolated."""


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Tasks by state; `total == pending + running + success + error + interrupted`, always."""

    total: int = 0
    pending: int = 0
    running: int = 0
    retrying: int = 0
    """The part of `pending` that waits for its next attempt."""
    success: int = 0
    error: int = 0
    interrupted: int = 0


class Tally:
    """What counts, of one topic."""

    __slots__ = ("ended", "error", "interrupted", "retrying", "total")

    def __init__(self) -> None:
        self.total = self.ended = self.error = self.interrupted = self.retrying = 0

    def counts(self, running: int) -> Counts:
        still_open = self.total - self.ended
        running = min(running, still_open)
        pending = still_open - running
        return Counts(
            total=self.total,
            pending=pending,
            running=running,
            retrying=min(self.retrying, pending),
            success=self.ended - self.error - self.interrupted,
            error=self.error,
            interrupted=self.interrupted,
        )


class Batch:
    """The messages that one execution of a dispatcher sent."""

    __slots__ = ("cap", "dispatchers", "ended", "error", "id", "interrupted", "parent", "reach", "reopened", "sent", "topics", "waiting")

    def __init__(self, id: int, parent: TaskId) -> None:
        self.id = id
        self.parent = parent
        self.sent = 0
        self.topics: dict[str, Bitmap] = {}
        """Known ordinals by topic: those within `sent`, and those that have ended beyond it."""
        self.ended = Bitmap()
        self.error = Bitmap()
        self.interrupted = Bitmap()
        self.cap: Cap = 0
        """How far it counts now; 0 is not at all."""
        self.dispatchers: set[int] = set()
        """Ordinals that have opened batches."""
        self.reach = 0
        """One past the highest of them."""
        self.waiting: dict[int, tuple[str, int]] = {}
        """Ordinals that wait for another attempt: (topic, its number)."""
        self.reopened: dict[int, Bitmap] = {}
        """Round -> ordinals that it brought back."""

    def counts(self, ordinal: int) -> bool:
        return self.cap is None or ordinal < self.cap

    def dispatches(self, ordinal: int) -> None:
        """Note that this task opened a batch."""
        self.dispatchers.add(ordinal)
        self.reach = max(self.reach, ordinal + 1)

    def top(self) -> int:
        """One past the highest known ordinal."""
        return max((known.top() for known in self.topics.values()), default=0)

    def known(self) -> Bitmap:
        """All known ordinals."""
        known = Bitmap()
        for bits in self.topics.values():
            known.add(bits)
        return known


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
        root = Batch(0, ROOT)
        root.sent = 1
        root.cap = 1
        self._batches: dict[int, Batch] = {0: root}
        self._chains: dict[TaskId, list[tuple[int, Cap]]] = {}
        self._tallies: dict[str, Tally] = {}
        self._numbers: dict[str, int] = {}
        self._crashes: dict[TaskId, int] = {}
        self._crashed: set[str] = set()
        self._removed = self._stopped = self._killed = self._finished_first = 0

    # --- what it says ------------------------------------------------------------------------------

    def counts(self, running: Mapping[str, int] | None = None, root_running: bool = False) -> tuple[Counts, dict[str, Counts]]:
        """The run's counts, and those of each topic.

        `running` is the workers' last word, tasks by topic without the root; it is capped at what is open.
        """
        running = running or {}
        topics = {topic: tally.counts(running.get(topic, 0)) for topic, tally in self._tallies.items() if tally.total}
        if self.root_counts:
            topics[self.topic] = _plus(topics.get(self.topic, Counts()), self._root_counts(root_running))
        total = Counts()
        for counts in topics.values():
            total = _plus(total, counts)
        return total, topics

    @property
    def root_counts(self) -> bool:
        """Whether the root is one of the tasks that are counted: it sent nothing, or did not end well."""
        return self.outcome(ROOT) in ("error", "interrupted") or not any(t.total for t in self._tallies.values())

    @property
    def finished(self) -> bool:
        """Every task has ended, and whatever each of them sent."""
        return 0 in self._batches[0].ended and all(t.total == t.ended for t in self._tallies.values())

    def _root_counts(self, running: bool) -> Counts:
        state = self.root_state(running)
        return Counts(
            total=1,
            pending=int(state in ("pending", "retrying")),
            running=int(state == "running"),
            retrying=int(state == "retrying"),
            success=int(state == "success"),
            error=int(state == "error"),
            interrupted=int(state == "interrupted"),
        )

    def root_state(self, running: bool = False) -> TaskState:
        """`running`: a worker has begun with the root and nobody said that it stopped."""
        outcome = self.outcome(ROOT)
        if outcome is not None:
            return outcome
        if running:
            return "running"
        return "retrying" if 0 in self._batches[0].waiting else "pending"

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

    def stale(self, task: TaskId, round: int) -> bool:
        """Whether a retry has brought the task back in a later round than this."""
        batch = self._batches.get(task[0])
        return batch is not None and any(r > round and task[1] in bits for r, bits in batch.reopened.items())

    def attempt(self, task: TaskId) -> int:
        """The number of the attempt that comes next, from 1."""
        batch = self._batches.get(task[0])
        return batch.waiting.get(task[1], ("", 1))[1] if batch else 1

    def suspect(self, task: TaskId) -> bool:
        """Whether so many workers died under this task that it should run isolated."""
        return self._crashes.get(task, 0) >= SUSPECT

    def crashes(self, task: TaskId) -> int:
        """Worker processes that died while they executed this task."""
        return self._crashes.get(task, 0)

    def sent_by(self, task: TaskId) -> SentList:
        """What a task is known to have sent."""
        return [(b, self._extent(b) if cap is None else cap) for b, cap in self._chains.get(task, ())]

    def open_tasks(self) -> Iterator[tuple[str, int, list[events.Range]]]:
        """(topic, batch, ranges) of what has not ended, the root included."""
        if 0 not in self._batches[0].ended:
            yield self.topic, 0, [(0, 1)]
        for batch in self._batches.values():
            if batch.id and batch.cap != 0:
                for topic, known in batch.topics.items():
                    if left := list(known.within(batch.cap).minus(batch.ended).ranges()):
                        yield topic, batch.id, left

    def make_receipt(self, seconds: float) -> Receipt:
        """What the interrupt of this round did, once the run is over or as if it ended now."""
        left = 0 if self.over else sum(t.total - t.ended for t in self._tallies.values()) + (0 not in self._batches[0].ended)
        return Receipt(
            removed=self._removed + left,
            stopped=self._stopped,
            killed=self._killed,
            finished_first=self._finished_first,
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
        if self.over and not isinstance(event, events.Reopened):
            return
        self.first_at = at if self.first_at is None else self.first_at
        self.last_at = at
        match event:
            case events.Ended():
                self._ended(event)
            case events.Sent():
                self._sent(event)
            case events.Opened():
                self._opened(event, sequence)
            case events.Retrying():
                self._retrying(event)
            case events.Crashed():
                self._crash(event)
            case events.Interrupted():
                if event.round == self.round and self.interrupt is None:
                    self.interrupt, self.interrupted_at = event, at
            case events.RunEnded():
                self._run_ended(event)
            case events.Reopened():
                self._reopen(event)
            case events.Failed():
                pass  # why, not whether: `Ended` says that
            case _:
                assert_never(event)

    def _opened(self, event: events.Opened, sequence: int) -> None:
        parent = event.parent
        above = self._batches.get(parent[0])
        if above is None:
            return
        self._batches[sequence] = Batch(sequence, parent)
        above.dispatches(parent[1])
        # A superseded execution may open after the winner's end is stored: its batch is known (its ends are kept),
        # and never counts.
        if parent[1] in above.ended or self.stale(parent, event.round):
            return
        self._set_chain(parent, [*event.keep, (sequence, None)])

    def _sent(self, event: events.Sent) -> None:
        batch = self._batches.get(event.batch)
        if batch is None or event.count <= batch.sent:
            return
        for topic, bits in _window(event):
            self._learn(batch, topic, bits.beyond(batch.sent))
        batch.sent = event.count

    def _ended(self, event: events.Ended) -> None:
        for ends in event.tasks:
            batch = self._batches.get(ends.batch)
            if batch is None:
                continue
            fresh = self._fresh(batch, ends.round, Bitmap.of_ranges(ends.ranges))
            if fresh:
                self._end(batch, ends.topic, ends.outcome, fresh)
                for ordinal in _common(batch.dispatchers, fresh):
                    self._set_chain((batch.id, ordinal), [])
        for end in event.dispatchers:
            batch = self._batches.get(end.task[0])
            if batch is None:
                continue
            fresh = self._fresh(batch, end.round, Bitmap.of_range(end.task[1], end.task[1] + 1))
            if fresh:
                batch.dispatches(end.task[1])
                self._end(batch, end.topic, end.outcome, fresh)
                self._set_chain(end.task, list(end.sent))
        if event.number > self._numbers.get(event.worker, -1):
            self._numbers[event.worker] = event.number
            _add_histogram(self.durations, event.durations)
            _add_histogram(self.waits, event.waits)

    def _retrying(self, event: events.Retrying) -> None:
        batch = self._batches.get(event.task[0])
        ordinal = event.task[1]
        if batch is None or ordinal in batch.ended or self.stale(event.task, event.round):
            return
        before = batch.waiting.get(ordinal)
        batch.waiting[ordinal] = (event.topic, max(event.attempt, before[1] if before else 1))
        if before is None and batch.id and batch.counts(ordinal):
            self._tally(event.topic).retrying += 1

    def _crash(self, event: events.Crashed) -> None:
        if event.worker in self._crashed:
            return
        self._crashed.add(event.worker)
        for task in event.tasks:
            self._crashes[task] = self._crashes.get(task, 0) + 1

    def _run_ended(self, event: events.RunEnded) -> None:
        if event.round != self.round:
            return
        if event.interrupted:
            for topic, batch_id, left in list(self.open_tasks()):
                batch = self._batches[batch_id]
                self._end(batch, topic, "interrupted", Bitmap.of_ranges(left), swept=True)
        self.over = True
        self.status = event.status
        self.receipt = event.receipt

    def _reopen(self, event: events.Reopened) -> None:
        if not self.over or event.round != self.round + 1:
            return
        self.round = event.round
        self.over = False
        self.status, self.receipt = "", None
        self.interrupt, self.interrupted_at = None, None
        self._removed = self._stopped = self._killed = self._finished_first = 0
        for topic, batch_id, spans in event.tasks:
            batch = self._batches.get(batch_id)
            if batch is not None:
                self._bring_back(batch, topic, Bitmap.of_ranges(spans))

    # --- how it is kept ----------------------------------------------------------------------------

    def _fresh(self, batch: Batch, round: int, bits: Bitmap) -> Bitmap:
        """The part of `bits` that has not ended, and was not brought back in a later round."""
        fresh = bits.minus(batch.ended)
        if round < self.round:
            for reopened_in, reopened in batch.reopened.items():
                if reopened_in > round:
                    fresh = fresh.minus(reopened)
        return fresh

    def _end(self, batch: Batch, topic: str, outcome: Outcome, fresh: Bitmap, *, swept: bool = False) -> None:
        """Mark ordinals, none of which has ended, as ended."""
        self._learn(batch, topic, fresh.beyond(batch.sent))
        batch.ended.add(fresh)
        if outcome == "error":
            batch.error.add(fresh)
        elif outcome != "success":
            batch.interrupted.add(fresh)
        for ordinal in _common(batch.waiting, fresh):
            waiting_topic, _ = batch.waiting.pop(ordinal)
            if batch.id and batch.counts(ordinal):
                self._tally(waiting_topic).retrying -= 1
        count = fresh.within(batch.cap).count()
        if batch.id and count:
            tally = self._tally(topic)
            tally.ended += count
            tally.error += count if outcome == "error" else 0
            tally.interrupted += count if outcome in ("interrupted", "killed") else 0
        self._note(outcome, count, swept=swept)

    def _note(self, outcome: Outcome, count: int, *, swept: bool) -> None:
        """Count for the receipt what ends after the order to stop."""
        if swept:
            self._removed += count
        elif self.interrupt is None:
            return
        elif outcome == "interrupted":
            self._stopped += count
        elif outcome == "killed":
            self._killed += count
        else:
            self._finished_first += count

    def _learn(self, batch: Batch, topic: str, bits: Bitmap) -> None:
        """Ordinals of this topic are known to be sent."""
        if not bits or not batch.id:
            return
        for other, known in batch.topics.items():
            if other != topic:
                bits = bits.minus(known)
        known = batch.topics.setdefault(topic, Bitmap())
        new = bits.minus(known)
        known.add(new)
        if count := new.within(batch.cap).count():
            self._tally(topic).total += count

    def _bring_back(self, batch: Batch, topic: str, bits: Bitmap) -> None:
        back = bits.both(batch.ended)
        if not back:
            return
        errors, interrupted = back.both(batch.error), back.both(batch.interrupted)
        for kept, gone in ((batch.ended, back), (batch.error, errors), (batch.interrupted, interrupted)):
            kept.remove(gone)
        batch.reopened.setdefault(self.round, Bitmap()).add(back)
        for ordinal in _common(self._crashed_ordinals(batch.id), back):
            del self._crashes[(batch.id, ordinal)]
        if batch.id:
            tally = self._tally(topic)
            tally.ended -= back.within(batch.cap).count()
            tally.error -= errors.within(batch.cap).count()
            tally.interrupted -= interrupted.within(batch.cap).count()

    def _crashed_ordinals(self, batch_id: int) -> set[int]:
        return {ordinal for batch, ordinal in self._crashes if batch == batch_id}

    def _tally(self, topic: str) -> Tally:
        tally = self._tallies.get(topic)
        if tally is None:
            tally = self._tallies[topic] = Tally()
        return tally

    def _extent(self, batch_id: int) -> int:
        batch = self._batches.get(batch_id)
        return max(batch.sent, batch.top()) if batch else 0

    # --- what counts -------------------------------------------------------------------------------

    def _set_chain(self, task: TaskId, chain: list[tuple[int, Cap]]) -> None:
        """From now on `task` is taken to have sent these batches, each as far as its cap."""
        for batch_id, cap in chain:
            if (batch := self._batches.get(batch_id)) and cap is not None and cap > self._extent(batch_id):
                self._fill(batch, cap)
        valid = task == ROOT or self._batches[task[0]].counts(task[1])
        wanted: dict[int, Cap] = {batch_id: cap if valid else 0 for batch_id, cap in chain}
        changes = [(batch_id, 0) for batch_id, _ in self._chains.get(task, ()) if batch_id not in wanted]
        self._chains[task] = chain
        self._set_caps([*changes, *wanted.items()])

    def _set_caps(self, changes: list[tuple[int, Cap]]) -> None:
        """Let batches count as far as said, and what their tasks sent with them. A stack: chains can be deep."""
        while changes:
            batch_id, cap = changes.pop()
            batch = self._batches.get(batch_id)
            if batch is None or batch.cap == cap:
                continue
            before = batch.cap
            if batch.sent and {before, cap} == {None, batch.sent} and max(batch.top(), batch.reach) <= batch.sent:
                batch.cap = cap  # the same tasks, said in another way: the usual end of a dispatcher
                continue
            self._add(batch, -1)
            batch.cap = cap
            self._add(batch, +1)
            for ordinal in batch.dispatchers:
                was, now = before is None or ordinal < before, batch.counts(ordinal)
                if was != now:
                    changes += [(child, limit if now else 0) for child, limit in self._chains.get((batch_id, ordinal), ())]

    def _add(self, batch: Batch, sign: int) -> None:
        """Add or take away all that a batch counts for."""
        if batch.cap == 0:
            return
        for topic, known in batch.topics.items():
            inside = known.within(batch.cap)
            if total := inside.count():
                tally = self._tally(topic)
                tally.total += sign * total
                tally.ended += sign * inside.both(batch.ended).count()
                tally.error += sign * inside.both(batch.error).count()
                tally.interrupted += sign * inside.both(batch.interrupted).count()
        for ordinal, (topic, _) in batch.waiting.items():
            if batch.counts(ordinal):
                self._tally(topic).retrying += sign

    def _fill(self, batch: Batch, count: int) -> None:
        """An end lists more than the log says was sent (a server that lost the log's tail): believe the end."""
        topic = next(reversed(batch.topics), self.topic)
        self._learn(batch, topic, Bitmap.of_range(0, count).minus(batch.known()))
        batch.sent = max(batch.sent, count)


# --- helpers ---------------------------------------------------------------------------------------


def _plus(a: Counts, b: Counts) -> Counts:
    return Counts(
        total=a.total + b.total,
        pending=a.pending + b.pending,
        running=a.running + b.running,
        retrying=a.retrying + b.retrying,
        success=a.success + b.success,
        error=a.error + b.error,
        interrupted=a.interrupted + b.interrupted,
    )


def _window(event: events.Sent) -> Iterable[tuple[str, Bitmap]]:
    """The ordinals of a window by topic."""
    if not event.layout:
        return [(event.topics[0], Bitmap.of_range(event.first, event.count))]
    out = []
    for index, topic in enumerate(event.topics):
        mark = chr(48 + index)
        bits = "".join(["1" if place == mark else "0" for place in reversed(event.layout)])
        out.append((topic, Bitmap.of_int(int(bits, 2), event.first)))
    return out


def _common(ordinals: Collection[int], bits: Bitmap) -> list[int]:
    """What is in both, by going through the smaller one."""
    if not ordinals:
        return []
    if len(ordinals) <= bits.count():
        return [ordinal for ordinal in ordinals if ordinal in bits]
    return [ordinal for ordinal in bits if ordinal in ordinals]


def _add_histogram(into: dict[int, int], more: events.Histogram) -> None:
    for index, count in more:
        into[index] = into.get(index, 0) + count

