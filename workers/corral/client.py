"""The client: starts runs, looks at them, stops them.

async with Client() as client:
    run = await client.start(reindex, Reindex(ids, "Product", "7"))
    print(await run.wait())
"""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import msgspec

from corral.bitmap import EMPTY, Bitmap
from corral.credentials import Login
from corral.errors import CorralError, EventsExpired, PermissionDenied
from corral.events import AnyEvent, Failed, Receipt, Reopened, RunEnded, decode_event
from corral.gate import Gated
from corral.history import Tasks
from corral.jetstream.connection import Connection, Message
from corral.jetstream.reader import Behind, Reader, Since, Stored
from corral.jetstream.streams import ensure
from corral.jetstream.topology import consumers, purge, queue_counts, subject_events
from corral.messages import task_text
from corral.operations import Operations, Run
from corral.parts import Parts, named
from corral.processor import Processor, Topic
from corral.questions import ROLL_CALL
from corral.runs import (
    Beat,
    Record,
    RunStatus,
    TaskError,
    TopicStatus,
    WorkerStatus,
    decode_beat,
    decode_record,
    moment,
    status_of,
    worker_status,
)
from corral.server import locate
from corral.settings import Settings
from corral.starter import OnDuplicate

M = TypeVar("M")

FAILED = str(Failed.__struct_config__.tag)
REOPENED = str(Reopened.__struct_config__.tag)
QUIET = 0.25
"""Seconds without a new answer after which a roll call of the workers is complete."""


class StoredEvent(NamedTuple):
    """An event, and where and when it was stored."""

    run_id: str
    seq: int
    at: float
    """Seconds since the epoch."""
    event: AnyEvent


