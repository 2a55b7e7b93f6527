"""A pool: the workers of one machine, each with its supervisor, and a candidate for bookkeeper.

It drains its workers when it is told to stop. An operator can tell that, too, or single workers to leave for good.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from corral.bookkeeper import Bookkeeper
from corral.credentials import Access
from corral.election import stand
from corral.errors import AppNotFound, PermissionDenied, Unreadable
from corral.isolation import children
from corral.jetstream.connection import Connection, Message
from corral.jetstream.publisher import Publisher
from corral.jetstream.records import Records
from corral.jetstream.streams import ensure, ensure_consumer, keep_events
from corral.jetstream.topology import consumers
from corral.keys import encode_topic, topic_record
from corral.leaving import decode_leave
from corral.loader import load_app
from corral.oddities import Oddities
from corral.processor import App
from corral.roles import LEAVE
from corral.roster import Roster
from corral.settings import Settings
from corral.subjects import Names, topic_key
from corral.supervisor import Supervisor
from corral.topic_keys import keep_published, publish
from corral.worker_process import Assignment

log = logging.getLogger(__name__)


class PoolOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a pool runs, and where."""

    app: str
    """`module`, `module:attribute` or `file.py`."""
    access: Access
    settings: Settings
    workers: int
    """Worker processes."""
    slots: int = 100
    """Tasks that each worker executes at once."""
    topics: list[str] | None = None
    """Only these; None for all of the app's."""


class Stopping:
    """How a pool is told to stop: once to drain, twice to stop at once."""

    def __init__(self) -> None:
        self.drain = asyncio.Event()
        self.now = asyncio.Event()

    def ask(self) -> None:
        """Drain; asked again, stop at once."""
        if self.drain.is_set():
            self.now.set()
        self.drain.set()


async def run_pool(options: PoolOptions, stopping: Stopping, on_ready: Callable[[], None] = lambda: None) -> int:
    """Run a pool until it is told to stop; the exit code: 0, or 1 if workers died and could not be replaced.

    `on_ready` is called when every worker has begun to work.

    Raises:
        AppNotFound: no such app, or a topic that it has no processor for.
        NoServer, PermissionDenied: the server cannot be used.
    """
    app = load_app(options.app)
    topics = _topics(app, options)
    connection = await Connection.open(options.access, name="corral pool")
    try:
        with tempfile.TemporaryDirectory(prefix="corral-") as folder:
            pool = Pool(app, connection, options=options, topics=topics, folder=Path(folder), on_ready=on_ready)
            return await pool.run(stopping)
    finally:
        await connection.close()


def _topics(app: App[Any], options: PoolOptions) -> list[str]:
    if not app.processors:
        raise AppNotFound(options.app, "the app has no processors")
    wanted = list(app.processors) if options.topics is None else options.topics
    if unknown := [topic for topic in wanted if topic not in app.processors]:
        raise AppNotFound(
            options.app, f"it has no processor for {', '.join(unknown)}; its topics are {', '.join(app.processors)}"
        )
    return wanted


