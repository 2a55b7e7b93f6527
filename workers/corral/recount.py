"""The slow and obvious count of a run, from its raw events.

It shares nothing with the ledger but the events themselves: no bitmaps, no tallies that are kept up to date. It notes
for every task, or for neighbours together, what was said about it, and then walks from the root through everything
that was sent. So where it agrees with the ledger, two different pieces of code have come to the same counts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator

import msgspec

from corral import events
from corral.events import AnyEvent
from corral.messages import TaskId
from corral.stretches import Stretches


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
        self.batches: dict[int, _Batch] = {0: _Batch((-1, -1))}
        self.batches[0].fill(1, topic)
        self.said: dict[tuple[int, str], dict[int, events.Reopened]] = {}
        """Of the next round: what it was split into -> the events that were read of it, by their number."""

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
        above, ordinal = self.batches.get(event.parent[0]), event.parent[1]
        if above is None:
            return
        self.batches[sequence] = _Batch(event.parent)
        above.openers = max(above.openers, ordinal + 1)
        if above.outcomes.get(ordinal) is None and not above.is_stale(ordinal, event.round):
            self.believe(event.parent, [*event.keep, (sequence, None)])

    def sent_window(self, event: events.Sent) -> None:
        batch = self.batches.get(event.batch)
        if batch is None or event.count <= batch.sent:
            return
        if event.topics and not event.layout:
            batch.topics.fill(max(event.first, batch.sent), event.count, event.topics[0])
        for ordinal, mark in enumerate(event.layout[: max(0, event.count - event.first)], event.first):
            if ordinal >= batch.sent and 0 <= ord(mark) - 48 < len(event.topics):
                batch.topics.fill(ordinal, ordinal + 1, event.topics[ord(mark) - 48])
        batch.fill(event.count, self.topic)

    def ended(self, event: events.Ended) -> None:
        for ends in event.tasks:
            for span in ends.ranges:
                self.end(ends, ends.batch, span, [])
        for one in event.dispatchers:
            batch, ordinal = one.task
            self.end(one, batch, (ordinal, ordinal + 1), one.sent)

    def end(self, how: events.Ends | events.DispatcherEnd, id: int, span: events.Range, sent: events.SentList) -> None:
        batch = self.batches.get(id)
        if batch is None:
            return
        for first, last in batch.still_open(*span, how.round):
            batch.topics.fill(first, last, how.topic)
            batch.outcomes.put(first, last, how.outcome)
            if self.ordered_to_stop:
                batch.late.put(first, last, said=True)
            for ordinal in [first] if sent else _among(batch.lists, first, last):
                self.believe((id, ordinal), sent)

    def retrying(self, event: events.Retrying) -> None:
        batch, ordinal = self.batches.get(event.task[0]), event.task[1]
        if batch is not None and any(batch.still_open(ordinal, ordinal + 1, event.round)):
            batch.topics.fill(ordinal, ordinal + 1, event.topic)
            batch.waiting.put(ordinal, ordinal + 1, said=True)

    def reopened(self, event: events.Reopened) -> None:
        if not self.over or event.round != self.round + 1 or event.part >= event.parts:
            return
        said = self.said.setdefault((event.parts, event.digest), {})
        said.setdefault(event.part, event)
        if len(said) < event.parts:
            return  # the round begins when nothing is missing
        self.said = {}
        self.round, self.over, self.ordered_to_stop = event.round, False, False
        for batch in self.batches.values():
            batch.late = Stretches()
            for first, last, outcome in list(batch.outcomes.all()):
                if outcome == "removed":
                    batch.outcomes.put(first, last, "interrupted")
        for part in said.values():
            for id, first, last in _named(part, self.batches):
                self.batches[id].outcomes.put(first, last, None)
                self.batches[id].waiting.put(first, last, None)
                self.batches[id].brought_back.put(first, last, event.round)

    def stop_everything(self) -> None:
        """What is open ends; a dispatcher among it has sent what is known of it, and what must lie before that."""
        for id, limit in list(self.counted_batches()):
            batch = self.batches[id]
            if limit is None:
                batch.fill(batch.extent(), self.topic)
                self.batches[batch.sender[0]].lists[batch.sender[1]][id] = batch.sent
        for id, first, last, _ in list(self.counted()):
            for start, end, outcome in list(self.batches[id].outcomes.over(first, last)):
                if outcome is None:
                    self.batches[id].outcomes.put(start, end, "removed")
                    self.batches[id].late.put(start, end, said=True)

    # --- what follows from it ----------------------------------------------------------------------

    def believe(self, task: TaskId, sent: Iterable[tuple[int, int | None]]) -> None:
        """`task` sent these batches and no others, each up to a count; what it did not open itself is left out."""
        own = {id: count for id, count in sent if id in self.batches and self.batches[id].sender == task}
        for id, count in sent:
            if id in own and count is not None:
                self.batches[id].fill(count, self.topic)
        self.batches[task[0]].lists[task[1]] = own

    def counted_batches(self) -> Iterator[tuple[int, int | None]]:
        """(batch, up to which ordinal) of what the root sent, and what that sent, and so on; the root's own first."""
        stack: list[tuple[int, int | None]] = [(0, 1)]
        while stack:
            id, limit = stack.pop()
            yield id, limit
            for ordinal, sent in self.batches[id].lists.items():
                if limit is None or ordinal < limit:
                    stack.extend((child, count) for child, count in sent.items() if count != 0)

    def counted(self) -> Iterator[tuple[int, int, int, str]]:
        """(batch, first, one past the last, topic) of the tasks of all these batches, the root included."""
        for id, limit in self.counted_batches():
            topics = self.batches[id].topics
            for first, last, topic in topics.over(0, topics.top() if limit is None else limit):
                if topic is not None:
                    yield id, first, last, topic

    def result(self) -> Recounted:
        root = self.batches[0].outcomes.get(0)
        states: dict[str, Counter[str]] = {}
        receipt: Counter[str] = Counter()
        is_open = root is None
        for id, first, last, topic in self.counted():
            batch = self.batches[id]
            for start, end, outcome in batch.outcomes.over(first, last):
                for begin, stop, late in batch.late.over(start, end):
                    receipt[_receipt_of(outcome, late=late is True)] += stop - begin
                if id != 0:
                    is_open = is_open or outcome is None
                    batch.note(states.setdefault(topic, Counter()), start, end, outcome)
        if not states or root not in (None, "success"):
            self.batches[0].note(states.setdefault(self.topic, Counter()), 0, 1, root)
        receipt["removed"] += sum(self.batches[id].unknown() for id, limit in self.counted_batches() if limit is None)
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


