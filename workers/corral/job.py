"""A task in the hands of a worker."""

from __future__ import annotations

import asyncio
from typing import Any, Literal, Protocol

import msgspec

from corral.context import Stop
from corral.events import SentList
from corral.jetstream.puller import Delivery
from corral.messages import TaskId, TaskMessage
from corral.processor import Processor
from corral.resume import Before

Order = Literal["stop", "over", "hand back"]
"""Why a job must not go on: its run is interrupted; its run is over; the worker leaves."""

_NOTHING_BEFORE = Before()


class Sending(Protocol):
    """The sending side of an execution."""

    @property
    def sent(self) -> SentList:
        """What is in the queue for sure."""

    def give_up(self, why: Literal["stop", "hand back"]) -> None:
        """Wait for room no longer."""


class Job(msgspec.Struct, eq=False):
    """One delivery of one task, from the pull to the acknowledgement."""

    run_id: str
    topic: str
    processor: Processor[Any, ..., Any]
    message: TaskMessage
    delivery: Delivery
    since: float
    """`time.monotonic()` of its arrival."""
    isolated: bool = False
    """Executed in a process of its own."""
    attempt: int = 1
    before: Before = _NOTHING_BEFORE
    stop: Stop = msgspec.field(default_factory=Stop)
    """What the processor sees of an order to stop."""
    order: Order | None = None
    executing: bool = False
    """The processor runs, in `process`."""
    began: float = 0.0
    """`time.monotonic()` at which it began to."""
    process: asyncio.Task[None] | None = None
    queued: bool = False
    """It may run, and waits for a thread."""
    sending: Sending | None = None
    """What it has sent, once it sends."""
    waiting: bool = False
    """What it sends waits for room in the queue."""
    lends: bool = False
    """It had to wait for room, and has lent its slot to others since."""

    @property
    def task(self) -> TaskId:
        """The task's identity."""
        return self.message.task

    @property
    def again(self) -> bool:
        """Whether the task may have been executed before."""
        return self.delivery.delivered > 1 or self.message.round > 0 or self.message.again

    @property
    def round(self) -> int:
        """The round of its run that the message belongs to."""
        return self.message.round

    @property
    def in_thread(self) -> bool:
        """Whether it is executed in a thread of the worker."""
        return self.processor.kind == "sync" and not self.isolated

    @property
    def cancelled(self) -> bool:
        """Whether `process` has been told to stop, by whomever."""
        return self.process is not None and self.process.cancelling() > 0

    def tell(self, order: Order) -> None:
        """Order it to stop. An order to stop stands above one to hand back, and the first of two equal ones stands."""
        if self.process is None or (self.order is not None and (self.order != "hand back" or order == "hand back")):
            return
        self.order = order
        if self.sending is not None:
            self.sending.give_up("hand back" if order == "hand back" else "stop")
        in_thread = self.in_thread
        if order != "hand back" or not in_thread:
            self.stop.set()
        # A thread is not cancelled: it may look at the flag. What does not execute yet looks at its order by itself.
        if self.queued or (self.executing and not in_thread):
            self.process.cancel()
