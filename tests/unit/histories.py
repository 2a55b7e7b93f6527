"""Histories of a run to fold: what may happen to it, and what could never happen.

All choices are read from a tape of bytes, so that hypothesis can draw one quickly and make it smaller. When the tape
is used up every choice is 0, which is always the one that brings the run nearer to its end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from corral.bitmap import Bitmap
from corral.events import (
    AnyEvent,
    Crashed,
    DispatcherEnd,
    Ended,
    Ends,
    Failed,
    Interrupted,
    Opened,
    Outcome,
    Reopened,
    Retrying,
    RunEnded,
    Sent,
    SentList,
    layout,
    ranges,
)
from corral.ledger import Ledger
from corral.messages import ROOT, TaskId
from corral.parts import split

_T = TypeVar("_T")

TOPICS = ("root", "a", "b")
ROUNDS = 2
"""Retries of a run, at most."""
STEP = 10
"""Between the sequences of two events, so that others can be put between them."""

History = list[tuple[int, AnyEvent]]


class Tape:
    """Choices, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def used_up(self) -> bool:
        return self._at >= len(self._data)

    def pick(self, count: int) -> int:
        """A number below `count`."""
        if self.used_up:
            return 0
        self._at += 1
        return self._data[self._at - 1] % count

    def seldom(self, one_in: int) -> bool:
        return self.pick(one_in) == one_in - 1


@dataclass
class Message:
    """A task's message in the queue."""

    task: TaskId
    topic: str
    round: int
    base: SentList = field(default_factory=list)


@dataclass
class Execution:
    """A worker that executes a task."""

    message: Message
    worker: int
    keep: SentList
    log_end: int
    """The sequence of the last event in the task's log that it has seen."""
    batch: int | None = None
    topics: list[str] = field(default_factory=list)
    """Of each message that it sent in its batch."""
    logged: int = 0
    """How many of them are confirmed by a `Sent`."""
    replaced: bool = False
    """It is taken for dead, and its message is given to another."""

    def sent(self) -> SentList:
        return [*self.keep, *([(self.batch, len(self.topics))] if self.batch is not None else [])]


