"""What one execution of a task sends: a batch of tasks, confirmed a window at a time.

    send -> sent before? -> Opened (once) -> message published -> window acknowledged -> Sent ... -> finish

`Opened` is stored before the first message, `Sent` after each acknowledged window; both are appended to a log that
belongs to this task alone, and only if nobody else has appended since. So an execution that was taken for dead and
goes on finds its next append refused, and stops. It matters for speed only: the ledger counts right without it.

A million messages never sit in memory: at most one window waits for its acknowledgements while the next one fills.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

from corral.dispatch_log import DispatchLog, ReadLog, Storage
from corral.errors import Interrupted
from corral.events import MOST, Opened, Sent, SentList, layout
from corral.messages import TaskId, encode_task
from corral.resume import Before, Digest, Message, Resume
from corral.settings import Settings
from corral.subjects import Names

BATCH = MOST // 2
"""Messages after which a fan-out goes on in another batch: so many that those who send meanwhile stay below `MOST`."""


class Sender(Storage, Protocol):
    """Where a fan-out stores what it sends: the JetStream publisher."""

    def window(self, on_full: Callable[[str], None] | None = None) -> Window:
        """A new window; `on_full` is called when it finds that there is no room."""
        ...


class Window(Protocol):
    """Messages that are confirmed together."""

    dropped: int
    """Messages that were not stored, because of `give_up`."""

    async def add(self, subject: str, payload: bytes) -> None:
        """Publish a message; it is the window's before this waits for anything."""

    async def settle(self) -> None:
        """Return when every message is stored, or refused after `give_up`."""

    def give_up(self) -> None:
        """Do not wait for room."""

    @property
    def full(self) -> bool:
        """Whether messages wait for room."""
        ...


class _Taken(NamedTuple):
    """A window that is to be confirmed."""

    window: Window
    topics: list[str]
    digest: Digest
    first: int
    end: int
    """Messages of the batch up to the end of this window."""


