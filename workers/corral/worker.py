"""A worker: one process that executes tasks, from its first heartbeat to its last.

    lifespan -> lifeline -> intake ... told to leave -> drain: end, or hand back -> last heartbeat

What happens to each task is the `Handler`'s; here is what happens to all of them: they are ordered to stop, told of
in heartbeats, and waited for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from corral import __version__
from corral.committer import Result
from corral.events import Ended
from corral.executor import Stopped
from corral.handler import Handler
from corral.isolation import Isolation
from corral.jetstream.connection import Connection
from corral.jetstream.puller import Delivery
from corral.jetstream.reader import Stored
from corral.job import Job
from corral.lifeline import Lifeline
from corral.markers import Markers
from corral.messages import task_text
from corral.processor import App, Processor
from corral.runs import Beat, Marker
from corral.settings import Settings
from corral.slottable import SlotTable
from corral.subjects import Names
from corral.system import memory

log = logging.getLogger(__name__)

LAST_WORDS = 3.0
"""Seconds that a task has at least to end when it is cancelled because the worker leaves."""


class Identity(msgspec.Struct, frozen=True):
    """Who a worker is. `id` is never used again: a new process has a new one."""

    id: str
    pool: str
    host: str
    pid: int


class Worker:
    """Executes the tasks of an app's topics. `slots` is how many at once; `told_by` names who lets it leave."""

    def __init__(
        self,
        app: App[Any],
        connection: Connection,
        *,
        settings: Settings,
        identity: Identity,
        slots: int,
        topics: Mapping[str, Processor[Any, ..., Any]],
        table: SlotTable,
        isolation: Isolation,
        told_by: Callable[[], str],
    ) -> None:
        self._app = app
        self._told_by = told_by
        self._settings = settings
        self._identity = identity
        self._slots = slots
        self._topics = topics
        self._started_at = time.time()
        self._markers = Markers(Names(settings.namespace), self._on_marker)
        self._lifeline = Lifeline(
            connection.access,
            worker_id=identity.id,
            settings=settings,
            describe=self._describe,
            waiting=self._waiting,
            on_keys=self._on_keys,
            on_loaded=self._markers.loaded,
            doing=self._doing,
            stuck=self._stuck,
        )
        self._handler = Handler(
            connection,
            settings=settings,
            worker_id=identity.id,
            slots=slots,
            topics=topics,
            table=table,
            isolation=isolation,
            markers=self._markers,
            on_stopped=self._lifeline.beat_soon,
        )
        self._held = self._handler.held
        self._condemned = asyncio.Event()
        self._leaves = ""

    # --- life --------------------------------------------------------------------------------------

    async def run(self, leave: asyncio.Event, hurry: asyncio.Event) -> bool:
        """Work until `leave` is set, then drain: pull nothing more, let tasks end, hand back what takes too long.

        Once `hurry` is set, too, nothing is waited for any more. False if it has to be replaced: its process must end
        now, because a thread executes what is ordered to be killed.
        """
        async with self._app.lifespan() as self._handler.state, asyncio.TaskGroup() as group:
            await self._lifeline.start()
            background = [group.create_task(self._guard()), group.create_task(self._handler.intake.run())]
            await self._until_told(leave)
            if self._condemned.is_set():
                hurry.set()
            await self._drain(hurry)
            if self._condemned.is_set():
                await self._declare_killed()
            for task in background:
                task.cancel()
        await self._handler.close()
        if self._condemned.is_set():
            return False  # without a last word: it says that nothing is held, which is true when the process is gone
        await self._lifeline.stop()
        return True

    async def _until_told(self, leave: asyncio.Event) -> None:
        told = [asyncio.create_task(leave.wait()), asyncio.create_task(self._condemned.wait())]
        await asyncio.wait(told, return_when=asyncio.FIRST_COMPLETED)
        for task in told:
            task.cancel()

    async def _guard(self) -> None:
        """A worker without its lifeline would be taken for dead: it fails with it."""
        await asyncio.shield(self._lifeline.ended)
        raise RuntimeError("the lifeline has ended")

    async def _drain(self, hurry: asyncio.Event) -> None:
        log.info("draining", extra={"worker": self._identity.id, "held": self._held.count()})
        self._leaves = "stop" if hurry.is_set() else "drain"
        self._lifeline.beat_soon()
        await self._handler.intake.stop()
        for job in self._held.jobs():
            if not job.executing:
                job.tell("hand back")
        patience = self._settings.drain_timeout
        await self._until_idle(patience, hurry)
        for job in self._held.jobs():
            job.tell("hand back")
        # A cancelled task has some time for its `finally`, and a thread no more than that.
        await self._until_idle(max(patience, LAST_WORDS), hurry)
        if hurry.is_set():
            self._leaves = "stop"
            self._lifeline.beat_soon()
            await self._held.until_idle(LAST_WORDS)
        if left := self._held.count():
            log.warning("tasks are left behind: they run elsewhere after ack_wait", extra={"tasks": left})

    async def _until_idle(self, patience: float, hurry: asyncio.Event) -> None:
        """Return when nothing is held, after so many seconds, or when there is no time for that."""
        waits = [asyncio.create_task(self._held.until_idle(patience)), asyncio.create_task(hurry.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def _declare_killed(self) -> None:
        """Say of what this process takes with it that it was killed."""
        for job in self._held.jobs():
            if job.executing and self._markers.stops(job.run_id, job.round):
                log.warning("a task dies with its worker", extra={"run": job.run_id, "topic": job.topic})
                self._handler.committer.add(_killed(job))
        await self._handler.committer.drain()

    # --- interrupts and the ends of runs -----------------------------------------------------------

    def _on_keys(self, batch: list[Stored]) -> None:
        self._markers.see(batch)
        self._lifeline.beat_soon()

    def _on_marker(self, run_id: str, marker: Marker) -> None:
        self._handler.lives.forget(run_id)
        for job in self._held.of_run(run_id):
            if job.round <= marker.round:
                job.tell(marker.kind)
        if marker.kill_after is not None:
            asyncio.get_running_loop().call_later(marker.kill_after, self._kill, run_id, marker.round)

    def _kill(self, run_id: str, round: int) -> None:
        """The time that was given to what is ordered to stop is over. Only the end of the process ends a thread."""
        if any(job.executing and job.round <= round for job in self._held.of_run(run_id)):
            log.warning("the worker leaves, because a task does not stop", extra={"run": run_id})
            self._condemned.set()

    def _stuck(self, run_id: str, round: int) -> Ended | None:
        """The end, as killed, of what is executed of a run. Called in the lifeline's thread."""
        results = [_killed(job) for job in self._held.of_run(run_id) if job.executing and job.round <= round]
        return self._handler.committer.ended(results) if results else None

    # --- what the lifeline tells -------------------------------------------------------------------

    def _describe(self) -> Beat:
        """A heartbeat. Called in the lifeline's thread: what it reads is copied before it is gone through."""
        markers = self._markers.revision  # read first: what is held because of it is then seen as stopping
        running, roots = self._held.running()
        return Beat(
            id=self._identity.id,
            pool=self._identity.pool,
            host=self._identity.host,
            pid=self._identity.pid,
            topics=list(self._topics),
            slots=self._slots,
            started_at=self._started_at,
            version=__version__,
            rss=memory(),
            running=running,
            roots=roots,
            longest=self._held.longest(time.monotonic()),
            markers=markers,
            stopping=self._held.stopping(self._markers),
            waiting=sum(job.waiting for job in self._held.jobs()),
            leaves=self._leaves,
            leaves_by=self._told_by() if self._leaves else "",
        )

    def _waiting(self) -> list[Delivery]:
        """What needs a sign of life: it is held since before the last one was due."""
        return self._held.older(time.monotonic() - self._settings.ack_wait / 6)

    def _doing(self, process: asyncio.Task[object] | None) -> str:
        for job in self._held.jobs():
            if job.process is process:
                return f"{job.topic} {job.run_id} {task_text(job.task)}"
        return process.get_name() if process is not None else ""


def _killed(job: Job) -> Result:
    """How a job went that ends with its worker; what it has sent is sent."""
    return Result(job, Stopped(killed=True), job.sending.sent if job.sending is not None else [])
