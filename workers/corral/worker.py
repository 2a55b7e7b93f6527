"""A worker: one process that executes tasks.

    pull -> decode -> interrupted? -> root: claim the run -> redelivered? ask -> processor -> outcome -> group commit
    -> ack

Everything that a worker holds is a `Job`, from its delivery until its message is settled. A task's fate
is told by events alone; a worker that dies at any step leaves a message that comes again, and an end that counts once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import msgspec

from corral import __version__
from corral.claims import Claims
from corral.committer import Committer, Result
from corral.context import Wiring
from corral.errors import ContentChanged, CorralError, Superseded
from corral.events import AnyEvent, SentList, decode_event
from corral.executor import Again, Failure, Outcome, Silent, Stopped, Success, execute, failed_attempt, failure
from corral.fanout import FanOut
from corral.holding import Holding
from corral.intake import Intake
from corral.isolation import Isolation
from corral.jetstream.connection import Connection
from corral.jetstream.puller import Delivery
from corral.jetstream.reader import Stored
from corral.jetstream.topology import subject_events
from corral.job import Job, Order
from corral.lifeline import Lifeline
from corral.markers import Markers
from corral.messages import ROOT, body_limit, decode_task, task_text
from corral.operations import Operations
from corral.processor import App, Processor, Topic
from corral.questions import Asker, Question
from corral.resume import Before
from corral.runs import Beat, Marker
from corral.settings import Settings
from corral.slottable import SlotTable
from corral.starter import child_id
from corral.subjects import Names
from corral.system import memory, new_nonce

log = logging.getLogger(__name__)

HAND_BACK = 1.0
"""Seconds after which a task that could not be asked about, or found no slot, is delivered again."""
LAST_WORDS = 3.0
"""Seconds that a task has at least to end when it is cancelled because the worker leaves."""
POISON = 60.0
"""Seconds between two deliveries of a message that is no task at all."""


class Identity(msgspec.Struct, frozen=True):
    """Who a worker is. `id` is never used again: a new process has a new one."""

    id: str
    pool: str
    host: str
    pid: int


class Worker:
    """Executes the tasks of an app's topics. `slots` is how many at once."""

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
    ) -> None:
        self._app = app
        self._connection = connection
        self._settings = settings
        self._names = Names(settings.namespace)
        self._identity = identity
        self._slots = slots
        self._topics = topics
        self._table = table
        self._isolation = isolation
        self._started_at = time.time()
        self._operations = Operations(connection, settings, by=identity.id)
        self._publisher = self._operations.publisher
        self._records = self._operations.records
        self._claims = Claims(self._records, self._operations.starter)
        self._asker = Asker(connection, self._names)
        self._committer = Committer(identity.id, self._names, self._publisher, self._settled)
        self._markers = Markers(self._names, self._on_marker)
        self._threads = ThreadPoolExecutor(_threads(topics, settings), thread_name_prefix="processor")
        self._intake = Intake(
            connection,
            self._names,
            settings,
            topics,
            slots=slots,
            isolated=isolation.size,
            deliver=self._on_delivery,
            paused=self._is_paused,
        )
        self._held = Holding()
        self._lifeline = Lifeline(
            connection.servers,
            worker_id=identity.id,
            settings=settings,
            describe=self._describe,
            waiting=self._waiting,
            on_keys=self._on_keys,
            doing=self._doing,
        )
        self._condemned = asyncio.Event()
        self._state: Any = None

    # --- life --------------------------------------------------------------------------------------

    async def run(self, leave: asyncio.Event, orphaned: Callable[[], bool] = lambda: False) -> bool:
        """Work until `leave` is set, then drain: pull nothing more, let tasks end, hand back what takes too long.

        If it is `orphaned` (its pool is dead) it hands back at once. False if it has to be replaced: its process
        must end now, because a thread executes what is ordered to be killed.
        """
        async with self._app.lifespan() as self._state, asyncio.TaskGroup() as group:
            await self._lifeline.start()
            background = [group.create_task(self._guard()), group.create_task(self._intake.run())]
            await self._until_told(leave)
            hurry = orphaned() or self._condemned.is_set()
            await self._drain(0.0 if hurry else self._settings.drain_timeout)
            if self._condemned.is_set():
                await self._declare_killed()
            for task in background:
                task.cancel()
        await self._isolation.close()
        await self._connection.flush()
        self._threads.shutdown(wait=False, cancel_futures=True)
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

    async def _drain(self, patience: float) -> None:
        log.info("draining", extra={"worker": self._identity.id, "held": self._held.count()})
        await self._intake.stop()
        for job in self._held.jobs():
            if not job.executing:
                self._order(job, "hand back")
        await self._held.until_idle(patience)
        for job in self._held.jobs():
            self._order(job, "hand back")
        # A cancelled task has some time for its `finally`, and a thread no more than that.
        await self._held.until_idle(max(patience, LAST_WORDS))
        if left := self._held.count():
            log.warning("tasks are left behind: they run elsewhere after ack_wait", extra={"tasks": left})

    async def _declare_killed(self) -> None:
        """Say of what this process takes with it that it was killed."""
        for job in self._held.jobs():
            if job.executing and self._markers.stops(job.run_id, job.round):
                log.warning("a task dies with its worker", extra={"run": job.run_id, "topic": job.topic})
                self._committer.add(Result(job, Stopped(killed=True), [], 0.0, 0.0))
        await self._committer.drain()

    def _is_paused(self) -> bool:
        """Nothing is pulled while outcomes cannot be stored, or are stored too slowly."""
        return self._committer.refused_at is not None or self._committer.backlog > max(2 * self._slots, 1_000)

    # --- a job -------------------------------------------------------------------------------------

    def _on_delivery(self, delivery: Delivery) -> None:
        run_id, topic = self._names.split_task(delivery.subject)
        try:
            message = decode_task(delivery.data)
        except msgspec.DecodeError as error:
            log.error(
                "a message that is no task stays in the queue", extra={"subject": delivery.subject, "error": str(error)}
            )
            asyncio.create_task(self._refuse(delivery, topic))  # noqa: RUF006  # a publish, nothing to wait for
            return
        job = Job(run_id, topic, message, delivery, time.monotonic())
        job.isolated = self._topics[topic].isolate
        self._held.add(job)
        job.process = asyncio.create_task(self._handle(job))

    async def _refuse(self, delivery: Delivery, topic: str) -> None:
        await delivery.nak(POISON)
        self._intake.release(topic)

    async def _handle(self, job: Job) -> None:
        """One job, from its delivery to its outcome. Whatever happens here, its slot is free afterwards."""
        try:
            if await self._may_run(job):
                await self._execute(job)
        except asyncio.CancelledError:
            if job.order is None:
                raise  # the worker itself ends
            # Ordered to stop before the processor began: the message is dropped, or handed back.
            await self._drop(job)
        except Exception:
            log.exception("a task is handed back", extra={"run": job.run_id, "task": job.task, "topic": job.topic})
            await self._hand_back(job, HAND_BACK)
        finally:
            self._intake.release(job.topic)

    async def _may_run(self, job: Job) -> bool:
        if self._markers.stops(job.run_id, job.round):
            await self._drop(job)
            return False
        if self._intake.over_full:
            await self._hand_back(job, HAND_BACK)
            return False
        if job.task == ROOT and not await self._claimed(job):
            return False
        if (job.delivery.delivered > 1 or job.round > 0) and not await self._allowed(job):
            return False
        if job.order is not None:
            await self._drop(job)
            return False
        return True

    async def _claimed(self, job: Job) -> bool:
        """Make the message the root of its run; False if that settled it."""
        claim = await self._claims.claim(job, self._topics[job.topic])
        if claim is False:
            await self._drop(job)
        elif isinstance(claim, Failure):
            self._committer.add(Result(job, claim, [], 0.0, 0.0))
        return claim is True

    async def _allowed(self, job: Job) -> bool:
        """Ask about a task that was delivered before, or brought back; False if it is settled already."""
        answer = await self._asker.ask(Question(job.run_id, job.task, job.round))
        if answer is None:
            await self._hand_back(job, HAND_BACK)
            return False
        if answer.verdict in ("ended", "over"):
            await self._drop(job)
            return False
        job.attempt = answer.attempt
        job.before = Before(answer.sent, answer.restore)
        job.isolated = job.isolated or answer.verdict == "isolate"
        return True

    async def _execute(self, job: Job) -> None:
        processor = self._topics[job.topic]
        sending = _Sending(partial(self._fan_out, job))
        began = time.time()
        wait = max(0.0, began - job.delivery.timestamp / 1e9)
        slot = self._table.begin(job.run_id, job.task, job.delivery.reply)
        job.executing = True
        try:
            outcome = await self._run(job, processor, sending)
        except asyncio.CancelledError as error:
            cancelled = job.process is not None and job.process.cancelling() > 0
            if job.order is None and cancelled:
                raise  # the worker itself ends
            # Without an order nobody cancelled it: the processor let another one's cancellation through.
            outcome = None if job.order is not None else failed_attempt(processor, job.attempt, failure(error))
            if job.process is not None and cancelled:
                job.process.uncancel()  # it has done its work, and this coroutine goes on
        finally:
            job.executing = False
            self._table.end(slot)
        duration = time.time() - began
        outcome = self._judged(job, outcome)
        sent: SentList = []
        sending.closed = True
        if (fanout := sending.fanout) is not None:
            # Also of a task that failed: what it sent is stored before its end is told.
            try:
                sent = await fanout.finish(ended=isinstance(outcome, Success | Failure))
            except Superseded:
                outcome = Silent()
            except ContentChanged as error:
                outcome, sent = failure(error), fanout.sent
        await self._conclude(job, outcome, sent, duration, wait)

    async def _run(self, job: Job, processor: Processor[Any, ..., Any], sending: _Sending) -> Outcome | None:
        wiring = self._wiring(job, sending)
        body = job.message.body
        if job.isolated:
            return await self._isolation.execute(processor, bytes(body), wiring)
        return await execute(processor, body, wiring, self._threads)

    def _judged(self, job: Job, outcome: Outcome | None) -> Outcome | None:
        """The outcome, given what was ordered meanwhile; None: the task goes back to the queue."""
        match job.order:
            case None:
                return Stopped() if outcome is None else outcome
            case "hand back":
                return None if isinstance(outcome, Stopped) else outcome
            case _:
                return Stopped() if outcome is None or isinstance(outcome, Again) else outcome

    async def _conclude(self, job: Job, outcome: Outcome | None, sent: SentList, duration: float, wait: float) -> None:
        if outcome is None:
            await self._hand_back(job)
        elif isinstance(outcome, Silent):
            # A first delivery that finds another one's fan-out is a message that was stored twice: delivered again,
            # it asks.
            if job.delivery.delivered == 1:
                await self._hand_back(job, HAND_BACK)
            else:
                self._settled(job)
        elif job.order == "over":
            await self._drop(job)
        else:
            self._committer.add(Result(job, outcome, sent, duration, wait))

    async def _drop(self, job: Job) -> None:
        """The message is of no use any more; a task that is handed back is, though."""
        if job.order == "hand back":
            await self._hand_back(job)
        else:
            await job.delivery.ack()
            self._settled(job)

    async def _hand_back(self, job: Job, delay: float = 0.0) -> None:
        await job.delivery.nak(delay)
        self._settled(job)

    def _settled(self, job: Job) -> None:
        """Nothing is left to do for this job here."""
        if self._held.settle(job) and self._markers.stops(job.run_id, job.round):
            self._lifeline.beat_soon()
        if self._intake.waiting:
            self._intake.refill()

    # --- what a processor works with ---------------------------------------------------------------

    def _fan_out(self, job: Job) -> FanOut:
        return FanOut(
            run_id=job.run_id,
            task=job.task,
            round=job.round,
            resumed=job.delivery.delivered > 1 or job.round > 0,
            before=job.before,
            names=self._names,
            sender=self._publisher,
            read_log=self._read_log,
            nonce=new_nonce,
            settings=self._settings,
        )

    async def _read_log(self, subject: str) -> list[tuple[int, AnyEvent]]:
        stored = await subject_events(self._connection, self._names.events_stream, subject)
        return [(each.sequence, decode_event(each.data)) for each in stored]

    def _wiring(self, job: Job, sending: _Sending) -> Wiring[Any]:
        starts = 0

        async def start(target: Topic[Any] | Processor[Any, ..., Any] | str, message: Any, **options: Any) -> Any:
            nonlocal starts
            starts += 1
            return await self._operations.start(target, message, id=child_id(job.run_id, job.task, starts), **options)

        return Wiring(
            run_id=job.run_id,
            task=job.task,
            topic=job.topic,
            attempt=job.attempt,
            state=self._state,
            stop=job.stop,
            processors=self._topics,
            limit=body_limit(self._connection.max_payload),
            send=sending.send,
            start=start,
        )

    # --- interrupts and the ends of runs -----------------------------------------------------------

    def _on_keys(self, batch: list[Stored]) -> None:
        self._markers.see(batch)
        self._lifeline.beat_soon()

    def _on_marker(self, run_id: str, marker: Marker) -> None:
        for job in self._held.of_run(run_id):
            if job.round <= marker.round:
                self._order(job, marker.kind)
        if marker.kill_after is not None:
            asyncio.get_running_loop().call_later(marker.kill_after, self._kill, run_id, marker.round)

    def _kill(self, run_id: str, round: int) -> None:
        """The time that was given to what is ordered to stop is over. Only the end of the process ends a thread."""
        if any(job.executing and job.round <= round for job in self._held.of_run(run_id)):
            log.warning("the worker leaves, because a task does not stop", extra={"run": run_id})
            self._condemned.set()

    def _order(self, job: Job, order: Order) -> None:
        if job.process is None or (job.order is not None and (job.order != "hand back" or order == "hand back")):
            return
        job.order = order
        thread = self._topics[job.topic].kind == "sync" and not job.isolated
        if order != "hand back" or not thread:
            job.stop.set()
        # A thread is not cancelled: it may look at the flag. What does not execute yet looks at its order by itself.
        if job.executing and not thread:
            job.process.cancel()

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
            markers=markers,
            stopping=self._held.stopping(self._markers),
        )

    def _waiting(self) -> list[Delivery]:
        """What needs a sign of life: it is held since before the last one was due."""
        return self._held.older(time.monotonic() - self._settings.ack_wait / 6)

    def _doing(self, process: asyncio.Task[object] | None) -> str:
        for job in self._held.jobs():
            if job.process is process:
                return f"{job.topic} {job.run_id} {task_text(job.task)}"
        return process.get_name() if process is not None else ""


class _Sending:
    """A job's fan-out, made when it first sends: most tasks send nothing."""

    __slots__ = ("_make", "closed", "fanout")

    def __init__(self, make: Callable[[], FanOut]) -> None:
        self._make = make
        self.fanout: FanOut | None = None
        self.closed = False
        """The processor has returned."""

    async def send(self, topic: str, body: bytes) -> None:
        if self.closed:
            raise CorralError("this task has ended, and can send nothing more")
        if self.fanout is None:
            self.fanout = self._make()
        await self.fanout.send(topic, body)


def _threads(topics: Mapping[str, Processor[Any, ..., Any]], settings: Settings) -> int:
    """Threads for all sync processors: the shared ones, and those of processors that say how many they want."""
    own = sum(p.concurrency or 0 for p in topics.values() if p.kind == "sync")
    shared = settings.threads if any(p.kind == "sync" and p.concurrency is None for p in topics.values()) else 0
    return max(1, own + shared)