class Client:
    """A connection to the server, and all that can be asked of it. Safe to share between asyncio tasks.

    `url` is one URL or several, separated by commas; without it `NATS_URL`, else the embedded server of this user.
    `namespace` is `CORRAL_NAMESPACE`, else `corral`. `login` says how to be let in; without it the environment, as for
    the `nats` command: NATS_CREDS, NATS_CONTEXT and so on.

    Raises (when it is entered):
        NoServer: none answered; it says what was tried.
        PermissionDenied: the server did not let this user in.
    """

    def __init__(
        self,
        url: str | None = None,
        namespace: str | None = None,
        *,
        settings: Settings | None = None,
        login: Login | None = None,
    ) -> None:
        self._url = url
        self._login = login
        self.settings = settings or Settings.from_env(namespace=namespace)
        self._operations: Operations | None = None

    async def __aenter__(self) -> Self:
        located = locate(self._url, login=self._login)
        connection = await Connection.open(located.access, name="corral client")
        try:
            self._operations = await _operations(connection, self.settings)
        except BaseException:
            await connection.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        operations, self._operations = self._operations, None
        if operations is not None:
            await operations.close()
            await operations.connection.close()

    @property
    def operations(self) -> Operations:
        """What works on the open connection."""
        if self._operations is None:
            raise CorralError("the client is not open: use `async with Client() as client`")
        return self._operations

    @property
    def connection(self) -> Connection:
        """The connection, for its state: `connected`, `lost_at`, `addresses`."""
        return self.operations.connection

    # --- start -------------------------------------------------------------------------------------

    async def start(
        self,
        target: Topic[M] | Processor[M, ..., Any] | str,
        message: M,
        *,
        unique: str | None = None,
        on_duplicate: OnDuplicate = "reject",
        id: str | None = None,
    ) -> Run:
        """Store `message` as a new run and return its handle; nothing has run yet.

        With a key, be it `unique` or declared by the processor, at most one run holds it from here until its last
        task has stopped. `on_duplicate` says what happens while another run holds it: `reject` raises, `join`
        returns a handle on that run, `replace` interrupts it and waits for its end. The same `id` again is the same
        run, if the message is.

        Raises:
            DuplicateRun: the key is held; `.run_id` names the holder.
            RunExists: the `id` was used with another message.
            BadName, BadMessage: what cannot be sent; nothing was stored.
            StorageFull: no room; nothing was stored.
            Unconfirmed: no answer within `settings.publish_timeout` seconds. The run may or may not exist; calling
            again
                with the same `id` is safe.
        """
        return await self.operations.start(target, message, unique=unique, on_duplicate=on_duplicate, id=id)

    async def start_raw(
        self,
        topic: str,
        body: bytes,
        *,
        unique: str | None = None,
        on_duplicate: OnDuplicate = "reject",
        id: str | None = None,
    ) -> Run:
        """As `start`, with a body that is JSON already.

        The key is `unique`, else what the template that a pool has published for the topic makes of the body. One
        that a function computes is claimed by the worker, before the root is executed.
        """
        return await self.operations.start_raw(topic, body, unique=unique, on_duplicate=on_duplicate, id=id)

    # --- look --------------------------------------------------------------------------------------

    def run(self, id: str) -> Run:
        """A handle on a run, without any I/O; an unknown id raises RunNotFound at the first await."""
        return Run(id, self.operations)

    async def find(self, text: str) -> Run:
        """The run that an id, a unique prefix of one, or `last` names.

        Raises:
            RunNotFound, AmbiguousRun, BadName
        """
        return Run(await self.operations.find(text), self.operations)

    async def runs(
        self, *, status: str | None = None, topic: str | None = None, limit: int | None = None
    ) -> list[RunStatus]:
        """All runs, newest first; only those of a status or a topic, at most `limit`."""
        found = [status_of(record) for record in await self.operations.all_records()]
        kept = [run for run in found if status in (None, run.status) and topic in (None, run.topic)]
        return kept[:limit]

    async def watch_runs(self) -> AsyncIterator[RunStatus]:
        """Every run as it stands, then each change of any."""
        async for batch in self.read_records():
            for _, record in batch:
                if record is not None and record.state not in ("starting", "aborted"):
                    yield status_of(record)

    async def holder(self, key: str) -> str | None:
        """The id of the live run that holds a unique key; None if it is free."""
        return await self.operations.starter.holder(key)

    async def queued(self, run_id: str) -> int:
        """The run's messages that are in the queue, those that are being executed included."""
        return sum((await queue_counts(self.connection, self.operations.names, run_id)).values())

    async def receipt(self, run_id: str) -> Receipt | None:
        """What the interrupt of an ended run did; None if it was not interrupted."""
        return (await self.operations.record(run_id)).receipt

    async def errors(self, run_id: str) -> AsyncIterator[TaskError]:
        """Why tasks of the run ended as error, oldest first; without those that a retry has brought back.

        Raises:
            EventsExpired: the run's events are gone.
        """
        record = await self.operations.record(run_id)
        names, stream = self.operations.names, self.operations.names.events_stream
        reopenings = await subject_events(self.connection, stream, names.event(run_id, REOPENED))
        back = _brought_back(found.event for found in self._decode(reopenings))
        seen: dict[int, Tasks] = {}
        reader = self._event_reader(names.event(run_id, FAILED), 1)
        try:
            async with aclosing(reader.to_end()) as batches:
                async for batch in batches:
                    for found in self._decode(batch):
                        failed = found.event
                        if not isinstance(failed, Failed) or _is_back(failed, back):
                            continue
                        if seen.setdefault(failed.round, Tasks()).add(failed.task):
                            yield task_error(failed, found.at)
        finally:
            await reader.close()
        if record.counts.error and not seen:
            raise EventsExpired(run_id)

    async def events(self, run_id: str, *, follow: bool = False) -> AsyncIterator[StoredEvent]:
        """The run's events as they were stored; with `follow` also those to come, until the run has ended.

        The end of a round is not the run's if a retry has begun another one meanwhile. Of a run that has ended, all
        that is stored.

        Raises:
            RunNotFound: there is no such run.
            EventsExpired: the run had events, and they are gone; with `follow` also if its end is among them.
        """
        record = await self.operations.record(run_id, leader=follow)
        if follow and record.live:
            async for stored in self._events_to_come(run_id):
                yield stored
            return
        found = ended = False
        reader = self._event_reader(self.operations.names.run_events(run_id), 1)
        try:
            for stored in self._decode(await reader.read_all()):
                found, ended = True, ended or _ends(stored.event, record.round)
                yield stored
        finally:
            await reader.close()
        if (record.seq and not found) or (follow and not ended):
            raise EventsExpired(run_id)

    async def _events_to_come(self, run_id: str) -> AsyncIterator[StoredEvent]:
        """All events of a live run, the last one the `RunEnded` after which its record became final."""
        reader = self._event_reader(self.operations.names.run_events(run_id), 1)
        try:
            async for batch in reader:
                for stored in self._decode(batch):
                    yield stored
                    if isinstance(stored.event, RunEnded) and await self._over(run_id, stored.event.round):
                        return
        finally:
            await reader.close()

    async def _over(self, run_id: str, round: int) -> bool:
        """Whether the run is over with the end of this round, once that is known."""
        async with aclosing(self.operations.watch_record(run_id)) as records:
            async for record in records:
                # A retry that is refused its unique key leaves the run as it had ended.
                if record.round > round and record.state != "reopening":
                    return False
        return True

    async def topics(self) -> list[TopicStatus]:
        """Every topic that has messages or workers."""
        connection, names = self.connection, self.operations.names
        waiting: dict[str, int] = {}
        for (_, topic), count in (await queue_counts(connection, names)).items():
            waiting[topic] = waiting.get(topic, 0) + count
        served: dict[str, int] = {}
        running: dict[str, int] = {}
        roots = {record.id: record.topic for record in await self.operations.all_records() if record.live}
        for beat, _ in await self._roll_call():
            for topic in beat.topics:
                served[topic] = served.get(topic, 0) + 1
            for topics in beat.running.values():
                for topic, count in topics.items():
                    running[topic] = running.get(topic, 0) + count
            for run_id in beat.roots:
                if run_id in roots:
                    running[roots[run_id]] = running.get(roots[run_id], 0) + 1
        known = {*waiting, *served, *await consumers(connection, names)}
        return [
            TopicStatus(
                topic=topic,
                pending=max(0, waiting.get(topic, 0) - running.get(topic, 0)),
                running=running.get(topic, 0),
                workers=served.get(topic, 0),
            )
            for topic in sorted(known)
        ]

    async def workers(self) -> list[WorkerStatus]:
        """The living workers: all are asked to say so, and have a second."""
        return [
            worker_status(beat, at) for beat, at in sorted(await self._roll_call(), key=lambda pair: pair[0].started_at)
        ]

    # --- act ---------------------------------------------------------------------------------------

    async def interrupt(
        self, run_id: str, *, reason: str | None = None, wait: bool = False, kill_after: float | None = None
    ) -> Receipt | None:
        """Order a run to stop; see `Run.interrupt`."""
        return await self.operations.interrupt(run_id, reason=reason, wait=wait, kill_after=kill_after)

    async def may_act(self) -> bool:
        """Whether this user may stop runs. Changes nothing: what is asked for removes no message."""
        try:
            await purge(self.connection, self.operations.names, "-", "-", below=2)
        except PermissionDenied:
            return False
        return True

    # --- streams of what happens, for monitors -----------------------------------------------------

    async def read_records(self) -> AsyncIterator[list[tuple[str, Record | None]]]:
        """(run id, record) of every run, then of each change, in batches; None for a record that is gone. Never ends.

        An empty batch says that all that was stored before has been handed out.
        """
        names = self.operations.names
        reader = self.operations.records.watch("run.>")
        try:
            async for batch in _batches(reader):
                out: list[tuple[str, Record | None]] = []
                for stored in batch:
                    run_id = names.key_of(stored.subject).partition(".")[2]
                    try:
                        out.append(
                            (run_id, None if stored.operation is not None else decode_record(stored.data, run_id))
                        )
                    except msgspec.DecodeError:
                        continue  # of another version: not ours to show
                yield out
        finally:
            await reader.close()

    async def read_events(
        self,
        *,
        since: float | None = None,
        behind: tuple[int, float] | None = None,
        run_id: str | None = None,
    ) -> AsyncIterator[list[StoredEvent]]:
        """Events of all runs or of one, in batches, from a time on (seconds since the epoch). Never ends.

        `behind` is (sequence, time) of an event: what was stored after it, or everything from the first event on if
        that event turns out to be lost. Without either from the first one on. An empty batch says that all that was
        stored before has been handed out.
        """
        names = self.operations.names
        wanted = names.all_events if run_id is None else names.run_events(run_id)
        start = Behind(*behind) if behind is not None else 1 if since is None else Since(since)
        reader = self._event_reader(wanted, start)
        try:
            async for batch in _batches(reader):
                yield self._decode(batch)
        finally:
            await reader.close()

    async def on_beat(self, callback: Callable[[Beat, float], None]) -> Callable[[], Any]:
        """Call back with every heartbeat and the time it was heard; returns an async function that ends this."""
        names = self.operations.names

        def heard(message: Message) -> None:
            try:
                beat = decode_beat(message.data)
            except msgspec.DecodeError:
                return  # not one of ours
            if message.subject == names.beat(beat.id):  # else it is in another's name
                callback(beat, time.time())

        subscription = await self.connection.subscribe(names.all_beats, heard)
        await self.connection.publish(names.control(ROLL_CALL))
        return subscription.close

    # --- how ---------------------------------------------------------------------------------------

    async def _roll_call(self) -> list[tuple[Beat, float]]:
        """Ask every worker to beat at once; the answers, when no more come."""
        heard: dict[str, tuple[Beat, float]] = {}
        news = asyncio.Event()

        def on_beat(beat: Beat, at: float) -> None:
            if not beat.leaving:
                heard[beat.id] = (beat, at)
            news.set()

        close = await self.on_beat(on_beat)
        try:
            async with asyncio.timeout(self.settings.beat + QUIET):
                await news.wait()
                while True:
                    news.clear()
                    async with asyncio.timeout(QUIET):
                        await news.wait()
        except TimeoutError:
            pass
        finally:
            await close()
        return list(heard.values())

    def _event_reader(self, subject: str, start: int | Since | Behind) -> Reader:
        return Reader(self.connection, self.operations.names.events_stream, [subject], start=start)

    def _decode(self, batch: list[Any]) -> list[StoredEvent]:
        names = self.operations.names
        out = []
        for stored in batch:
            try:
                out.append(
                    StoredEvent(
                        names.run_of_event(stored.subject),
                        stored.sequence,
                        stored.time,
                        decode_event(stored.data, stored.subject),
                    )
                )
            except msgspec.DecodeError:
                continue  # of a newer version, or not one of ours
        return out


