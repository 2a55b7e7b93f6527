"""What happens to each task that a worker is given.

    delivery -> job -> interrupted? -> root: claim the run -> delivered before? ask -> processor -> outcome
    -> group commit -> ack

Almost every task goes straight from the first step to the processor, in an asyncio task of its own: there is nothing
to ask about it. A task's fate is told by events alone; a worker that dies at any step leaves a message that comes
again, and an end that counts once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from corral.claims import Claims
from corral.committer import Committer, Result
from corral.context import Wiring
from corral.errors import ContentChanged, CorralError, Interrupted, Superseded
from corral.events import SentList
from corral.executor import Again, Failure, Outcome, Silent, Stopped, Success, execute, failed_attempt, failure
from corral.holding import Holding
from corral.intake import Intake
from corral.isolation import Isolation
from corral.jetstream.connection import Connection
from corral.jetstream.puller import Delivery
from corral.job import Job
from corral.lives import Lives
from corral.markers import Markers
from corral.messages import ROOT, body_limit, decode_task
from corral.oddities import Oddities
from corral.operations import Operations
from corral.outgoing import Outgoing
from corral.places import Places
from corral.processor import Processor
from corral.questions import Asker
from corral.settings import Settings
from corral.slottable import SlotTable
from corral.subjects import Names

log = logging.getLogger(__name__)

HAND_BACK = 1.0
"""Seconds after which a task that could not be asked about, or found no slot, is delivered again."""
DOUBLED = 5
"""How often that time is doubled at most."""
TELL_AGAIN = 30.0
"""Seconds between two lines of the log that say that tasks wait for room."""
POISON = 60.0
"""Seconds between two deliveries of a message that is no task at all."""


class Handler:
    """Takes the tasks of `topics` in, `slots` at once, and each of them to its settlement."""

    def __init__(
        self,
        connection: Connection,
        *,
        settings: Settings,
        worker_id: str,
        slots: int,
        topics: Mapping[str, Processor[Any, ..., Any]],
        table: SlotTable,
        isolation: Isolation,
        markers: Markers,
        on_stopped: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._names = Names(settings.namespace)
        self._slots = slots
        self._oddities = Oddities(log)
        self._topics = topics
        self._table = table
        self._isolation = isolation
        self._markers = markers
        self._on_stopped = on_stopped
        self._operations = Operations(connection, settings, by=worker_id)
        self._claims = Claims(self._operations.records, self._operations.starter)
        self._asker = Asker(connection, self._names)
        self.lives = Lives(self._operations.records)
        self._threads = ThreadPoolExecutor(_threads(topics, settings), thread_name_prefix="processor")
        self._places = Places(settings.threads)
        self._loop = asyncio.get_running_loop()
        self._body_limit = body_limit(connection.max_payload)
        self._forget = connection.on_reconnect(self._learn_limit)
        self.committer = Committer(worker_id, self._names, connection, self._operations.publisher, self._settled)
        self.held = Holding()
        self.intake = Intake(
            connection,
            self._names,
            settings,
            topics,
            slots=slots,
            isolated=isolation.size,
            deliver=self._deliver,
            paused=self._is_paused,
        )
        self._told_at = -TELL_AGAIN
        self.state: Any = None
        """The value of the app's lifespan."""

    async def close(self) -> None:
        """Leave what is not settled as it is."""
        self._forget()
        await self._isolation.close()
        await self._connection.flush()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _is_paused(self) -> bool:
        """Nothing is pulled while outcomes cannot be stored, or are stored too slowly."""
        return self.committer.refused_at is not None or self.committer.backlog > max(2 * self._slots, 1_000)

    def _learn_limit(self) -> None:
        self._body_limit = body_limit(self._connection.max_payload)

    # --- before the processor ----------------------------------------------------------------------

    def _deliver(self, delivery: Delivery) -> None:
        run_id, topic = self._names.split_task(delivery.subject)
        try:
            message = decode_task(delivery.data, run_id)
        except msgspec.DecodeError as error:
            self._oddities.note(
                "a message that is no task stays in the queue", subject=delivery.subject[:200], error=str(error)
            )
            asyncio.create_task(self._refuse(delivery, topic))  # noqa: RUF006  # a publish, nothing to wait for
            return
        processor = self._topics[topic]
        job = Job(run_id, topic, processor, message, delivery, time.monotonic(), processor.isolate)
        self.held.add(job)
        # Not by the loop's factory, which somebody may have set to one that begins before `process` is known.
        job.process = asyncio.Task(self._handle(job), loop=self._loop, name="a task's processor")

    async def _refuse(self, delivery: Delivery, topic: str) -> None:
        await delivery.nak(POISON)
        self.intake.release(topic)

    async def _handle(self, job: Job) -> None:
        """One job, from its delivery to its outcome. Whatever happens here, its slot is free afterwards."""
        try:
            if self._is_plain(job) or await self._may_run(job):
                await (self._execute_in_thread(job) if job.in_thread else self._execute(job))
        except asyncio.CancelledError:
            if job.order is None:
                raise  # the worker itself ends
            # Ordered to stop before the processor began: the message is dropped, or handed back.
            await self._drop(job)
        except CorralError as error:
            # The server does not answer, or not in time: asked less and less often, it may catch up.
            self._oddities.note("a task is handed back", run=job.run_id, topic=job.topic, error=str(error))
            await self._hand_back(job, hand_back_after(job.delivery.delivered))
        except Exception:
            log.exception("a task is handed back", extra={"run": job.run_id, "task": job.task, "topic": job.topic})
            await self._hand_back(job, HAND_BACK)
        finally:
            self.intake.release(job.topic, lent=job.lends)

    def _is_plain(self, job: Job) -> bool:
        """Whether it may run, with nothing to ask about it."""
        return not (
            job.task == ROOT
            or job.again
            or job.order is not None
            or job.run_id not in self.lives
            or self.intake.over_full
            or self._markers.stops(job.run_id, job.round)
        )

    async def _may_run(self, job: Job) -> bool:
        if self._markers.stops(job.run_id, job.round):
            await self._drop(job)
            return False
        if self.intake.over_full:
            await self._hand_back(job, HAND_BACK)
            return False
        if job.task == ROOT and not await self._claimed(job):
            return False
        if not await (self._allowed(job) if job.again else self._lives(job)):
            return False
        if job.order is not None:
            await self._drop(job)
            return False
        return True

    async def _lives(self, job: Job) -> bool:
        """Whether the run is live, by its record if this is the first task of it here; False if that settled it."""
        if job.task == ROOT:
            self.lives.add(job.run_id)  # it was claimed
        elif job.run_id not in self.lives and not await self.lives.look_up(job.run_id):
            await self._drop(job)
            return False
        return True

    async def _claimed(self, job: Job) -> bool:
        """Make the message the root of its run; False if that settled it."""
        claim = await self._claims.claim(job, job.processor)
        if claim is False:
            await self._drop(job)
        elif isinstance(claim, Failure):
            self.committer.add(Result(job, claim))
        return claim is True

    async def _allowed(self, job: Job) -> bool:
        """Ask about a task that was delivered before, or brought back; False if it is settled already."""
        answer = await self._asker.ask(job.run_id, job.task, job.round)
        if answer is None:
            await self._hand_back(job, HAND_BACK)
            return False
        if answer.verdict in ("ended", "over"):
            await self._drop(job)
            return False
        job.attempt = answer.attempt
        job.before = answer.before
        job.isolated = job.isolated or answer.verdict == "isolate"
        return True

    # --- the processor, and after it ---------------------------------------------------------------

    async def _execute_in_thread(self, job: Job) -> None:
        """Execute it once there is a thread; until then it has not begun."""
        if job.processor.concurrency is not None:  # then there are threads of its own
            await self._execute(job)
            return
        job.queued = True
        async with self._places.taken(job.stop):
            job.queued = False
            await self._execute(job)

    async def _execute(self, job: Job) -> None:
        outgoing = Outgoing(job, self._operations, self._on_waiting)
        began = time.time()
        slot = self._table.begin(job.run_id, job.task, job.delivery.reply)
        job.began = time.monotonic()
        job.executing = True
        try:
            outcome = await self._run(job, outgoing)
        except asyncio.CancelledError as error:
            if job.order is None and job.cancelled:
                raise  # the worker itself ends
            outcome = _despite_cancellation(job, error)
        finally:
            job.executing = False
            self._table.end(slot)
        duration = time.time() - began
        outcome = _judged(job, outcome)
        sent: SentList = []
        outgoing.closed = True
        if (fanout := outgoing.fanout) is not None:
            # Also of a task that failed: what it sent is stored before its end is told.
            try:
                sent = await fanout.finish(ended=isinstance(outcome, Success | Failure))
            except Superseded:
                outcome = Silent()
            except Interrupted:
                outcome = None
            except ContentChanged as error:
                outcome, sent = failure(error), fanout.sent
        if outcome is None or isinstance(outcome, Silent) or job.order == "over":
            await self._let_go(job, outcome)
        else:
            wait = max(0.0, began - job.delivery.timestamp / 1e9)
            self.committer.add(Result(job, outcome, sent, duration, wait))

    async def _run(self, job: Job, outgoing: Outgoing) -> Outcome | None:
        wiring = Wiring(
            job.run_id,
            job.task,
            job.topic,
            job.attempt,
            self.state,
            job.stop,
            self._topics,
            self._body_limit,
            outgoing.send,
            outgoing.start,
        )
        if job.isolated:
            return await self._isolation.execute(job.processor, bytes(job.message.body), wiring)
        return await execute(job.processor, bytes(job.message.body), wiring, self._threads)

    def _on_waiting(self, job: Job, waiting: bool) -> None:  # noqa: FBT001
        """Messages of a fan-out wait for room, or no longer."""
        job.waiting = waiting
        if waiting and not job.lends:
            # For good: when there is room again the slot may be taken.
            job.lends = True
            self.intake.lend(job.topic)
            self._isolation.lend(job.stop)
            self._places.lend(job.stop)
        now = time.monotonic()
        if waiting and now - self._told_at > TELL_AGAIN:
            self._told_at = now
            log.warning(
                "tasks that send wait for room: the queue is full", extra={"run": job.run_id, "topic": job.topic}
            )

    async def _let_go(self, job: Job, outcome: Outcome | None) -> None:
        """Nothing is told of this execution."""
        if outcome is None:
            await self._hand_back(job)
        elif not isinstance(outcome, Silent):
            await self._drop(job)
        elif job.delivery.delivered == 1:
            # A first delivery that finds another one's fan-out is a message that was stored twice: delivered again,
            # it asks.
            await self._hand_back(job, HAND_BACK)
        else:
            self._settled(job)

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
        if self.held.settle(job) and self._markers.stops(job.run_id, job.round):
            self._on_stopped()
        if self.intake.waiting:
            self.intake.refill()