class Simulation:
    """A run, its queue and its workers, of which each may crash, freeze and wake up at any moment."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.history: History = []
        self.ledger = Ledger(TOPICS[0])
        self.queue = [Message(ROOT, TOPICS[0], 0)]
        self.executions: list[Execution] = []
        self.outboxes: dict[int, list[tuple[Message, Outcome, SentList]]] = defaultdict(list)
        self.numbers: dict[int, int] = defaultdict(int)
        self.logs: dict[TaskId, History] = defaultdict(list)
        self.topic_of: dict[TaskId, str] = {ROOT: TOPICS[0]}
        self.stopping = False
        self.crashes = 0

    # --- the course of things ----------------------------------------------------------------------

    def run(self) -> History:
        """As long as the tape lasts."""
        while not (self.tape.used_up or (self.ledger.over and self.ledger.round == ROUNDS)):
            self.step()
        return self.history

    def finish(self) -> None:
        """Bring the round to its end, without further trouble."""
        self.tape = Tape(b"")
        for _ in range(10_000):
            if self.ledger.over:
                return
            self.step()
        raise AssertionError("the run does not end")

    def step(self) -> None:
        if self.ledger.over:
            self.after_the_end()
        elif self.tape.seldom(8):
            crash, duplicate = self.crash_somewhere, self.duplicate
            self.choose([duplicate, duplicate, crash, crash, crash, self.order_to_stop])()
        elif self.executions and not self.only_frozen_ones():
            self.choose([self.go_on, self.go_on, self.start_next])()
        elif any(self.outboxes.values()):
            self.flush()
        elif self.queue:
            self.start_next()
        elif self.stopping or self.ledger.finished:
            self.store(RunEnded(round=self.ledger.round, interrupted=self.stopping))
        else:
            raise AssertionError("tasks are open, and nobody has a message of them")

    def only_frozen_ones(self) -> bool:
        """Whether those that still execute are all taken for dead, and sleep for now."""
        return all(execution.replaced for execution in self.executions) and self.tape.seldom(3)

    def choose(self, options: list[_T]) -> _T:
        return options[self.tape.pick(len(options))]

    def store(self, event: AnyEvent) -> int:
        sequence = (self.history[-1][0] if self.history else 0) + STEP
        self.history.append((sequence, event))
        self.ledger.apply(event, sequence)
        return sequence

    def append(self, execution: Execution, event: Opened | Sent) -> int | None:
        """Store in the log of the execution's task, unless somebody else did meanwhile."""
        log = self.logs[execution.message.task]
        if (log[-1][0] if log else 0) != execution.log_end:
            return None
        sequence = self.store(event)
        log.append((sequence, event))
        execution.log_end = sequence
        return sequence

    # --- executing ---------------------------------------------------------------------------------

    def start_next(self) -> None:
        if not self.queue:
            return
        message = self.queue.pop(self.tape.pick(len(self.queue)))
        task = message.task
        done = self.ledger.tree.outcome(task) is not None or self.ledger.tree.stale(task, message.round)
        if self.stopping or (done and not self.tape.seldom(3)):
            return
        log = self.logs[task]
        log_end = log[-1][0] if log else 0
        self.executions.append(Execution(message, self.tape.pick(3), self.verified(message), log_end))

    def verified(self, message: Message) -> SentList:
        """Which part of what was sent before this execution would send again: any number of whole windows."""
        chain: list[tuple[int, int | None]] = list(message.base)
        for sequence, event in self.logs[message.task]:
            if isinstance(event, Opened) and event.round == message.round:
                chain = [*event.keep, (sequence, None)]
        keep: SentList = []
        for batch, limit in chain:
            counts = [
                event.count
                for _, event in self.logs[message.task]
                if isinstance(event, Sent) and event.batch == batch and (limit is None or event.count <= limit)
            ]
            same = len(counts) - self.tape.pick(len(counts) + 1)
            if same:
                keep.append((batch, counts[same - 1]))
            if same < len(counts) or (limit is not None and limit not in counts):
                break
        return keep

    def go_on(self) -> None:
        execution = self.choose(self.executions)
        if self.stopping and not execution.replaced:
            self.stop(execution)
        elif execution.batch is not None and execution.logged < len(execution.topics):
            self.choose([self.log, self.log, self.send])(execution)
        else:
            end, send = self.end, self.send
            self.choose([end, send, send, send, self.retry, self.freeze, self.freeze, self.flush_one])(execution)

    def send(self, execution: Execution) -> None:
        message = execution.message
        if execution.batch is None:
            opened = Opened(message.task, f"{len(self.history)}", message.round, execution.keep)
            execution.batch = self.append(execution, opened)
            if execution.batch is None:
                self.vanish(execution)
                return
        for _ in range(1 + self.tape.pick(3)):
            task = (execution.batch, len(execution.topics))
            topic = TOPICS[self.tape.pick(len(TOPICS))]
            execution.topics.append(topic)
            self.topic_of[task] = topic
            self.queue.append(Message(task, topic, message.round))

    def log(self, execution: Execution) -> None:
        assert execution.batch is not None
        names, marks = layout(execution.topics[execution.logged :])
        sent = Sent(execution.batch, execution.logged, len(execution.topics), names, marks)
        if self.append(execution, sent) is None:
            self.vanish(execution)
        else:
            execution.logged = len(execution.topics)

    def end(self, execution: Execution) -> None:
        outcomes: list[Outcome] = ["success", "success", "error"]
        self.hand_in(execution, self.choose(outcomes))

    def stop(self, execution: Execution) -> None:
        outcomes: list[Outcome] = ["interrupted", "killed", "success", "error"]
        outcome = self.choose(outcomes)
        if execution.logged == len(execution.topics) or outcome in ("interrupted", "killed"):
            self.hand_in(execution, outcome)
        else:
            self.log(execution)

    def hand_in(self, execution: Execution, outcome: Outcome) -> None:
        self.executions.remove(execution)
        self.outboxes[execution.worker].append((execution.message, outcome, execution.sent()))
        if not self.tape.seldom(3):
            self.flush_one(execution)

    def retry(self, execution: Execution) -> None:
        message = execution.message
        attempt = self.ledger.tree.attempt(message.task) + self.tape.pick(2)
        self.store(Retrying(message.topic, message.task, attempt, 1.0, message.round))
        self.vanish(execution)

    def freeze(self, execution: Execution) -> None:
        """The execution is taken for dead, and goes on later."""
        if not execution.replaced:
            execution.replaced = True
            self.queue.append(execution.message)

    def vanish(self, execution: Execution) -> None:
        """The execution is gone; its message comes back."""
        self.executions.remove(execution)
        if not execution.replaced:
            self.queue.append(execution.message)

    def flush(self) -> None:
        worker = self.choose([worker for worker, box in self.outboxes.items() if box])
        self.flush_worker(worker)

    def flush_one(self, execution: Execution) -> None:
        self.flush_worker(execution.worker)

    def flush_worker(self, worker: int) -> None:
        """One event for all that a worker has finished."""
        box = self.outboxes.pop(worker, [])
        if not box:
            return
        alike: dict[tuple[str, int, int, Outcome], list[int]] = defaultdict(list)
        dispatchers = []
        for message, outcome, sent in box:
            if outcome == "error":
                self.store(Failed(message.topic, message.task, "E", "", "", 1, str(worker), msgspec.Raw(b"1")))
            if sent:
                dispatchers.append(DispatcherEnd(message.topic, message.task, message.round, outcome, sent))
            else:
                alike[message.topic, message.task[0], message.round, outcome].append(message.task[1])
        tasks = [Ends(*key, ranges(ordinals)) for key, ordinals in alike.items()]
        self.numbers[worker] += 1
        self.store(Ended(str(worker), self.numbers[worker], tasks, dispatchers, [(3, len(box))], [(1, len(box))]))

    # --- trouble -----------------------------------------------------------------------------------

    def crash_somewhere(self) -> None:
        if not self.executions:
            return
        worker = self.choose(self.executions).worker
        dead = [execution for execution in self.executions if execution.worker == worker]
        self.crashes += 1
        for execution in dead:
            self.vanish(execution)
        self.queue.extend(message for message, _, _ in self.outboxes.pop(worker, []))
        self.store(Crashed(f"{worker}-{self.crashes}", [execution.message.task for execution in dead]))

    def duplicate(self) -> None:
        if self.history:
            event = self.choose(self.history)[1]
            if not isinstance(event, Opened | Sent):
                self.store(event)

    def order_to_stop(self) -> None:
        self.stopping = True
        self.store(Interrupted(self.ledger.round))
        self.queue.clear()

    def after_the_end(self) -> None:
        """Late-comers, and a retry of some of what did not end well."""
        late = [execution for execution in self.executions if execution.replaced]
        if late and self.tape.seldom(2):
            self.choose([self.send, self.end])(self.choose(late))
        elif any(self.outboxes.values()) and self.tape.seldom(2):
            self.flush()
        elif self.history and self.tape.seldom(3):
            self.duplicate()
        else:
            self.bring_back()

    def bring_back(self) -> None:
        counted = [task for task in self.topic_of if self.ledger.tree.is_counted(task)]
        bad = [task for task in counted if self.ledger.tree.outcome(task) in ("error", "interrupted")]
        good = [task for task in counted if self.ledger.tree.outcome(task) == "success" and self.tape.seldom(6)]
        chosen = [*(task for task in bad if not self.tape.seldom(3)), *good]
        if not chosen and not self.tape.seldom(8):
            return
        self.stopping = False
        self.executions = [execution for execution in self.executions if execution.replaced]
        messages = [
            Message(task, self.topic_of[task], self.ledger.round + 1, self.ledger.tree.sent_by(task)) for task in chosen
        ]
        round = self.ledger.round + 1
        named: dict[tuple[str, int], list[int]] = defaultdict(list)
        for task in chosen:
            named[self.topic_of[task], task[0]].append(task[1])
        back = [(*key, Bitmap.of_ranges(ranges(ordinals))) for key, ordinals in named.items()]
        parts = split(round, back, limit=[1_000, 1, 30][self.tape.pick(3)])
        # Somebody who died has left some of them, and others come twice: there may be two who finish it.
        for part in parts:
            if self.tape.seldom(4):
                self.store(part)
        for part in parts:
            self.between_two_parts()
            self.store(part)
        assert self.ledger.round == round
        self.queue.extend(messages)

    def between_two_parts(self) -> None:
        """What is late."""
        while self.ledger.over and self.tape.seldom(4):
            if any(self.outboxes.values()) and self.tape.seldom(2):
                self.flush()
            else:
                ends, stops = RunEnded(self.ledger.round, interrupted=True), Interrupted(self.ledger.round)
                self.store(ends if self.tape.pick(2) else stops)