class _Batch:
    """What was said of the tasks of one batch, by ordinal."""

    def __init__(self, sender: TaskId) -> None:
        self.sender = sender
        """The task that opened it."""
        self.topics: Stretches[str] = Stretches()
        """Of the tasks that are known to exist."""
        self.sent = 0
        """All ordinals below are known."""
        self.outcomes: Stretches[str] = Stretches()
        """How tasks ended; `removed` is what the end of an interrupted run ended."""
        self.late: Stretches[bool] = Stretches()
        """What ended after the order to stop."""
        self.waiting: Stretches[bool] = Stretches()
        """What was said to wait for another attempt, since it was brought back last."""
        self.brought_back: Stretches[int] = Stretches()
        """The last round that named a task."""
        self.lists: dict[int, dict[int, int | None]] = {}
        """Dispatcher -> what it sent: batch -> count, None for all that is known."""
        self.openers = 0
        """One past the highest ordinal that opened a batch."""

    def is_stale(self, ordinal: int, round: int) -> bool:
        return round < (self.brought_back.get(ordinal) or 0)

    def still_open(self, first: int, last: int, round: int) -> Iterator[tuple[int, int]]:
        """What has not ended, and was not brought back in a later round than this."""
        left = [(start, end) for start, end, outcome in self.outcomes.over(first, last) if outcome is None]
        if not self.brought_back:
            yield from left
            return
        for start, end in left:
            for low, high, back in self.brought_back.over(start, end):
                if round >= (back or 0):
                    yield low, high

    def fill(self, count: int, default: str) -> None:
        """Everything below `count` was sent; what no event names is taken to be of the topic of the highest known."""
        if count > self.sent:
            topic = self.topics.get(self.topics.top() - 1) if self.topics.top() else None
            self.topics.fill(self.sent, count, default if topic is None else topic)
            self.sent = count

    def extent(self) -> int:
        """One past the highest ordinal that was sent for sure."""
        return max(self.sent, self.openers, self.topics.top())

    def unknown(self) -> int:
        """How many ordinals were sent for sure, and no event has named."""
        return self.extent() - sum(last - first for first, last, _ in self.topics.all())

    def note(self, counter: Counter[str], first: int, last: int, outcome: str | None) -> None:
        counter["total"] += last - first
        counter[_STATES[outcome] if outcome else "pending"] += last - first
        if outcome is None:
            counter["retrying"] += sum(end - start for start, end, waits in self.waiting.over(first, last) if waits)


_BYTES = 512
"""Of bits that are looked at together."""
_STATES = {
    "success": "success",
    "error": "error",
    "interrupted": "interrupted",
    "killed": "interrupted",
    "removed": "interrupted",
}


def _named(event: events.Reopened, batches: Container[int]) -> Iterator[tuple[int, int, int]]:
    """(batch, first, one past the last) of the tasks of these batches that an event names."""
    for _, batch, spans in event.tasks:
        for first, last in spans if batch in batches else ():
            yield batch, first, last
    for _, batch, pages in event.bits:
        for first, page in pages if batch in batches else ():
            for at in range(0, len(page), _BYTES):
                text = f"{int.from_bytes(page[at : at + _BYTES], 'little'):b}"[::-1]  # the lowest bit comes first
                for neighbours in re.finditer("1+", text):
                    yield batch, first + 8 * at + neighbours.start(), first + 8 * at + neighbours.end()


def _among(lists: dict[int, dict[int, int | None]], first: int, last: int) -> list[int]:
    """The dispatchers that lie in a range."""
    if last - first < len(lists):
        return [ordinal for ordinal in range(first, last) if ordinal in lists]
    return [ordinal for ordinal in lists if first <= ordinal < last]


def _counts(counter: Counter[str]) -> TaskCounts:
    return TaskCounts(**{name: counter[name] for name in TaskCounts.__struct_fields__})


def _receipt_of(outcome: str | None, *, late: bool) -> str:
    """Under which word of the receipt a task falls; nothing for what had ended before the order to stop."""
    if outcome is None:
        return "removed"
    if not late:
        return ""
    return {"interrupted": "stopped", "killed": "killed", "removed": "removed"}.get(outcome, "finished_first")
