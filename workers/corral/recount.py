"""The slow and obvious count of a run, from its raw events.

It shares nothing with the ledger but the events themselves: no bitmaps, no tallies that are kept up to date. It notes
for every single task what was said about it, and then walks from the root through everything that was sent. So where
it agrees with the ledger, two different pieces of code have come to the same counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec

from corral import events
from corral.events import AnyEvent
from corral.messages import ROOT, TaskId


class TaskCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Tasks by state: `total == pending + success + error + interrupted`. Running tasks are among the pending ones."""

    total: int = 0
    pending: int = 0
    retrying: int = 0
    """The part of `pending` that was said to wait for another attempt."""
    success: int = 0
    error: int = 0
    interrupted: int = 0


class Recounted(msgspec.Struct, frozen=True, kw_only=True):
    """What a run's events say."""

    counts: TaskCounts
    topics: dict[str, TaskCounts]
    """The same by topic; these add up to `counts`."""
    root: str | None
    """How the root ended: success, error, interrupted; None while it is open."""
    finished: bool
    """The root has ended, and everything that was sent."""
    over: bool
    """A `RunEnded` of the current round is stored."""
    round: int
    receipt: events.Receipt
    """What the interrupt of the current round did, or would have done if the run ended here; without the seconds."""
    events: int
    """How many events were read."""
    sequence: int
    """The stream sequence of the last one."""


def recount(topic: str, stored: Iterable[tuple[int, AnyEvent]]) -> Recounted:
    """Count the run whose root is of `topic`, from its events: (stream sequence, event), in the order of the stream.

    Any beginning of a history will do; the counts are those at that moment.
    """
    history = _History(topic)
    for sequence, event in stored:
        history.add(sequence, event)
    return history.result()


