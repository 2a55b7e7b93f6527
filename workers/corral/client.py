"""The client: starts runs, looks at them, stops them.

async with Client() as client:
    run = await client.start(reindex, Reindex(ids, "Product", "7"))
    print(await run.wait())
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from corral.credentials import Login
from corral.dismissal import dismiss
from corral.errors import CorralError, PermissionDenied
from corral.eventlog import EventLog, StoredEvent, marked_batches
from corral.events import Receipt
from corral.gate import Gated
from corral.jetstream.connection import Connection
from corral.jetstream.streams import ensure
from corral.jetstream.topology import purge, queue_counts
from corral.leaving import Departure
from corral.operations import Operations, Run
from corral.processor import Processor, Topic
from corral.rollcall import listen, roll_call, topic_statuses
from corral.runs import (
    Beat,
    Record,
    RunStatus,
    TaskError,
    TopicStatus,
    WorkerStatus,
    decode_record,
    status_of,
    worker_status,
)
from corral.server import locate
from corral.settings import Settings
from corral.starter import OnDuplicate

M = TypeVar("M")


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
            ValueError: `on_duplicate` is none of these three.
            Unconfirmed: no answer within `settings.publish_timeout` seconds. The run may or may not exist; calling
                again with the same `id` is safe.
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

    def errors(self, run_id: str) -> AsyncIterator[TaskError]:
        """Why tasks of the run ended as error, oldest first; without those that a retry has brought back.

        Raises:
            EventsExpired: the run's events are gone.
        """
        return EventLog(self.operations).errors(run_id)

    def events(self, run_id: str, *, follow: bool = False) -> AsyncIterator[StoredEvent]:
        """The run's events as they were stored; with `follow` also those to come, until the run has ended.

        The end of a round is not the run's if a retry has begun another one meanwhile. Of a run that has ended, all
        that is stored.

        Raises:
            RunNotFound: there is no such run.
            EventsExpired: the run had events, and they are gone; with `follow` also if its end is among them.
        """
        return EventLog(self.operations).events(run_id, follow=follow)

    async def topics(self) -> list[TopicStatus]:
        """Every topic that has messages or workers."""
        return await topic_statuses(self.operations)

    async def workers(self) -> list[WorkerStatus]:
        """The living workers: all are asked to say so, and have a second."""
        heard = await roll_call(self.operations)
        return [worker_status(beat, at) for beat, at in sorted(heard, key=lambda pair: pair[0].started_at)]

    # --- act ---------------------------------------------------------------------------------------

    async def interrupt(
        self, run_id: str, *, reason: str | None = None, wait: bool = False, kill_after: float | None = None
    ) -> Receipt | None:
        """Order a run to stop; see `Run.interrupt`."""
        return await self.operations.interrupt(run_id, reason=reason, wait=wait, kill_after=kill_after)

    async def retry(
        self, run_id: str, *, tasks: Iterable[str] | None = None, topics: Iterable[str] | None = None
    ) -> int:
        """Bring back what of an ended run ended as error or interrupted, or only some of it; see `Run.retry`."""
        return await self.operations.retry(run_id, tasks=tasks, topics=topics)

    async def drain(self, *names: str, wait: bool = False) -> list[Departure]:
        """Tell workers to take nothing new, to let end what they execute, and to leave.

        What has not ended when the drain time-out of their pool is over is handed back; no attempt is spent. `names`
        are ids of workers or of pools, or the first characters of one. A worker that leaves is not replaced, and a pool
        ends with its last one.

        Returns when each has confirmed it, with `wait` when all are gone.

        Raises:
            WorkerNotFound: a name fits none that is heard, or several; nobody was told.
            PermissionDenied: this user may not tell them.
            Unconfirmed: some have not confirmed it within 15 seconds. They may leave all the same.
        """
        return await dismiss(self.operations, "drain", names, by=_who(), wait=wait)

    async def stop(self, *names: str, wait: bool = False) -> list[Departure]:
        """As `drain`, but what they execute is handed back at once; a worker that does not hear that is killed."""
        return await dismiss(self.operations, "stop", names, by=_who(), wait=wait)

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
            async for batch in marked_batches(reader):
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

    def read_events(
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
        return EventLog(self.operations).read(since=since, behind=behind, run_id=run_id)

    async def on_beat(self, callback: Callable[[Beat, float], None]) -> Callable[[], Any]:
        """Call back with every heartbeat and the time it was heard; returns an async function that ends this."""
        return await listen(self.operations, callback)


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
