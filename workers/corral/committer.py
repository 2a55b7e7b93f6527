"""Group commit: outcomes gather while the previous event is being stored, and go out as one.

    outcome -> [failures and retries stored] -> one `Ended` per run stored -> message acknowledged

A message is acknowledged only after its end is stored: a worker that dies in between has the task delivered again,
and the bookkeeper says that it has ended. There is no timer: a lone outcome is stored at once, and under load an
event covers hundreds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import assert_never

import msgspec

from corral import events
from corral.errors import CorralError, TooLarge
from corral.executor import Again, Failure, Outcome, Silent, Stopped, Success
from corral.jetstream.connection import Connection
from corral.jetstream.publisher import Publisher
from corral.jetstream.puller import ack_all
from corral.job import Job
from corral.messages import TOO_LARGE
from corral.subjects import Names

log = logging.getLogger(__name__)

GROUP = 4_000
"""Outcomes in one event at most: it stays far below any server's limit for a message."""
PAUSE = 1.0
"""Seconds between two tries to store an event that was refused or not confirmed."""


class Result(msgspec.Struct, eq=False):
    """How a job went, until that is stored."""

    job: Job
    outcome: Outcome
    sent: events.SentList = []
    duration: float = 0.0
    wait: float = 0.0
    settled: bool = False


class Committer:
    """Stores outcomes, and settles the messages. `settled` is called with every job that nothing is left to do for."""

    def __init__(
        self,
        worker_id: str,
        names: Names,
        connection: Connection,
        publisher: Publisher,
        settled: Callable[[Job], None],
    ) -> None:
        self._worker_id = worker_id
        self._names = names
        self._connection = connection
        self._publisher = publisher
        self._settled = settled
        self._waiting: dict[str, list[Result]] = {}
        self._committing: dict[str, asyncio.Task[None]] = {}
        self._number = 0
        self.backlog = 0
        """Outcomes that are not stored yet."""
        self.refused_at: float | None = None
        """`time.monotonic()` since when events are refused or not confirmed."""

    def add(self, result: Result) -> None:
        """Take an outcome; it is stored as soon as the run's previous event is."""
        run_id = result.job.run_id
        self.backlog += 1
        self._waiting.setdefault(run_id, []).append(result)
        if run_id not in self._committing:
            self._committing[run_id] = asyncio.create_task(self._commit(run_id), name=f"commit {run_id}")

    async def drain(self) -> None:
        """Wait until every outcome is stored and every message settled."""
        while self._committing:
            await asyncio.wait(list(self._committing.values()))

    async def _commit(self, run_id: str) -> None:
        group: list[Result] = []
        try:
            while waiting := self._waiting.get(run_id):
                group, self._waiting[run_id] = waiting[:GROUP], waiting[GROUP:]
                await self._store(run_id, group)
                await self._settle(group)
        except Exception:
            log.exception("outcomes could not be stored", extra={"run": run_id})
            # Let go of, unanswered: the messages come again after ack_wait, which is safer than to guess what was
            # stored.
            for result in [*group, *self._waiting.get(run_id, ())]:
                if not result.settled:
                    self._let_go(result)
        finally:
            self._waiting.pop(run_id, None)
            del self._committing[run_id]

    async def _store(self, run_id: str, group: list[Result]) -> None:
        reasons = [event for result in group if (event := self._reason(result)) is not None]
        if reasons:
            # Before the end: a run is over with its last end, and what is stored after that is not heard.
            await asyncio.gather(*[self._surely(run_id, event) for event in reasons])
        ended = self.ended(group)
        if ended is not None:
            await self._surely(run_id, ended)

    async def _surely(self, run_id: str, event: events.Event) -> None:
        """Store an event, however long that takes. Stored twice it counts once."""
        subject, data = self._names.event(run_id, events.kind(event)), events.encode_event(event)
        while True:
            try:
                await self._publisher.store(subject, data)
            except TooLarge:
                if not isinstance(event, events.Failed) or bytes(event.body) == TOO_LARGE:
                    raise  # it will never fit
                event = msgspec.structs.replace(event, body=msgspec.Raw(TOO_LARGE))
                data = events.encode_event(event)
            except CorralError as error:
                self.refused_at = self.refused_at or time.monotonic()
                log.warning("an event is not stored yet", extra={"run": run_id, "error": str(error)})
                await asyncio.sleep(PAUSE)
            else:
                self.refused_at = None
                return

    async def _settle(self, group: list[Result]) -> None:
        again = [(result, outcome) for result in group if isinstance(outcome := result.outcome, Again)]
        for result, outcome in again:
            await result.job.delivery.nak(outcome.delay)
            self._let_go(result)
        over = [result for result in group if not result.settled]
        await ack_all(self._connection, [result.job.delivery for result in over])
        for result in over:
            self._let_go(result)

    def _let_go(self, result: Result) -> None:
        result.settled = True
        self.backlog -= 1
        self._settled(result.job)

    # --- outcomes as events ------------------------------------------------------------------------

    def _reason(self, result: Result) -> events.Failed | events.Retrying | None:
        job, outcome = result.job, result.outcome
        match outcome:
            case Failure():
                return events.Failed(
                    topic=job.topic,
                    task=job.task,
                    error=outcome.error,
                    message=outcome.message,
                    traceback=outcome.traceback,
                    attempt=job.attempt,
                    worker=self._worker_id,
                    body=job.message.body,
                    fingerprint=outcome.fingerprint,
                    round=job.round,
                )
            case Again():
                failure = outcome.failure
                return events.Retrying(
                    topic=job.topic,
                    task=job.task,
                    attempt=job.attempt + (failure is not None),
                    delay=outcome.delay,
                    round=job.round,
                    error=f"{failure.error}: {failure.message}"[:500] if failure else "",
                )
            case Success() | Stopped() | Silent():
                return None
            case _:
                assert_never(outcome)

    def ended(self, group: list[Result]) -> events.Ended | None:
        """One event for all that ended."""
        leaves: dict[tuple[str, int, int, events.Outcome], list[int]] = {}
        dispatchers: list[events.DispatcherEnd] = []
        ended = [(result, said) for result in group if (said := _said(result.outcome)) is not None]
        if not ended:
            return None
        for result, outcome in ended:
            job = result.job
            batch, ordinal = task = job.task
            if result.sent:
                dispatchers.append(events.DispatcherEnd(job.topic, task, job.round, outcome, result.sent))
            else:
                leaves.setdefault((job.topic, batch, job.round, outcome), []).append(ordinal)
        self._number += 1
        return events.Ended(
            worker=self._worker_id,
            number=self._number,
            tasks=[events.Ends(*key, events.ranges(ordinals)) for key, ordinals in leaves.items()],
            dispatchers=dispatchers,
            durations=_histogram(result.duration for result, _ in ended),
            waits=_histogram(result.wait for result, _ in ended),
        )


def _histogram(values: Iterable[float]) -> events.Histogram:
    return list(Counter(map(events.bucket, values)).items())


def _said(outcome: Outcome) -> events.Outcome | None:
    """The outcome as an end; None if the task has not ended with it."""
    match outcome:
        case Success():
            return "success"
        case Failure():
            return "error"
        case Stopped():
            return "killed" if outcome.killed else "interrupted"
        case Again() | Silent():
            return None
        case _:
            assert_never(outcome)
