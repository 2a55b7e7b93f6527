"""A pool: the supervisor of one machine's workers, and a candidate for bookkeeper.

It starts worker processes, replaces the ones that die, says which tasks died with them, and drains them when it is
told to stop. An operator can tell it to stop, too, or single workers to leave for good.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from corral import events
from corral.bookkeeper import Bookkeeper
from corral.credentials import Access
from corral.election import stand
from corral.errors import AppNotFound, Conflict, CorralError, PermissionDenied, Unreadable
from corral.isolation import children
from corral.jetstream.connection import Connection, Message
from corral.jetstream.publisher import Publisher
from corral.jetstream.puller import Delivery
from corral.jetstream.records import Records
from corral.jetstream.streams import ensure, ensure_consumer
from corral.jetstream.topology import consumers
from corral.keys import encode_topic, topic_record
from corral.leaving import How, decode_leave
from corral.loader import load_app
from corral.oddities import Oddities
from corral.processor import App
from corral.roles import LEAVE
from corral.roster import Roster
from corral.runs import encode
from corral.settings import Settings
from corral.slottable import Held, read
from corral.subjects import Names, topic_key
from corral.worker import LAST_WORDS
from corral.worker_process import AT_ONCE, NO_APP, Assignment

log = logging.getLogger(__name__)

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 30.0
"""Seconds before a worker that died is replaced; doubled each time that it dies young."""
YOUNG = 10.0
"""Seconds that a worker has to live for its death to be an accident."""


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
    """The supervisor. Made and run by `run_pool`."""

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
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._workers: dict[int, str] = {}
        """The ids of the workers that there are, by number."""
        self._told: dict[int, How] = {}
        """Which of them were told to leave for good."""
        self._oddities = Oddities(log)
        self._ready: set[int] = set()
        self._failed = False

    async def run(self, stopping: Stopping) -> int:
        """Supervise until told to stop, or until every worker was told to leave."""
        await self._prepare()
        await self._listen(stopping)
        async with asyncio.TaskGroup() as group:
            standing = group.create_task(
                stand(
                    self._records,
                    self._id,
                    self._settings.lease,
                    self._bookkeeper.lead,
                    make_room=self._bookkeeper.make_room,
                ),
                name="election",
            )
            workers = [
                group.create_task(self._supervise(number, stopping), name=f"worker {number}")
                for number in range(self._options.workers)
            ]
            draining = group.create_task(self._drain(stopping))
            await asyncio.wait(workers)
            standing.cancel()
            draining.cancel()
        return 1 if self._failed else 0

    async def _prepare(self) -> None:
        await self._bookkeeper.listen()
        await ensure(self._connection, self._names, self._settings)
        # A pool makes its consumers before it starts its workers. Where there is none yet, no worker was there
        # before this one began to listen, and so none can be unknown.
        found = await consumers(self._connection, self._names)
        self._roster.listening_since = time.monotonic()
        self._roster.idle = not any(delivered or pulls for _, delivered, pulls in found.values())
        if not found:
            self._roster.vouch()
        for topic in self._topics:
            await ensure_consumer(self._connection, self._names, topic, self._settings)
            await self._publish(topic)

    async def _publish(self, topic: str) -> None:
        """Say what this pool knows of the topic's unique keys."""
        processor = self._app.processors[topic]
        value = encode_topic(topic_record(topic, processor.unique, processor.topic.type))
        key = topic_key(topic)
        for _ in range(5):
            entry = await self._records.get(key, leader=True)
            try:
                if entry is None:
                    await self._records.create(key, value)
                elif entry.value != value:
                    await self._records.update(key, value, entry.revision)
            except Conflict:
                continue
            return

    # --- workers -----------------------------------------------------------------------------------

    async def _supervise(self, number: int, stopping: Stopping) -> None:
        """Keep one worker alive until the pool stops."""
        pause, generation = FIRST_PAUSE, 0
        while not stopping.drain.is_set() and number not in self._told:
            generation += 1
            worker = f"{self._id}-{number + 1}" + (f"-{generation}" if generation > 1 else "")
            table = self._folder / f"{worker}.slots"
            born = time.monotonic()
            code = await self._run_worker(number, worker, table, stopping)
            held = read(table)
            table.unlink(missing_ok=True)
            if code == 0 and (stopping.drain.is_set() or number in self._told):
                return
            try:
                async with asyncio.timeout(self._settings.publish_timeout):
                    await self._mourn(worker, code, held)
            except (
                TimeoutError
            ):  # without a server nobody hears it, and a pool that is told to stop must not wait for one
                log.warning("a death was not recorded", extra={"worker": worker, "error": "the server is away"})
            if stopping.drain.is_set() or number in self._told:
                return
            if code == NO_APP:
                self._failed = True
                stopping.drain.set()
                return
            pause = FIRST_PAUSE if time.monotonic() - born > YOUNG else min(pause * 2, LONGEST_PAUSE)
            log.warning(
                "a worker died and is replaced",
                extra={"worker": worker, "reason": _reason(code), "tasks": len(held), "pause": f"{pause:.1f} s"},
            )
            try:
                async with asyncio.timeout(pause):
                    await stopping.drain.wait()
            except TimeoutError:
                continue

    async def _run_worker(self, number: int, worker: str, table: Path, stopping: Stopping) -> int:
        assignment = Assignment(
            worker=worker,
            pool=self._id,
            app=self._options.app,
            access=self._options.access,
            slots=self._options.slots,
            topics=self._topics,
            table=str(table),
            isolated=children(self._options.workers),
            settings=self._settings,
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "corral.worker_process",
            stdin=asyncio.subprocess.PIPE,
            # Out of reach of the terminal's Ctrl-C, which is for the pool.
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self._processes[number], self._workers[number] = process, worker
        if stopping.drain.is_set():  # said while the process was being made
            _send(process, signal.SIGKILL if stopping.now.is_set() else signal.SIGTERM)
        watching = asyncio.create_task(self._watch(number, worker, process))
        try:
            assert process.stdin is not None
            process.stdin.write(msgspec.json.encode(assignment) + b"\n")
            return await process.wait()
        finally:
            watching.cancel()
            del self._processes[number], self._workers[number]
            if process.returncode is None:
                process.kill()

    async def _watch(self, number: int, worker: str, process: asyncio.subprocess.Process) -> None:
        """Note when the worker has begun; end it when a processor blocks its loop for too long."""
        silence = max(self._settings.death, self._settings.blocked_limit)
        last, heard_at = None, time.monotonic()
        while True:
            beat = self._roster.beat(worker)
            if beat is not None and beat is not last:
                last, heard_at = beat, time.monotonic()
                self._note_ready(number)
                if beat.blocked > self._settings.blocked_limit:
                    log.error("a blocked worker is ended", extra={"worker": worker, "by": beat.blocked_by})
                    _send(process, signal.SIGKILL)
                    return
            # Not even its lifeline speaks: something holds the interpreter, or the process is stopped.
            if last is not None and time.monotonic() - heard_at > silence and self._connection.connected:
                log.error("a silent worker is ended", extra={"worker": worker, "seconds": round(silence, 1)})
                _send(process, signal.SIGKILL)
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.beat * 2):
                    await self._bookkeeper.next_beat()

    def _note_ready(self, number: int) -> None:
        if number in self._ready:
            return
        self._ready.add(number)
        if len(self._ready) == self._options.workers:
            self._on_ready()

    async def _mourn(self, worker: str, code: int, held: Sequence[Held]) -> None:
        """Say that a worker is dead and which tasks died with it, and give them back to the queue at once.

        Else the one would be known after the death time-out, and the other done after ack_wait.
        """
        if (beat := self._roster.beat(worker)) is not None:
            last = msgspec.structs.replace(beat, running={}, roots=[], stopping=[], leaving=True)
            await self._connection.publish(self._names.beat(worker), encode(last))
        runs: dict[str, list[Held]] = {}
        for each in held:
            runs.setdefault(each.run_id, []).append(each)
        for run_id, lost in runs.items():
            event = events.Crashed(worker=worker, tasks=[each.task for each in lost], reason=_reason(code))
            try:
                await self._publisher.store(self._names.event(run_id, events.kind(event)), events.encode_event(event))
                for each in lost:
                    if each.reply:
                        await Delivery(self._connection, "", b"", each.reply).nak()
            except CorralError as error:
                log.warning("a death was not recorded", extra={"worker": worker, "run": run_id, "error": str(error)})

    # --- told to leave -----------------------------------------------------------------------------

    async def _listen(self, stopping: Stopping) -> None:
        """Hear what operators say."""
        try:
            await self._connection.subscribe(
                self._names.control(LEAVE), lambda message: self._on_order(message, stopping)
            )
        except PermissionDenied as error:
            log.warning(
                "orders to leave are not heard: the server's rights are of an older Corral", extra={"error": str(error)}
            )

    def _on_order(self, message: Message, stopping: Stopping) -> None:
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
        told = [number for number, worker in self._workers.items() if whole or worker in order.workers]
        for number in told:
            self._tell(number, order.how, order.by)
        if whole:
            stopping.drain.set()

    def _tell(self, number: int, how: How, by: str) -> None:
        """A worker is to leave, and nobody to take its place. Said again, or drained when it stops: nothing new."""
        if self._told.get(number) in (how, "stop"):
            return
        self._told[number] = how
        worker, process = self._workers[number], self._processes[number]
        log.info("a worker is told to leave", extra={"worker": worker, "how": how, "by": by[:200]})
        if how == "drain":
            _send(process, signal.SIGTERM)
            return
        _send(process, AT_ONCE)
        # Where a processor blocks its loop, it does not even learn of it.
        patience = LAST_WORDS + self._settings.kill_grace
        asyncio.get_running_loop().call_later(patience, _send, process, signal.SIGKILL)

    async def _drain(self, stopping: Stopping) -> None:
        await stopping.drain.wait()
        log.info("draining", extra={"workers": len(self._processes)})
        self._signal(signal.SIGTERM)
        await stopping.now.wait()
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes.values():
            _send(process, number)


def _send(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if process.returncode is None:
        # Not by the Process: it would reap the child by itself, and asyncio would never learn how it ended.
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def _reason(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