class FanOut:
    """The sending side of one execution.

    Safe to use from several asyncio tasks of the processor; messages are numbered in the order in which `send` is
    called. `resumed` says that the task may have been executed before: then its log is read first, and what was sent
    before is not sent again. `before` is what it sent before the last retry of its run. `on_waiting` is told when
    messages wait for room in the queue, and when they no longer do.
    """

    def __init__(
        self,
        *,
        run_id: str,
        task: TaskId,
        round: int,
        resumed: bool,
        before: Before | None = None,
        names: Names,
        sender: Sender,
        read_log: ReadLog,
        nonce: Callable[[], str],
        settings: Settings,
        on_waiting: Callable[[bool], None] = lambda waiting: None,  # noqa: ARG005
    ) -> None:
        self._run_id = run_id
        self._task = task
        self._round = round
        self._resumed = resumed
        self._before = before or Before()
        self._restored: Window | None = None
        self._restored_count = 0
        self._resume: Resume | None = None
        self._keep: SentList = []
        self._names = names
        self._sender = sender
        self._nonce = nonce
        self._settings = settings
        self._on_waiting = on_waiting
        self._waiting = False
        self._lacking = False
        self._given_up: Literal["stop", "hand back"] | None = None
        self._log = DispatchLog(names.dispatch_log(run_id, *task), run_id, sender, read_log)
        self._batch = 0
        self._count = 0
        self._lock = asyncio.Lock()
        self._begun = asyncio.Event()
        self._full = asyncio.Event()
        self._room = asyncio.Event()
        self._closing = False
        self._opening: asyncio.Task[None] | None = None
        self._confirming: asyncio.Task[None] | None = None
        self._settling: Window | None = None
        self._new_window()

    @property
    def sent(self) -> SentList:
        """What this execution has sent, as its end lists it."""
        keep = self._keep if self._resume is None else self._resume.keep
        return [*keep, (self._batch, self._count)] if self._batch else keep

    async def send(self, topic: str, body: bytes) -> None:
        """Publish one task of this run; `body` is JSON.

        Returns when the message is on its way: that it is stored is confirmed a window at a time, and the execution
        does not end before. Waits while the server has no room.

        Raises:
            Superseded: another execution of this task has taken over.
            Interrupted: it waited for room, and is not to go on.
        """
        while len(self._topics) >= self._settings.window:
            await self._wait_for_room()
        async with self._lock:
            if self._resumed:
                await self._begin_to_resume()
            if self._resume is None:
                await self._really_send(topic, body)
            else:
                await self._go_on(self._resume, self._resume.offer(topic, body))

    async def finish(self, *, ended: bool = True) -> SentList:
        """Wait until all that was sent is stored and said; the list of it.

        If the task has not `ended`, but runs again later, what was held back for comparison is left to that execution.

        Raises:
            Superseded: another execution of this task has taken over.
            Interrupted: it is handed back, and not all is stored.
        """
        if self._resume is not None:
            async with self._lock:
                if not ended:
                    self._resume.forget()
                await self._go_on(self._resume, self._resume.rest())
        if self._restored is not None:
            await self._restored.settle()
            self._lacking = self._given_up == "hand back" and self._restored.dropped > 0
        self._closing = True
        self._begun.set()
        self._full.set()
        if self._confirming is not None:
            await asyncio.shield(self._confirming)
        if self._lacking:
            raise Interrupted
        return self.sent

    def give_up(self, why: Literal["stop", "hand back"]) -> None:
        """Wait for room no longer; a task that is to `stop` counts what it could not store as sent, and as removed."""
        self._given_up = why
        for window in (self._settling, self._window, self._restored):
            if window is not None:
                window.give_up()
        self._room.set()

    # --- how ---------------------------------------------------------------------------------------

    async def _really_send(self, topic: str, body: bytes) -> None:
        if self._batch == 0:
            # Shielded: a batch that is opened while this call is cancelled must be the one that the next call uses.
            self._opening = self._opening or asyncio.create_task(self._open())
            await asyncio.shield(self._opening)
        # From here to the first suspension in `add` the message gets its number and its place in the window: cancelled
        # after that, it is still sent when the window settles, so that a number never stands for nothing.
        ordinal = self._count
        self._count += 1
        self._topics.append(topic)
        self._digest.add(topic, body)
        self._begun.set()
        if len(self._topics) >= self._settings.window:
            self._full.set()
        await self._window.add(
            self._names.task(self._run_id, topic), encode_task((self._batch, ordinal), self._round, body)
        )

    async def _begin_to_resume(self) -> None:
        self._resume = Resume(await self._log.read(), self._round, self._before)
        self._resumed = False

    async def _go_on(self, resume: Resume, messages: list[Message]) -> None:
        """Send what the comparison lets through: first what was held back."""
        if resume.over:
            self._keep, self._resume = resume.keep, None
        for message in messages:
            if message.task is None:
                await self._really_send(message.topic, message.body)
            else:
                await self._bring_back(message.topic, message.task, message.body)

    async def _bring_back(self, topic: str, task: TaskId, body: bytes) -> None:
        """Send a message again under its old identity: it belongs to a batch that was said already."""
        if self._restored is None:
            self._restored = self._make_window()
        await self._restored.add(self._names.task(self._run_id, topic), encode_task(task, self._round, body))
        self._restored_count += 1
        if self._restored_count % self._settings.window == 0:
            await self._restored.settle()

    async def _open(self) -> None:
        opened = Opened(parent=self._task, round=self._round, nonce=self._nonce(), keep=self._keep)
        self._batch = await self._log.append(opened)
        self._confirming = asyncio.create_task(self._confirm(), name=f"confirm {self._run_id} {self._task}")

    def _make_window(self) -> Window:
        window = self._sender.window(self._on_full)
        if self._given_up is not None:
            window.give_up()
        return window

    def _on_full(self, reason: str) -> None:
        del reason
        if not self._waiting:
            self._waiting = True
            self._on_waiting(True)  # noqa: FBT003  # there is but one

    def _on_stored(self) -> None:
        if self._waiting and not self._window.full:
            self._waiting = False
            self._on_waiting(False)  # noqa: FBT003

    def _new_window(self) -> None:
        self._window = self._make_window()
        self._first = self._count
        self._topics: list[str] = []
        self._digest = Digest()
        self._begun.clear()
        self._full.clear()
        self._room.set()

    async def _wait_for_room(self) -> None:
        """Until the full window is taken, or confirming has failed. Those who wait may overfill the next one."""
        assert self._confirming is not None
        self._room.clear()
        room = asyncio.ensure_future(self._room.wait())
        try:
            await asyncio.wait({room, self._confirming}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            room.cancel()
        if self._confirming.done():
            self._confirming.result()
        if self._given_up is not None:
            raise Interrupted

    async def _confirm(self) -> None:
        """Take window after window: when it is full, or old enough, or the last one."""
        while True:
            await self._begun.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.window_delay):
                    await self._full.wait()
            async with self._lock:
                taken = self._take_window()
            if not taken.topics:
                if self._closing:
                    return
                continue
            going_on = await self._confirm_window(taken)
            if going_on and self._count >= BATCH:
                going_on = await self._change_batch()
            if not going_on:
                return

    def _take_window(self) -> _Taken:
        """What was sent since the last one; the next begins empty."""
        taken = _Taken(self._window, self._topics, self._digest, self._first, self._count)
        self._new_window()
        if self._closing:
            self._begun.set()
            self._full.set()
        return taken

    async def _confirm_window(self, taken: _Taken) -> bool:
        """Wait until it is stored, and say so; False if it was given up."""
        self._settling = taken.window
        await taken.window.settle()
        self._settling = None
        self._on_stored()
        if self._given_up == "hand back" and taken.window.dropped:
            self._lacking = True
            return False  # whoever executes it next sends the window again
        names, places = layout(taken.topics)
        sent = Sent(
            batch=self._batch,
            first=taken.first,
            count=taken.end,
            topics=names,
            layout=places,
            digest=taken.digest.text(),
            nonce=self._nonce(),
        )
        await self._log.append(sent)
        return True

    async def _change_batch(self) -> bool:
        """Go on in another batch, while whoever sends waits; False if this one was given up."""
        async with self._lock:
            taken = self._take_window()
            if taken.topics and not await self._confirm_window(taken):
                return False
            keep = self.sent
            opened = Opened(parent=self._task, round=self._round, nonce=self._nonce(), keep=keep)
            self._batch = await self._log.append(opened)
            self._keep, self._count, self._first = keep, 0, 0
        return True
