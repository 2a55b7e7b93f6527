"""Thousands of messages that are stored together, without a future or a task for each."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Callable

from corral.errors import ApiError, CorralError, NoResponder, PermissionDenied, StorageFull
from corral.jetstream.acks import Acks, sequence_of
from corral.jetstream.connection import Connection
from corral.jetstream.subscription import Message, status_of

_log = logging.getLogger(__name__)

# A stream that is just electing its leader does not answer; one that is missing does not either.
ABSENT_GRACE = 2.0
_REFUSED_WAIT = 0.1  # seconds before a refused message is sent again, doubled up to _REFUSED_WAIT_MAX
_REFUSED_WAIT_MAX = 1.0


class Window:
    """Messages that are stored together: `add` sends each at once, `settle` waits until all are stored.

    Stored at least once: what is not acknowledged in time, or not before an outage, is sent again.
    A window may be used again after `settle`. It serves one asyncio task. Made by `Publisher.window`.
    """

    def __init__(
        self, connection: Connection, acks: Acks, *, timeout: float, on_full: Callable[[str], None] | None
    ) -> None:
        self.count = 0
        """Messages added since the last `settle`."""
        self.dropped = 0
        """Messages that are not stored, because of `give_up`."""
        self._connection = connection
        self._acks = acks
        self._timeout = timeout
        self._on_full = on_full
        self._open: dict[str, tuple[str, bytes]] = {}  # sent and not acknowledged, by token
        self._refused: dict[str, tuple[str, bytes]] = {}  # to be sent again
        self._full = False
        self._absent_since: float | None = None
        self._failure: CorralError | None = None
        self._given_up = asyncio.Event()
        self._outages = 0  # how many there had been when the open ones were sent
        self._wake = asyncio.Event()

    async def add(self, subject: str, payload: bytes) -> None:
        """Send a message to be stored.

        Raises:
            TooLarge: this message was not sent; the window is as before.
            ApiError, NoResponder, PermissionDenied: an earlier message was refused for good.
        """
        if self._failure is not None:
            raise self._failure
        acks = self._acks
        if not acks.open:
            await acks.ready()
        if not self._open:
            self._outages = acks.outages
        token = str(next(acks.tokens))
        self._open[token] = (subject, payload)
        acks.waiting[token] = self
        try:
            await self._connection.publish(subject, payload, reply=acks.prefix + token)
        except CorralError:
            self._open.pop(token, None)
            acks.waiting.pop(token, None)
            raise
        self.count += 1

    async def settle(self) -> None:
        """Return when every message of this window is stored, however long an outage or a full stream lasts.

        What a cluster without a leader refuses is sent again too. After `give_up` it returns when every message is
        stored or refused.

        Raises:
            ApiError, NoResponder, PermissionDenied: a message was refused for good; the window is
                given up, and which of its other messages are stored is not known.
        """
        wait = _REFUSED_WAIT
        try:
            await self._wait_for_acks()
            while self._refused and not self._given_up.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._given_up.wait()
                        break
                wait = min(wait * 2, _REFUSED_WAIT_MAX)
                await self._send_refused()
        except BaseException:
            self.abandon()
            raise
        self.dropped += len(self._refused)
        self._refused.clear()
        self.count = 0

    def give_up(self) -> None:
        """Let `settle` return although messages are refused for now. These will never be stored."""
        self._given_up.set()

    @property
    def full(self) -> bool:
        """Whether the last answer was that there is no room."""
        return self._full

    def abandon(self) -> None:
        """Wait for no acknowledgement any more; which messages are stored is not known."""
        for token in self._open:
            self._acks.waiting.pop(token, None)
        self._open.clear()
        self._refused.clear()
        self._full = False
        self._absent_since = None
        self._failure = None
        self.count = 0

    # --- told by Acks

    def on_ack(self, token: str, message: Message) -> None:
        """One message less to wait for; or it was refused."""
        entry = self._open.pop(token, None)
        if entry is None:
            return
        # Decoding every acknowledgement would cost as much as receiving it; only refusals need it.
        if message.headers is not None or b'"error"' in message.data:
            self._on_refusal(token, entry, message)
        else:
            self._absent_since = None
        if not self._open:
            self._wake.set()

    def on_denied(self, subject: str) -> None:
        """The server refuses messages on `subject`, which is in lower case."""
        for name, _ in self._open.values():
            if name.lower() == subject:
                self._fail(PermissionDenied("publish to", name))
                return

    def on_reconnect(self) -> None:
        """What is open may be lost."""
        self._wake.set()

    # --- inside

    def _on_refusal(self, token: str, entry: tuple[str, bytes], message: Message) -> None:
        if status_of(message) == "503":
            now = time.monotonic()
            self._absent_since = self._absent_since or now
            if now - self._absent_since > ABSENT_GRACE:
                self._fail(NoResponder(entry[0]))
            self._refused[token] = entry
            return
        self._absent_since = None
        try:
            sequence_of(entry[0], message.data)
        except StorageFull as full:
            self._refused[token] = entry
            if not self._full:
                self._full = True
                _log.debug("a stream is full", extra={"stream": full.stream, "reason": full.description})
                if self._on_full is not None:
                    self._on_full(full.description)
        except CorralError as error:
            if isinstance(error, ApiError) and error.passes:
                self._refused[token] = entry  # a cluster misses a node or a leader
            else:
                self._fail(error)

    def _fail(self, error: CorralError) -> None:
        self._failure = self._failure or error
        self._wake.set()

    async def _wait_for_acks(self) -> None:
        """Until nothing is open, sending again what an outage or silence has put in doubt."""
        while self._open:
            self._wake.clear()
            before = len(self._open)
            silent = False
            if self._failure is None and self._outages == self._acks.outages:
                try:
                    async with asyncio.timeout(self._timeout):
                        await self._wake.wait()
                except TimeoutError:
                    silent = len(self._open) == before
            if self._failure is not None:
                break
            if silent or self._outages != self._acks.outages:
                self._outages = self._acks.outages
                await self._send(list(self._open))
        if self._failure is not None:
            raise self._failure

    async def _send_refused(self) -> None:
        """First one, which finds out whether there is room again, and only then the rest."""
        if await self._send_again(1):
            self._full = False
            await self._send_again(len(self._refused))

    async def _send_again(self, count: int) -> bool:
        """Whether all `count` were stored."""
        tokens = list(itertools.islice(self._refused, count))
        for token in tokens:
            self._open[token] = self._refused.pop(token)
            self._acks.waiting[token] = self
        await self._send(tokens)
        await self._wait_for_acks()
        return not any(token in self._refused for token in tokens)

    async def _send(self, tokens: list[str]) -> None:
        for token in tokens:
            entry = self._open.get(token)
            if entry is not None:  # else it is acknowledged meanwhile
                await self._connection.publish(entry[0], entry[1], reply=self._acks.prefix + token)