# --- decisions ---------------------------------------------------------------------------------------


def hand_back_after(delivered: int) -> float:
    """Seconds until a task is delivered again about which nothing could be found out, at its nth delivery."""
    return HAND_BACK * float(2 ** min(delivered - 1, DOUBLED))


def _despite_cancellation(job: Job, error: BaseException) -> Outcome | None:
    """The outcome of a processor that ended with a cancellation, in a worker that goes on."""
    if job.cancelled and job.process is not None:
        job.process.uncancel()  # it has done its work, and the coroutine that the job is handled in goes on
    if job.order is not None:
        return None
    # Nobody cancelled it: the processor let another one's cancellation through.
    return failed_attempt(job.processor, job.attempt, failure(error))


def _judged(job: Job, outcome: Outcome | None) -> Outcome | None:
    """The outcome, given what was ordered meanwhile; None: the task goes back to the queue."""
    match job.order:
        case None:
            return Stopped() if outcome is None else outcome
        case "hand back":
            return None if isinstance(outcome, Stopped) else outcome
        case _:
            return Stopped() if outcome is None or isinstance(outcome, Again) else outcome


def _threads(topics: Mapping[str, Processor[Any, ..., Any]], settings: Settings) -> int:
    """The most threads that all sync processors can need: the shared ones, and those of who says how many it wants.

    Who waits for room keeps its thread and lends its place, so each topic may have as many as there are places.
    """
    own = sum(p.concurrency or 0 for p in topics.values() if p.kind == "sync")
    shared = settings.threads * (1 + sum(p.kind == "sync" and p.concurrency is None for p in topics.values()))
    return own + shared
