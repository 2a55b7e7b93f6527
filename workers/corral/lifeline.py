"""The lifeline of a worker: a thread with a connection of its own, which goes on while a processor blocks the loop.

It sends heartbeats and signs of life for what takes long, follows the markers, and says when and by what the loop is
blocked. What it learns it hands to the worker's loop, and what it tells it reads from values that the loop keeps.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable

import msgspec

from corral.credentials import Access
from corral.errors import CorralError
from corral.events import Ended
from corral.jetstream.connection import Connection, Message
from corral.jetstream.publisher import Publisher
from corral.jetstream.puller import Delivery
from corral.jetstream.reader import Reader, Stored
from corral.jetstream.records import Records
from corral.jetstream.topology import last_sequence
from corral.last_resort import LastResort
from corral.questions import ROLL_CALL
from corral.runs import Beat, encode
from corral.settings import Settings
from corral.subjects import Names

log = logging.getLogger(__name__)

TICK = 0.25
"""Seconds between two signs of life of the loop itself."""
LAST_BEAT = 2.0
"""Seconds to wait for a connection for the last heartbeat."""
BLOCKED = 1.0
"""Seconds without one after which the loop counts as blocked."""


class Lifeline:
    """Made and used in the worker's loop; `describe`, `waiting` and `stuck` are called in the thread.

    `describe` makes a heartbeat; `waiting` gives the deliveries that need a sign of life; `on_keys` gets what is stored
    under the markers' keys, in the loop, and `on_loaded` the bucket's revision up to which all has been given to it;
    `doing` names what an asyncio task of the loop works on, and `stuck` says what does not stop (see `LastResort`).
    """

    def __init__(
        self,
        access: Access,
        *,
        worker_id: str,
        settings: Settings,
        describe: Callable[[], Beat],
        waiting: Callable[[], list[Delivery]],
        on_keys: Callable[[list[Stored]], None],
        on_loaded: Callable[[int], None],
        doing: Callable[[asyncio.Task[object] | None], str],
        stuck: Callable[[str, int], Ended | None],
    ) -> None:
        self._access = access
        self._worker_id = worker_id
        self._settings = settings
        self._shared = settings.shared()
        self._names = Names(settings.namespace)
        self._describe = describe
        self._waiting = waiting
        self._on_keys = on_keys
        self._on_loaded = on_loaded
        self._doing = doing
        self._stuck = stuck
        self._main = asyncio.get_running_loop()
        self._main_thread = threading.get_ident()
        self._ready: asyncio.Future[None] = self._main.create_future()
        self.ended: asyncio.Future[None] = self._main.create_future()
        """Done when the thread has ended; with its exception if it failed."""
        self._seen = time.monotonic()
        self._blocked_since: float | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._beat_now: asyncio.Event | None = None
        self._leave: asyncio.Event | None = None

    # --- in the worker's loop ----------------------------------------------------------------------

    async def start(self) -> None:
        """Return when all markers are known and the first heartbeat is out.

        Raises:
            NoServer, PermissionDenied: as `Connection.open`.
        """
        self._thread = threading.Thread(target=self._in_thread, daemon=True, name="lifeline")
        self._tick()
        self._thread.start()
        await asyncio.wait({self._ready, self.ended}, return_when=asyncio.FIRST_COMPLETED)
        if self.ended.done():
            self.ended.result()

    def beat_soon(self) -> None:
        """Send a heartbeat now, instead of when the next one is due."""
        if self._loop is not None and self._beat_now is not None and not self.ended.done():
            self._loop.call_soon_threadsafe(self._beat_now.set)

    async def stop(self) -> None:
        """Send the last heartbeat, and end."""
        if self._loop is not None and self._leave is not None and not self.ended.done():
            self._loop.call_soon_threadsafe(self._leave.set)
            await self.ended

    def _tick(self) -> None:
        self._seen = time.monotonic()
        if not self.ended.done():
            self._main.call_later(TICK, self._tick)

    # --- in the thread -----------------------------------------------------------------------------

    def _in_thread(self) -> None:
        failure: BaseException | None = None
        try:
            asyncio.run(self._run())
        except BaseException as error:  # noqa: BLE001  # it is raised where the worker waits for this thread
            failure = error
        self._to_main(self._end, failure)

    def _end(self, failure: BaseException | None) -> None:
        if self.ended.done():
            return
        if failure is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(failure)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._beat_now, self._leave = asyncio.Event(), asyncio.Event()
        connection = await Connection.open(self._access, name=f"corral lifeline {self._worker_id}")
        publisher = Publisher(connection, timeout=self._settings.publish_timeout)
        resort = LastResort(publisher, self._names, self._stuck, lambda: self._blockage()[0] > 0)
        try:
            revision = await last_sequence(connection, self._names.bucket_stream)
            reader = Records(connection, publisher, self._names).watch("interrupt.>")
            following = asyncio.create_task(self._follow(reader, resort))
            loaded = asyncio.create_task(reader.caught_up.wait())
            await asyncio.wait({following, loaded}, return_when=asyncio.FIRST_COMPLETED)
            self._to_main(self._on_loaded, revision)
            # Heard before the first pull: who ends runs must know of every worker that may hold a task.
            await self._beat(connection)
            await connection.subscribe(self._names.control(ROLL_CALL), self._called)
            await connection.flush()
            self._to_main(self._set_ready)
            tasks = [
                following,
                asyncio.create_task(self._beats(connection, self._beat_now)),
                asyncio.create_task(self._signs_of_life(connection)),
            ]
            await self._until_left(tasks, self._leave)
            with contextlib.suppress(TimeoutError):  # without a server nobody hears it
                async with asyncio.timeout(LAST_BEAT):
                    await self._beat(connection, leaving=True)
                    await connection.flush()
        finally:
            resort.close()
            await publisher.close()
            await connection.close()

    def _called(self, message: Message) -> None:
        """Somebody asks all workers to say that they live."""
        # The server delivers under any reply subject that somebody names; then the message keeps its own subject.
        if message.subject == self._names.control(ROLL_CALL) and self._beat_now is not None:
            self._beat_now.set()

    async def _until_left(self, tasks: list[asyncio.Task[None]], leave: asyncio.Event) -> None:
        """Return when the worker leaves; raise what one of the tasks fails with."""
        leaving = asyncio.create_task(leave.wait())
        await asyncio.wait({leaving, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
            task.cancel()
        leaving.cancel()

    def _set_ready(self) -> None:
        if not self._ready.done():
            self._ready.set_result(None)

    def _to_main(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            self._main.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            return  # the worker's loop is closed: nobody is there to hear it

    async def _follow(self, reader: Reader, resort: LastResort) -> None:
        async for batch in reader:
            self._to_main(self._on_keys, batch)
            resort.see(batch)

    async def _beats(self, connection: Connection, now: asyncio.Event) -> None:
        while True:
            try:
                async with asyncio.timeout(self._settings.beat):
                    await now.wait()
            except TimeoutError:
                pass
            now.clear()
            await self._beat(connection)

    async def _beat(self, connection: Connection, *, leaving: bool = False) -> None:
        blocked, by = self._blockage()
        beat = msgspec.structs.replace(
            self._describe(),
            leaving=leaving,
            blocked=blocked,
            blocked_by=by,
            at=time.time(),
            settings=self._shared,
        )
        await connection.publish(self._names.beat(self._worker_id), encode(beat))

    async def _signs_of_life(self, connection: Connection) -> None:
        """Tell the server of what takes long, so that it does not give it to another worker."""
        while True:
            await asyncio.sleep(self._settings.ack_wait / 3)
            for delivery in self._waiting():
                if delivery.handed_back:  # meanwhile: the server would take ack_wait for its delay
                    continue
                try:
                    await Delivery(connection, delivery.subject, b"", delivery.reply).progress()
                except CorralError as error:
                    log.warning("a sign of life was not sent", extra={"error": str(error)})

    # --- the blocked loop --------------------------------------------------------------------------

    def _blockage(self) -> tuple[float, str]:
        """For how many seconds the worker's loop has been blocked, and by what; logged once, with the stack."""
        blocked = time.monotonic() - self._seen
        if blocked < BLOCKED:
            if self._blocked_since is not None:
                log.warning("the loop goes on", extra={"worker": self._worker_id})
            self._blocked_since = None
            return 0.0, ""
        by = self._doing(asyncio.tasks.current_task(self._main))
        if self._blocked_since is None:
            self._blocked_since = self._seen
            frame = sys._current_frames().get(self._main_thread)  # noqa: SLF001  # there is no other way to see it
            stack = "".join(traceback.format_stack(frame)[-8:]) if frame else ""
            log.warning(
                "the loop is blocked: nothing else of this worker moves\n%s",
                stack,
                extra={"worker": self._worker_id, "by": by, "seconds": round(blocked, 1)},
            )
        return round(blocked, 1), by
