"""What comes out of one execution of a task: tasks of its run, and runs of their own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from corral.errors import CorralError, NoResponder, NoServer, Unconfirmed
from corral.events import AnyEvent, decode_event
from corral.fanout import FanOut
from corral.jetstream.topology import subject_events
from corral.job import Job
from corral.operations import Operations, Run
from corral.processor import Processor, Topic
from corral.starter import child_id
from corral.system import new_nonce

log = logging.getLogger(__name__)

PAUSE = 1.0
"""Seconds between two tries to start a run that was not confirmed."""


class Outgoing:
    """What a job sends and starts. Its fan-out is made when it first sends: most tasks send nothing."""

    __slots__ = ("_job", "_on_waiting", "_operations", "_starts", "closed", "fanout")

    def __init__(self, job: Job, operations: Operations, on_waiting: Callable[[Job, bool], None]) -> None:
        self._job = job
        self._operations = operations
        self._on_waiting = on_waiting
        self._starts = 0
        self.fanout: FanOut | None = None
        self.closed = False
        """The processor has returned."""

    async def send(self, topic: str, body: bytes) -> None:
        """Send a task of the same run.

        Raises:
            CorralError: the task has ended.
            Superseded: another execution of it has taken over.
        """
        if self.closed:
            raise CorralError("this task has ended, and can send nothing more")
        if self.fanout is None:
            self.fanout = self._job.sending = self._fan_out()
        await self.fanout.send(topic, body)

    async def start(self, target: Topic[Any] | Processor[Any, ..., Any] | str, message: Any, **options: Any) -> Run:
        """Start a run whose id is the same in every execution of this task; waits out an outage, as `send` does."""
        self._starts += 1
        id = child_id(self._job.run_id, self._job.task, self._starts)
        while True:
            try:
                return await self._operations.start(target, message, id=id, **options)
            except (Unconfirmed, NoServer, NoResponder) as error:
                if self._job.order is not None or self.closed:
                    raise
                log.warning("a start is not confirmed yet", extra={"run": self._job.run_id, "error": str(error)})
                await asyncio.sleep(PAUSE)

    def _fan_out(self) -> FanOut:
        job, operations = self._job, self._operations
        return FanOut(
            run_id=job.run_id,
            task=job.task,
            round=job.round,
            resumed=job.again,
            before=job.before,
            names=operations.names,
            sender=operations.publisher,
            read_log=self._read_log,
            nonce=new_nonce,
            settings=operations.settings,
            on_waiting=partial(self._on_waiting, job),
        )

    async def _read_log(self, subject: str) -> list[tuple[int, AnyEvent]]:
        operations = self._operations
        stored = await subject_events(operations.connection, operations.names.events_stream, subject)
        return [(each.sequence, decode_event(each.data, each.subject)) for each in stored]