# --- what could never happen -------------------------------------------------------------------------


def nonsense(tape: Tape, sequences: list[int]) -> AnyEvent:
    """Any event at all. The small numbers make it likely that it is about something."""
    makers: list[Callable[[], AnyEvent]] = []
    small = tape.pick

    def batch() -> int:
        return [0, 7, *sequences][small(2 + len(sequences))]

    def task() -> TaskId:
        return batch(), small(12)

    def topic() -> str:
        return ("root", "a", "b", "c")[small(4)]

    def outcome() -> Outcome:
        outcomes: list[Outcome] = ["success", "error", "interrupted", "killed"]
        return outcomes[small(4)]

    def spans() -> list[tuple[int, int]]:
        return ranges(first + n for first in [small(12) for _ in range(small(3))] for n in range(small(5)))

    def sent() -> SentList:
        return [(batch(), small(12)) for _ in range(small(4))]

    def a_window() -> Sent:
        marks = "".join(chr(48 + small(4)) for _ in range(small(8)))
        return Sent(batch(), small(12), small(12), [topic() for _ in range(small(4))], marks)

    def some_ends() -> Ended:
        tasks = [Ends(topic(), batch(), small(3), outcome(), spans()) for _ in range(small(3))]
        dispatchers = [DispatcherEnd(topic(), task(), small(3), outcome(), sent()) for _ in range(small(3))]
        return Ended(str(small(2)), small(5), tasks, dispatchers, [(small(3), small(3))])

    def a_part(round: int) -> Reopened:
        tasks = [(topic(), batch(), spans()) for _ in range(small(3))]
        bits = [(topic(), batch(), [(small(8), bytes([small(7)]))]) for _ in range(small(2))]
        return Reopened(round, tasks, bits, small(3), 1 + small(2), "ab"[small(2)])

    makers = [
        lambda: Opened(task(), "", small(3), sent()),
        a_window,
        some_ends,
        lambda: Retrying(topic(), task(), small(4), 1.0, small(3)),
        lambda: Opened(task(), "", 0, sent()),
        a_window,
        some_ends,
        lambda: Crashed(str(small(3)), [task() for _ in range(small(3))]),
        lambda: Interrupted(small(2)),
        lambda: RunEnded(small(3), interrupted=bool(small(2))),
        lambda: a_part(1 + small(3)),
        lambda: RunEnded(0, interrupted=True),
        lambda: a_part(1),
    ]
    return makers[small(len(makers))]()


def garbage(tape: Tape) -> History:
    """Nothing but nonsense."""
    history: History = []
    opened: list[int] = []
    while not tape.used_up:
        event = nonsense(tape, opened)
        sequence = (len(history) + 1) * STEP
        history.append((sequence, event))
        if isinstance(event, Opened):
            opened.append(sequence)
    return history