class Pool:
    """Made and run by `run_pool`."""

    def __init__(
        self,
        app: App[Any],
        connection: Connection,
        *,
        options: PoolOptions,
        topics: Sequence[str],
        folder: Path,
        on_ready: Callable[[], None],
    ) -> None:
        self._app = app
        self._connection = connection
        self._options = options
        self._settings = options.settings
        self._names = Names(options.settings.namespace)
        self._topics = list(topics)
        self._folder = folder
        self._on_ready = on_ready
        self._id = f"{secrets.token_hex(3)}"
        self._publisher = Publisher(connection, timeout=options.settings.publish_timeout)
        self._records = Records(connection, self._publisher, self._names)
        self._roster = Roster(options.settings.death)
        self._bookkeeper = Bookkeeper(connection, options.settings, self._roster)
        self._oddities = Oddities(log)
        self._supervisors: list[Supervisor] = []
        self._unready = options.workers
        self._published: dict[str, bytes] = {}
        """Key -> what this pool says of the topic's unique keys."""
        self._failed = False

    async def run(self, stopping: Stopping) -> int:
        """Supervise until told to stop, or until every worker was told to leave."""
        await self._prepare()
        self._supervisors = [self._supervisor(number, stopping) for number in range(self._options.workers)]
        await self._listen()
        async with asyncio.TaskGroup() as group:
            standing = group.create_task(
                stand(
                    self._records,
                    self._id,
                    self._settings.lease,
                    self._bookkeeper.lead,
                    make_room=self._bookkeeper.make_room,
                    write_anew=self._bookkeeper.write_anew,
                ),
                name="election",
            )
            workers = [group.create_task(each.run(), name=f"worker {each.number}") for each in self._supervisors]
            draining = group.create_task(self._drain(stopping))
            publishing = group.create_task(keep_published(self._records, self._published))
            await asyncio.wait(workers)
            standing.cancel()
            draining.cancel()
            publishing.cancel()
        return 1 if self._failed else 0

    def _supervisor(self, number: int, stopping: Stopping) -> Supervisor:
        options = self._options
        assignment = Assignment(
            worker="",
            pool=self._id,
            app=options.app,
            access=options.access,
            slots=options.slots,
            topics=self._topics,
            table="",
            isolated=children(options.workers),
            settings=options.settings,
        )
        return Supervisor(
            number + 1,
            assignment,
            connection=self._connection,
            publisher=self._publisher,
            roster=self._roster,
            next_beat=self._bookkeeper.next_beat,
            folder=self._folder,
            on_ready=self._note_ready,
            on_failed=partial(self._fail, stopping),
        )

    def _fail(self, stopping: Stopping) -> None:
        self._failed = True
        stopping.drain.set()

    def _note_ready(self) -> None:
        self._unready -= 1
        if self._unready == 0:
            self._on_ready()

    async def _prepare(self) -> None:
        await self._bookkeeper.listen()
        await ensure(self._connection, self._names, self._settings)
        await keep_events(self._connection, self._names, self._settings)
        # A pool makes its consumers before it starts its workers. Where there is none yet, no worker was there
        # before this one began to listen, and so none can be unknown.
        found = await consumers(self._connection, self._names)
        self._roster.listening_since = time.monotonic()
        self._roster.idle = not any(delivered or pulls for _, delivered, pulls in found.values())
        if not found:
            self._roster.vouch()
        for topic in self._topics:
            await ensure_consumer(self._connection, self._names, topic, self._settings)
            processor = self._app.processors[topic]
            value = encode_topic(topic_record(topic, processor.unique, processor.topic.type))
            self._published[topic_key(topic)] = value
            await publish(self._records, topic_key(topic), value)

    # --- told to leave -----------------------------------------------------------------------------

    async def _listen(self) -> None:
        """Hear what operators say."""
        try:
            await self._connection.subscribe(self._names.control(LEAVE), self._on_order)
        except PermissionDenied as error:
            log.warning(
                "orders to leave are not heard: the server's rights are of an older Corral", extra={"error": str(error)}
            )

    def _on_order(self, message: Message) -> None:
        # The server's own answers come out on any subject that a question names for the reply, within the account of
        # who asks. They keep their subject, have headers, or are no order.
        if message.subject != self._names.control(LEAVE) or message.headers:
            return
        try:
            order = decode_leave(message.data)
        except Unreadable as error:
            self._oddities.note("an order to leave cannot be read", error=str(error))
            return
        whole = self._id in order.pools
        for each in self._supervisors:
            if whole or each.worker in order.workers:
                each.tell(order.how, order.by)

    async def _drain(self, stopping: Stopping) -> None:
        await stopping.drain.wait()
        log.info("draining", extra={"workers": sum(each.alive for each in self._supervisors)})
        for each in self._supervisors:
            each.drain()
        await stopping.now.wait()
        for each in self._supervisors:
            each.kill()
