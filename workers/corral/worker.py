"""A worker: one process that executes tasks.

    pull -> decode -> interrupted? -> root: claim the run -> redelivered? ask -> processor -> outcome -> group commit
    -> ack

Everything that a worker holds is a `Job` in `_by_run`, from its delivery until its message is settled. A task's fate
is told by events alone; a worker that dies at any step leaves a message that comes again, and an end that counts once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from corral import __version__
from corral.committer import Committer, Result
from corral.context import Wiring
from corral.errors import Conflict, CorralError, Superseded
from corral.events import AnyEvent, SentList, decode_event
from corral.executor import Again, Failure, Outcome, Silent, Stopped, Success, execute
from corral.fanout import FanOut
from corral.intake import Intake
from corral.isolation import Isolation
from corral.jetstream.connection import Connection
from corral.jetstream.puller import Delivery
from corral.jetstream.topology import subject_events
from corral.job import Job, Order
from corral.markers import Markers
from corral.messages import ROOT, body_limit, decode_task
from corral.operations import Operations
from corral.processor import App, Processor, Topic
from corral.questions import ROLL_CALL, Asker, Question
from corral.runs import Beat, Marker, decode_record, encode
from corral.settings import Settings
from corral.slottable import SlotTable
from corral.starter import child_id
from corral.subjects import Names, run_key
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
        self._asker = Asker(connection, self._names)
        self._committer = Committer(identity.id, self._names, self._publisher, self._settled)
        self._markers = Markers(self._records, self._names, self._on_marker)
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
        self._by_run: dict[str, set[Job]] = {}
        self._beat_now = asyncio.Event()
        self._idle = asyncio.Event()
        self._state: Any = None

    # --- life --------------------------------------------------------------------------------------

    async def run(self, leave: asyncio.Event, orphaned: Callable[[], bool] = lambda: False) -> None:
        """Work until `leave` is set, then drain: pull nothing more, let tasks end, hand back what takes too long.

        If it is `orphaned` (its pool is dead) it hands back at once.
        """
        async with self._app.lifespan() as self._state, asyncio.TaskGroup() as group:
            background = [group.create_task(self._markers.run()), group.create_task(self._beats())]
            await self._markers.loaded.wait()
            # Heard before the first pull: who ends runs must know of every worker that may hold a task.
            await self._beat()
            await self._connection.flush()
            roll_call = self._names.control(ROLL_CALL)
            await self._connection.subscribe(roll_call, lambda _: self._beat_now.set())
            background.append(group.create_task(self._intake.run()))
            background.append(group.create_task(self._keep_alive()))
            await leave.wait()
            await self._drain(0.0 if orphaned() else self._settings.drain_timeout)
            for task in background:
                task.cancel()
        await self._isolation.close()
        await self._beat(leaving=True)
        await self._connection.flush()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _drain(self, patience: float) -> None:
        log.info("draining", extra={"worker": self._identity.id, "held": self._held})
        await self._intake.stop()
        for job in self._jobs():
            if not job.executing:
                self._order(job, "hand back")
        await self._until_idle(patience)
        for job in self._jobs():
            self._order(job, "hand back")
        # A cancelled task has some time for its `finally`, and a thread no more than that.
        await self._until_idle(max(patience, LAST_WORDS))
        if self._held:
            log.warning("tasks are left behind: they run elsewhere after ack_wait", extra={"tasks": self._held})

    async def _until_idle(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                while self._held:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            return

    @property
    def _held(self) -> int:
        return sum(map(len, self._by_run.values()))

    def _jobs(self) -> list[Job]:
        return [job for jobs in self._by_run.values() for job in jobs]

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
        job = Job(run_id, topic, message, delivery, asyncio.get_running_loop().time())
        job.isolated = self._topics[topic].isolate
        self._by_run.setdefault(run_id, set()).add(job)
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
        if job.task == ROOT and not await self._claim(job):
            await self._drop(job)
            return False
        if job.delivery.delivered > 1 and not await self._allowed(job):
            return False
        if job.order is not None:
            await self._drop(job)
            return False
        return True

    async def _claim(self, job: Job) -> bool:
        """Make this message the root of its run; False if the run has, or can have, no use for it."""
        mine = (job.round, job.delivery.sequence)
        while True:
            entry = await self._records.get(run_key(job.run_id), leader=True)
            if entry is None:
                log.warning("a root without a record is dropped", extra={"run": job.run_id})
                return False
            record = decode_record(entry.value)
            if record.claim == mine:
                return record.live
            if record.state != "queued" or record.round != job.round:
                return False
            claimed = msgspec.structs.replace(
                record, state="running", claim=mine, started_at=record.started_at or time.time(), root="running"
            )
            try:
                await self._records.update(entry.key, encode(claimed), entry.revision)
            except Conflict:
                continue  # the bookkeeper writes records too: look again
            return True

    async def _allowed(self, job: Job) -> bool:
        """Ask about a task that was delivered before; False if it is settled already."""
        answer = await self._asker.ask(Question(job.run_id, job.task, job.round))
        if answer is None:
            await self._hand_back(job, HAND_BACK)
            return False
        if answer.verdict in ("ended", "over"):
            await self._drop(job)
            return False
        job.attempt = answer.attempt
        job.isolated = job.isolated or answer.verdict == "isolate"
        return True

    async def _execute(self, job: Job) -> None:
        processor = self._topics[job.topic]
        fanout = self._fan_out(job)
        began = time.time()
        wait = max(0.0, began - job.delivery.timestamp / 1e9)
        slot = self._table.begin(job.run_id, job.task, job.delivery.reply)
        job.executing = True
        try:
            outcome = await self._run(job, processor, fanout)
        except asyncio.CancelledError:
            outcome = None
            if job.process is not None:
                job.process.uncancel()  # it has done its work, and this coroutine goes on
        finally:
            job.executing = False
            self._table.end(slot)
        duration = time.time() - began
        outcome = self._judged(job, outcome)
        sent: SentList = []
        if fanout.used:
            # Also of a task that failed: what it sent is stored before its end is told.
            try:
                sent = await fanout.finish(ended=isinstance(outcome, Success | Failure))
            except Superseded:
                outcome = Silent()
        await self._conclude(job, outcome, sent, duration, wait)

    async def _run(self, job: Job, processor: Processor[Any, ..., Any], fanout: FanOut) -> Outcome | None:
        wiring = self._wiring(job, fanout)
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
        jobs = self._by_run.get(job.run_id)
        if jobs is None:
            return
        jobs.discard(job)
        if not jobs:
            del self._by_run[job.run_id]
            if job.order is not None:
                self._beat_now.set()
            if not self._by_run:
                self._idle.set()
        if self._intake.waiting:
            self._intake.refill()

    # --- what a processor works with ---------------------------------------------------------------

    def _fan_out(self, job: Job) -> FanOut:
        return FanOut(
            run_id=job.run_id,
            task=job.task,
            round=job.round,
            resumed=job.delivery.delivered > 1 or job.round > 0,
            base=job.message.sent or [],
            names=self._names,
            sender=self._publisher,
            read_log=self._read_log,
            nonce=new_nonce,
            settings=self._settings,
        )

    async def _read_log(self, subject: str) -> list[tuple[int, AnyEvent]]:
        stored = await subject_events(self._connection, self._names.events_stream, subject)
        return [(each.sequence, decode_event(each.data)) for each in stored]

    def _wiring(self, job: Job, fanout: FanOut) -> Wiring[Any]:
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
            send=fanout.send,
            start=start,
        )

    # --- interrupts and the ends of runs -----------------------------------------------------------

    def _on_marker(self, run_id: str, marker: Marker) -> None:
        for job in self._by_run.get(run_id, ()):
            if job.round <= marker.round:
                self._order(job, marker.kind)
        self._beat_now.set()

    def _order(self, job: Job, order: Order) -> None:
        if job.order is not None or job.process is None:
            return
        job.order = order
        thread = self._topics[job.topic].kind == "sync" and not job.isolated
        if order != "hand back" or not thread:
            job.stop.set()
        # A thread is not cancelled: it may look at the flag. What does not execute yet looks at its order by itself.
        if job.executing and not thread:
            job.process.cancel()

    # --- signs of life -----------------------------------------------------------------------------

    async def _beats(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._settings.beat):
                    await self._beat_now.wait()
            except TimeoutError:
                pass
            self._beat_now.clear()
            await self._beat()

    async def _beat(self, *, leaving: bool = False) -> None:
        running: dict[str, dict[str, int]] = {}
        roots: list[str] = []
        for run_id, jobs in self._by_run.items():
            for job in jobs:
                if job.executing and job.task == ROOT:
                    roots.append(run_id)
                elif job.executing:
                    topics = running.setdefault(run_id, {})
                    topics[job.topic] = topics.get(job.topic, 0) + 1
        beat = Beat(
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
            markers=self._markers.revision,
            stopping=[
                run for run, jobs in self._by_run.items() if any(self._markers.stops(run, j.round) for j in jobs)
            ],
            leaving=leaving,
        )
        await self._connection.publish(self._names.beat(self._identity.id), encode(beat))

    async def _keep_alive(self) -> None:
        """Tell the server of what takes long, so that it does not give it to another worker."""
        period = self._settings.ack_wait / 3
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(period)
            for job in self._jobs():
                if loop.time() - job.since >= period / 2:
                    try:
                        await job.delivery.progress()
                    except CorralError as error:
                        log.warning("a sign of life was not sent", extra={"run": job.run_id, "error": str(error)})


def _threads(topics: Mapping[str, Processor[Any, ..., Any]], settings: Settings) -> int:
    """Threads for all sync processors: the shared ones, and those of processors that say how many they want."""
    own = sum(p.concurrency or 0 for p in topics.values() if p.kind == "sync")
    shared = settings.threads if any(p.kind == "sync" and p.concurrency is None for p in topics.values()) else 0
    return max(1, own + shared)
