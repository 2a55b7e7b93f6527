"""What can be asked of runs and done to them, over a connection that somebody else owns."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from typing import Any, TypeVar

import msgspec

from corral import events
from corral.errors import AmbiguousRun, BadName, Conflict, RunNotFound, Unconfirmed
from corral.events import Receipt
from corral.jetstream.connection import Connection
from corral.jetstream.publisher import Publisher
from corral.jetstream.records import Records
from corral.jetstream.topology import clear, last_sequence, queue_counts
from corral.messages import TaskId, parse_task
from corral.processor import Processor, Topic
from corral.retrying import Chosen, Retrier
from corral.runs import Marker, Record, RunStatus, decode_marker, decode_record, encode, status_of
from corral.settings import Settings
from corral.starter import OnDuplicate, Starter
from corral.subjects import Names, check_reason, check_run_id, check_topic, interrupt_key, run_key

M = TypeVar("M")


class Run:
    """A handle on a run: its id, and what can be asked of it. Making one does no I/O."""

    __slots__ = ("_operations", "id")

    def __init__(self, id: str, operations: Operations) -> None:
        self.id = check_run_id(id)
        self._operations = operations

    async def status(self) -> RunStatus:
        """How the run stands now; RunNotFound if there is none."""
        return await self._operations.status(self.id)

    async def watch(self) -> AsyncIterator[RunStatus]:
        """How the run stands now, then each change, at most ten times a second. Ends with the final status."""
        async for status in self._operations.watch(self.id):
            yield status

    async def wait(self) -> RunStatus:
        """The final status, once the run has ended, whatever its outcome."""
        async for status in self.watch():
            if status.ended:
                return status
        raise RunNotFound(self.id)  # its record expired while it was watched

    async def interrupt(
        self,
        reason: str | None = None,
        wait: bool = False,  # noqa: FBT001, FBT002
        *,
        kill_after: float | None = None,
    ) -> Receipt | None:
        """Order the run to stop: what is queued is removed, what runs is cancelled.

        A thread cannot be cancelled, and a run has not ended before its last task has stopped. With `kill_after` a
        worker that still executes something of the run after so many seconds is replaced; its other tasks are handed
        back.

        With `wait` the receipt, once everything has stopped; else None, as soon as the order is stored and the queue
        purged. A run that has ended already is left as it is.

        Raises:
            ValueError: `kill_after` is negative, or no number.
        """
        return await self._operations.interrupt(self.id, reason=reason, wait=wait, kill_after=kill_after)

    async def retry(self, *, tasks: Iterable[str] | None = None, topics: Iterable[str] | None = None) -> int:
        """Bring back what ended as error or interrupted, in this same run; how many tasks that are.

        Errors come back with their stored bodies; what an interrupt removed comes back by running again the task that
        sent it, which must send the same as before.

        With `tasks` (each as `TaskError.task` has it: "batch-ordinal") or `topics` only these tasks, or all of these
        topics; the rest stays as it ended. Of these, what has succeeded is passed over. A task that has to send some of
        them again comes back as well, and is counted.

        Raises:
            NotEnded: the run is still live.
            DuplicateRun: another run holds its unique key now.
            EventsExpired: the run's events are gone.
            BadName: what is no task, or no topic, by its form.
            TaskNotFound: the run has no such task, or none of such a topic.
            SelectionTooLarge: so many scattered tasks can only be retried in several steps, or with all others.
        """
        return await self._operations.retry(self.id, tasks=tasks, topics=topics)

    def __repr__(self) -> str:
        return f"<run {self.id}>"


class Operations:
    """The operations on runs. `by` names who orders an interrupt."""

    def __init__(self, connection: Connection, settings: Settings, *, by: str) -> None:
        self.connection = connection
        self.settings = settings
        self.names = Names(settings.namespace)
        self.publisher = Publisher(connection, timeout=settings.publish_timeout)
        self.records = Records(connection, self.publisher, self.names)
        self.starter = Starter(connection, self.records, self.publisher, self.names, settings)
        self._by = by

    async def start(
        self,
        target: Topic[M] | Processor[M, ..., Any] | str,
        message: M,
        *,
        unique: str | None = None,
        on_duplicate: OnDuplicate = "reject",
        id: str | None = None,
    ) -> Run:
        """Start a run; see `Client.start`."""
        run_id = await self.starter.start(
            target, message, unique=unique, on_duplicate=on_duplicate, id=id, replace=self.replace
        )
        return Run(run_id, self)

    async def start_raw(
        self,
        topic: str,
        body: bytes,
        *,
        unique: str | None = None,
        on_duplicate: OnDuplicate = "reject",
        id: str | None = None,
    ) -> Run:
        """Start a run with a body that is JSON already; see `Client.start_raw`."""
        run_id = await self.starter.start_raw(
            topic, body, unique=unique, on_duplicate=on_duplicate, id=id, replace=self.replace
        )
        return Run(run_id, self)

    async def replace(self, run_id: str) -> None:
        """Interrupt a run and wait for its end, so that its unique key is free."""
        with contextlib.suppress(RunNotFound):  # its start was undone meanwhile
            await self.interrupt(run_id, reason="replaced", wait=True)

    # --- look --------------------------------------------------------------------------------------

    async def record(self, run_id: str, *, leader: bool = False) -> Record:
        """The run's record; RunNotFound if there is none."""
        entry = await self.records.get(run_key(check_run_id(run_id)), leader=leader)
        record = decode_record(entry.value, run_id) if entry is not None else None
        if record is None or record.state == "aborted":
            raise RunNotFound(run_id)
        return record

    async def status(self, run_id: str) -> RunStatus:
        """How the run stands now; RunNotFound if there is none."""
        return status_of(await self.record(run_id))

    async def watch(self, run_id: str) -> AsyncIterator[RunStatus]:
        """See `Run.watch`."""
        async for record in self.watch_record(run_id):
            yield status_of(record)

    async def watch_record(self, run_id: str) -> AsyncGenerator[Record]:
        """The run's record, and each new one; stops after the final one, or when it expires."""
        await self.record(run_id)
        reader = self.records.watch(run_key(run_id))
        try:
            async for batch in reader:
                last = batch[-1]  # what came in between is history already
                if last.operation is not None:
                    return
                record = decode_record(last.data, run_id)
                if record.state == "aborted":
                    raise RunNotFound(run_id)
                yield record
                if record.state == "final":
                    return
        finally:
            await reader.close()

    async def all_records(self) -> list[Record]:
        """Every run's record, newest first; refused starts are left out."""
        records = []
        for entry in await self.records.entries("run"):
            try:
                records.append(decode_record(entry.value, entry.key.partition(".")[2]))
            except msgspec.DecodeError:
                continue  # of another version, or not one of ours: not ours to show
        kept = [record for record in records if record.state not in ("starting", "aborted")]
        return sorted(kept, key=lambda record: record.created_at, reverse=True)

    async def find(self, text: str) -> str:
        """The id of the run that `text` names: an id, a unique prefix of one, or `last`.

        Raises:
            RunNotFound, AmbiguousRun, BadName
        """
        if text == "last":
            newest = next(iter(await self.all_records()), None)
            if newest is None:
                raise RunNotFound("last")
            return newest.id
        check_run_id(text)
        try:
            return (await self.record(text)).id
        except RunNotFound:
            found = [record.id for record in await self.all_records() if record.id.startswith(text)]
            if len(found) > 1:
                raise AmbiguousRun(text, found) from None
            if not found:
                raise
            return found[0]

    # --- act ---------------------------------------------------------------------------------------

    async def retry(
        self, run_id: str, *, tasks: Iterable[str] | None = None, topics: Iterable[str] | None = None
    ) -> int:
        """See `Run.retry`."""
        chosen = _chosen(tasks, topics)
        entry = await self.records.get(run_key(check_run_id(run_id)), leader=True)
        if entry is None:
            raise RunNotFound(run_id)
        retrier = Retrier(
            self.connection,
            self.records,
            self.publisher,
            self.names,
            self.starter,
            retention=self.settings.retention,
        )
        return await retrier.retry(run_id, decode_record(entry.value), entry.revision, chosen)

    async def interrupt(
        self, run_id: str, *, reason: str | None = None, wait: bool = False, kill_after: float | None = None
    ) -> Receipt | None:
        """See `Run.interrupt`."""
        if kill_after is not None and not (math.isfinite(kill_after) and kill_after >= 0):
            raise ValueError(f"kill_after is a number of seconds, and not negative: {kill_after}")
        check_reason(reason)
        record = await self.record(run_id, leader=True)
        if record.state != "final":
            # The event first: what the receipt accounts for is what had not ended when it was stored. Should this
            # process die after it, the bookkeeper goes on.
            ordered = events.Interrupted(round=record.round, by=self._by, reason=reason)
            await self.publisher.store(self.names.event(run_id, events.kind(ordered)), events.encode_event(ordered))
            if await self._mark_stop(record, reason, kill_after):
                await self._purge(record)
        if not wait:
            return None
        async for last in self.watch_record(run_id):
            record = last
        return record.receipt or Receipt()

    async def _mark_stop(self, record: Record, reason: str | None, kill_after: float | None) -> bool:
        """Write the marker; False if the run is ordered to stop, or over, already."""
        key = interrupt_key(record.id)
        marker = Marker(
            kind="stop", round=record.round, by=self._by, reason=reason, at=time.time(), kill_after=kill_after
        )
        ttl = self.settings.retention + 86_400
        for _ in range(20):
            entry = await self.records.get(key, leader=True)
            try:
                if entry is None:
                    await self.records.create(key, encode(marker), ttl=ttl)
                    return True
                before = decode_marker(entry.value)
                stopping = before.kind == "stop" and before.round == record.round
                if before.round >= record.round and not (stopping and kill_after is not None):
                    return stopping
                await self.records.update(key, encode(marker), entry.revision, ttl=ttl)
            except Conflict:
                continue
            else:
                return True
        raise Unconfirmed(f"the interrupt of run {record.id}")

    async def _purge(self, record: Record) -> None:
        """The first purge; the bookkeeper sweeps once more when all workers have stopped."""
        below = 1 + await last_sequence(self.connection, self.names.tasks_stream)
        now = await self.record(record.id, leader=True)
        if now.round != record.round or now.state == "final":
            return
        for (run_id, topic), count in (await queue_counts(self.connection, self.names, record.id)).items():
            await clear(self.connection, self.names, run_id, topic, below=below, count=count)

    async def close(self) -> None:
        """Let go of the connection, which stays open."""
        await self.publisher.close()


def _chosen(tasks: Iterable[str] | None, topics: Iterable[str] | None) -> Chosen | None:
    """What a retry is limited to; None if it is not."""
    if tasks is None and topics is None:
        return None
    for given in (tasks, topics):
        if isinstance(given, str):
            raise TypeError(f"several are expected, as a list: [{given!r}]")
    return Chosen([_task(text) for text in tasks or ()], [check_topic(topic) for topic in topics or ()])


def _task(text: str) -> TaskId:
    try:
        return parse_task(text)
    except ValueError:
        raise BadName("task", text, "it is batch-ordinal, such as 41-7") from None