def _ends(event: AnyEvent, round: int) -> bool:
    return isinstance(event, RunEnded) and event.round == round


_Back = dict[int, dict[int, Bitmap]]
"""Round -> batch -> the ordinals that the retry has brought back."""


def _brought_back(stored: Iterable[AnyEvent]) -> _Back:
    """What the retries of a run have brought back, as far as they were said in full."""
    back: _Back = {}
    said: dict[int, Parts] = {}
    for event in stored:
        if isinstance(event, Reopened) and (parts := said.setdefault(event.round, Parts()).add(event)):
            into = back.setdefault(event.round, {})
            for batch, bits in (each for part in parts for each in named(part)):
                into[batch] = into.get(batch, EMPTY).plus(bits)
    return back


def _is_back(failed: Failed, back: _Back) -> bool:
    """Whether a later retry has brought the task back."""
    batch, ordinal = failed.task
    return any(round > failed.round and ordinal in batches.get(batch, EMPTY) for round, batches in back.items())


def task_error(failed: Failed, at: float) -> TaskError:
    """The stored failure as users see it."""
    return TaskError(
        task=task_text(failed.task),
        topic=failed.topic,
        type=failed.error,
        message=failed.message,
        traceback=failed.traceback,
        attempt=failed.attempt,
        at=moment(at),
        worker=failed.worker,
        body=failed.body,
        fingerprint=failed.fingerprint,
    )


async def _batches(reader: Reader) -> AsyncIterator[list[Stored]]:
    """The reader's batches, and one empty batch when all that was there at the start has been handed out."""
    coming = asyncio.ensure_future(anext(reader))
    caught_up = asyncio.ensure_future(reader.caught_up.wait())
    try:
        while not caught_up.done():
            await asyncio.wait({coming, caught_up}, return_when=asyncio.FIRST_COMPLETED)
            if coming.done():
                yield coming.result()
                coming = asyncio.ensure_future(anext(reader))
        yield []
        while True:
            yield await coming
            coming = asyncio.ensure_future(anext(reader))
    finally:
        coming.cancel()
        caught_up.cancel()


async def _operations(connection: Connection, settings: Settings) -> Operations:
    """What works on the connection, with the streams there."""
    operations = Operations(connection, settings, by=_who())
    try:
        await ensure(connection, operations.names, settings)
    except PermissionDenied:
        gated = Gated(connection, settings, by=_who())
        if not await gated.known():
            raise
        return gated
    return operations


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}".encode(errors="replace").decode()  # an environment may hold anything


__all__ = ["Client", "Run", "StoredEvent"]
