"""A task in the hands of a worker."""

from __future__ import annotations

import asyncio
from typing import Literal

from corral.context import Stop
from corral.jetstream.puller import Delivery
from corral.messages import TaskId, TaskMessage
from corral.resume import Before

Order = Literal["stop", "over", "hand back"]
"""Why a job must not go on: its run is interrupted; its run is over; the worker leaves."""


class Job:
    """One delivery of one task, from the pull to the acknowledgement."""

    __slots__ = (
        "attempt",
        "before",
        "delivery",
        "executing",
        "isolated",
        "message",
        "order",
        "process",
        "run_id",
        "since",
        "stop",
        "topic",
    )

    def __init__(self, run_id: str, topic: str, message: TaskMessage, delivery: Delivery, since: float) -> None:
        self.run_id = run_id
        self.topic = topic
        self.message = message
        self.delivery = delivery
        self.since = since
        """`time.monotonic()` of its arrival."""
        self.attempt = 1
        self.before = Before()
        self.stop = Stop()
        """What the processor sees of an order to stop."""
        self.order: Order | None = None
        self.executing = False
        """The processor runs, in `process`."""
        self.isolated = False
        """Executed in a process of its own."""
        self.process: asyncio.Task[None] | None = None

    @property
    def task(self) -> TaskId:
        """The task's identity."""
        return self.message.task

    @property
    def round(self) -> int:
        """The round of its run that the message belongs to."""
        return self.message.round