class _History:
    """What was said, task by task."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.events = self.sequence = self.round = 0
        self.over = self.ordered_to_stop = False
        self.senders: dict[int, TaskId] = {0: (-1, -1)}
        """Batch -> the task that opened it."""
        self.topics: dict[int, dict[int, str]] = {0: {0: topic}}
        """Batch -> ordinal -> topic, of the tasks that are known to exist."""
        self.sent: dict[int, int] = {0: 1}
        """Batch -> all ordinals below are known."""
        self.outcomes: dict[int, dict[int, str]] = {0: {}}
        """Batch -> ordinal -> how it ended; `removed` is what the end of an interrupted run ended."""
        self.lists: dict[int, dict[int, dict[int, int | None]]] = {0: {}}
        """Batch -> ordinal of a dispatcher -> what it sent: batch -> count, None for all that is known."""
        self.openers: dict[int, int] = {0: 0}
        """Batch -> one past the highest ordinal that opened a batch."""
        self.said: dict[tuple[int, str], dict[int, events.Reopened]] = {}
        """Of the next round: what it was split into -> the events that were read of it, by their number."""
        self.brought_back: dict[TaskId, int] = {}
        """Task -> the last round that named it."""
        self.waiting: set[TaskId] = set()
        self.late: set[TaskId] = set()
        """What ended after the order to stop."""

    # --- noting what an event says -----------------------------------------------------------------

    def add(self, sequence: int, event: AnyEvent) -> None:
        self.events += 1
        self.sequence = sequence
        if isinstance(event, events.Reopened):
            self.reopened(event)
        elif self.over:
            pass  # what is stored after the end of a round says nothing
        elif isinstance(event, events.Opened):
            self.opened(sequence, event)
        elif isinstance(event, events.Sent):
            self.sent_window(event)
        elif isinstance(event, events.Ended):
            self.ended(event)
        elif isinstance(event, events.Retrying):
            self.retrying(event)
        elif isinstance(event, events.Interrupted):
            self.ordered_to_stop |= event.round == self.round
        elif isinstance(event, events.RunEnded) and event.round == self.round:
            if event.interrupted:
                self.stop_everything()
            self.over = True

    def opened(self, sequence: int, event: events.Opened) -> None:
        batch, ordinal = event.parent
        if batch not in self.senders:
            return
        self.senders[sequence] = event.parent
        self.topics[sequence], self.outcomes[sequence], self.lists[sequence] = {}, {}, {}
        self.sent[sequence] = self.openers[sequence] = 0
        self.openers[batch] = max(self.openers[batch], ordinal + 1)
        if ordinal not in self.outcomes[batch] and not self.is_stale(event.parent, event.round):
            self.believe(event.parent, [*event.keep, (sequence, None)])

    def sent_window(self, event: events.Sent) -> None:
        if event.batch not in self.senders or event.count <= self.sent[event.batch]:
            return
        known = self.topics[event.batch]
        for place in range(event.count - event.first):
            ordinal = event.first + place
            mark = ord(event.layout[place]) - 48 if place < len(event.layout) else 0 if not event.layout else -1
            if ordinal >= self.sent[event.batch] and 0 <= mark < len(event.topics):
                known.setdefault(ordinal, event.topics[mark])
        self.fill(event.batch, event.count)

    def ended(self, event: events.Ended) -> None:
        for ends in event.tasks:
            if ends.batch in self.senders:
                for first, last in ends.ranges:
                    for ordinal in range(first, last):
                        self.end(ends.topic, (ends.batch, ordinal), ends.round, ends.outcome, [])
        for one in event.dispatchers:
            if one.task[0] in self.senders:
                self.end(one.topic, one.task, one.round, one.outcome, one.sent)

    def end(self, topic: str, task: TaskId, round: int, outcome: str, sent: events.SentList) -> None:
        batch, ordinal = task
        if ordinal in self.outcomes[batch] or self.is_stale(task, round):
            return
        self.topics[batch].setdefault(ordinal, topic)
        self.outcomes[batch][ordinal] = outcome
        if sent or ordinal in self.lists[batch]:
            self.believe(task, sent)
        if self.ordered_to_stop:
            self.late.add(task)

    def retrying(self, event: events.Retrying) -> None:
        batch, ordinal = event.task
        if batch not in self.senders or ordinal in self.outcomes[batch] or self.is_stale(event.task, event.round):
            return
        self.topics[batch].setdefault(ordinal, event.topic)
        self.waiting.add(event.task)

    def reopened(self, event: events.Reopened) -> None:
        if not self.over or event.round != self.round + 1 or event.part >= event.parts:
            return
        said = self.said.setdefault((event.parts, event.digest), {})
        said.setdefault(event.part, event)
        if len(said) < event.parts:
            return  # the round begins when nothing is missing
        self.said = {}
        self.round, self.over, self.ordered_to_stop = event.round, False, False
        self.late.clear()
        for outcomes in self.outcomes.values():
            outcomes.update({ordinal: "interrupted" for ordinal, outcome in outcomes.items() if outcome == "removed"})
        for batch, ordinal in [task for part in said.values() for task in _named(part)]:
            if batch in self.senders:
                self.outcomes[batch].pop(ordinal, None)
                self.waiting.discard((batch, ordinal))
                self.brought_back[batch, ordinal] = event.round

    def stop_everything(self) -> None:
        """What is open ends; a dispatcher among it has sent what is known of it, and what must lie before that."""
        for batch, limit in list(self.counted_batches()):
            if limit is None:
                above, ordinal = self.senders[batch]
                self.fill(batch, self.extent(batch))
                self.lists[above][ordinal][batch] = self.sent[batch]
        for task, _ in list(self.counted_tasks()):
            if task[1] not in self.outcomes[task[0]]:
                self.outcomes[task[0]][task[1]] = "removed"
                self.late.add(task)

    # --- what follows from it ----------------------------------------------------------------------

    def is_stale(self, task: TaskId, round: int) -> bool:
        return bool(self.brought_back) and round < self.brought_back.get(task, 0)

    def believe(self, task: TaskId, sent: Iterable[tuple[int, int | None]]) -> None:
        """`task` sent these batches and no others, each up to a count; what it did not open itself is left out."""
        own = {batch: count for batch, count in sent if self.senders.get(batch) == task}
        for batch, count in sent:
            if batch in own and count is not None:
                self.fill(batch, count)
        self.lists[task[0]][task[1]] = own

    def fill(self, batch: int, count: int) -> None:
        """Everything below `count` was sent; what no event names is taken to be of the topic of the highest known."""
        known = self.topics[batch]
        if count <= self.sent[batch]:
            return
        missing = [ordinal for ordinal in range(self.sent[batch], count) if ordinal not in known]
        if missing:
            topic = known[max(known)] if known else self.topic
            known.update(dict.fromkeys(missing, topic))
        self.sent[batch] = count

    def extent(self, batch: int) -> int:
        """One past the highest ordinal that was sent for sure."""
        return max(self.sent[batch], self.openers[batch], max(self.topics[batch], default=-1) + 1)

    def counted_batches(self) -> Iterator[tuple[int, int | None]]:
        """(batch, up to which ordinal) of what the root sent, and what that sent, and so on; the root's own first."""
        stack: list[tuple[int, int | None]] = [(0, 1)]
        while stack:
            batch, limit = stack.pop()
            yield batch, limit
            for ordinal, sent in self.lists[batch].items():
                if limit is None or ordinal < limit:
                    stack.extend((child, count) for child, count in sent.items() if count != 0)

    def counted_tasks(self) -> Iterator[tuple[TaskId, str]]:
        """(task, topic) of all these batches, the root included."""
        for batch, limit in self.counted_batches():
            for ordinal, topic in self.topics[batch].items():
                if limit is None or ordinal < limit:
                    yield (batch, ordinal), topic

    def result(self) -> Recounted:
        root = self.outcomes[0].get(0)
        states: dict[str, Counter[str]] = {}
        receipt: Counter[str] = Counter()
        is_open = root is None
        for task, topic in self.counted_tasks():
            outcome = self.outcomes[task[0]].get(task[1])
            receipt[_receipt_of(outcome, late=task in self.late)] += 1
            if task == ROOT:
                continue
            is_open = is_open or outcome is None
            self.note(states.setdefault(topic, Counter()), task, outcome)
        if not states or root not in (None, "success"):
            self.note(states.setdefault(self.topic, Counter()), ROOT, root)
        receipt["removed"] += sum(
            self.extent(batch) - len(self.topics[batch]) for batch, limit in self.counted_batches() if limit is None
        )
        return Recounted(
            counts=_counts(sum(states.values(), Counter())),
            topics={topic: _counts(counter) for topic, counter in states.items()},
            root=_STATES.get(root) if root else None,
            finished=not is_open,
            over=self.over,
            round=self.round,
            receipt=events.Receipt(
                **{name: receipt[name] for name in ("removed", "stopped", "killed", "finished_first")}
            ),
            events=self.events,
            sequence=self.sequence,
        )

    def note(self, counter: Counter[str], task: TaskId, outcome: str | None) -> None:
        counter["total"] += 1
        counter[_STATES[outcome] if outcome else "pending"] += 1
        counter["retrying"] += outcome is None and task in self.waiting


_STATES = {
    "success": "success",
    "error": "error",
    "interrupted": "interrupted",
    "killed": "interrupted",
    "removed": "interrupted",
}


def _named(event: events.Reopened) -> Iterator[TaskId]:
    """The tasks that an event names, one by one."""
    for _, batch, spans in event.tasks:
        for first, last in spans:
            for ordinal in range(first, last):
                yield batch, ordinal
    for _, batch, pages in event.bits:
        for first, page in pages:
            for place in range(8 * len(page)):
                if page[place // 8] & 1 << place % 8:
                    yield batch, first + place


def _counts(counter: Counter[str]) -> TaskCounts:
    return TaskCounts(**{name: counter[name] for name in TaskCounts.__struct_fields__})


def _receipt_of(outcome: str | None, *, late: bool) -> str:
    """Under which word of the receipt a task falls; nothing for what had ended before the order to stop."""
    if outcome is None:
        return "removed"
    if not late:
        return ""
    return {"interrupted": "stopped", "killed": "killed", "removed": "removed"}.get(outcome, "finished_first")
