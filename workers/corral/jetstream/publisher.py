"""Storing messages, one at a time or thousands in a window, each confirmed by the server.

One subscription takes all acknowledgements; the last token of its subject says for which message.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from corral.errors import (
    ApiError,
    CorralError,
    NoResponder,
    PermissionDenied,
    StorageFull,
    Unconfirmed,
    WrongLastSequence,
)
from corral.jetstream.connection import Connection, Message, Subscription, status_of

_log = logging.getLogger(__name__)

# err_codes: no room on the server (10023 resources, 10028 memory, 10047 disk), no room in the stream (10077).
_FULL = frozenset({10023, 10028, 10047, 10077})
_WRONG_LAST = frozenset({10071, 10164})
# A stream that is just electing its leader does not answer; one that is missing does not either.
_ABSENT_GRACE = 2.0
_ABSENT_WAIT = 0.1
_FULL_WAIT = 0.1  # seconds before the first attempt at a full stream, doubled up to _FULL_WAIT_MAX
_FULL_WAIT_MAX = 1.0


class _Error(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Ack(msgspec.Struct):
    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    error: _Error | None = None


_decode_ack = msgspec.json.Decoder(_Ack).decode


class _Pending(Protocol):
    """Who waits for the acknowledgement of a message."""

    def on_ack(self, token: str, message: Message) -> None: ...

    def on_denied(self, subject: str) -> None: ...


class Publisher:
    """Stores messages in streams. Safe to share between asyncio tasks."""

    def __init__(self, connection: Connection, *, timeout: float = 10.0) -> None:
        self.connection = connection
        self.timeout = timeout
        self._inbox = connection.new_inbox()
        self._skip = len(self._inbox) + 1
        self._numbers = itertools.count(1)
        self._pending: dict[str, _Pending] = {}
        self._subscription: Subscription | None = None
        self._opening = asyncio.Lock()
        self._epoch = 0  # outages so far
        self._settling: set[Window] = set()
        self._forget = (connection.on_denied(self._on_denied), connection.on_reconnect(self._on_reconnect))

    async def store(
        self,
        subject: str,
        payload: bytes,
        *,
        expect: int | None = None,
        ttl: float | None = None,
        message_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """Store one message and return its stream sequence.

        `expect` is the sequence that the last message of this subject must have, 0 for none. `ttl` is in
        seconds, rounded up to whole ones. `message_id` makes the server drop what comes again within two
        minutes: then the first message's sequence is returned.

        Raises:
            WrongLastSequence: the subject's last message is not `expect`.
            StorageFull: no room; nothing was stored.
            NoResponder: no stream takes this subject.
            TooLarge, PermissionDenied: nothing was stored.
            Unconfirmed: no answer within the publisher's `timeout` seconds.
        """
        all_headers = _headers(headers, expect, ttl, message_id)
        deadline = time.monotonic() + self.timeout
        absent_until = min(deadline, time.monotonic() + _ABSENT_GRACE)
        while True:
            reply = await self._store_once(subject, payload, all_headers, deadline)
            if status_of(reply) != "503":
                return _sequence(subject, _decode_ack(reply.data))
            if time.monotonic() > absent_until:
                raise NoResponder(subject)
            await asyncio.sleep(_ABSENT_WAIT)

    def window(self, on_full: Callable[[str], None] | None = None) -> Window:
        """A new window; `on_full(reason)` is called when a stream has no room, each time that begins."""
        return Window(self, on_full)

    async def close(self) -> None:
        """Take no more acknowledgements; who still waits for one runs into the timeout."""
        for forget in self._forget:
            forget()
        if self._subscription is not None:
            await self._subscription.close()

    # --- inside, shared with Window

    async def _store_once(
        self, subject: str, payload: bytes, headers: Mapping[str, str] | None, deadline: float
    ) -> Message:
        single = _Single(subject)
        token = str(next(self._numbers))
        self._pending[token] = single
        try:
            async with asyncio.timeout(max(deadline - time.monotonic(), 0)):
                await self._ready()
                await self.connection.publish(subject, payload, reply=f"{self._inbox}.{token}", headers=headers)
                return await single.future
        except TimeoutError:
            raise Unconfirmed(f"storing a message on {subject}, after {self.timeout:g} s without an answer") from None
        finally:
            self._pending.pop(token, None)

    async def _ready(self) -> None:
        """Subscribe to the acknowledgements, once."""
        if self._subscription is None:
            async with self._opening:
                if self._subscription is None:
                    self._subscription = await self.connection.subscribe(f"{self._inbox}.*", self._on_ack)

    def _on_ack(self, message: Message) -> None:
        token = message.subject[self._skip :]
        pending = self._pending.pop(token, None)
        if pending is not None:
            pending.on_ack(token, message)

    def _on_denied(self, action: str, subject: str) -> None:
        if action == "publish":
            for pending in set(self._pending.values()):
                pending.on_denied(subject)

    def _on_reconnect(self) -> None:
        self._epoch += 1
        for window in self._settling:
            window.on_reconnect()


class _Single:
    """One message that waits for its acknowledgement."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

    def on_ack(self, token: str, message: Message) -> None:
        del token
        if not self.future.done():
            self.future.set_result(message)

    def on_denied(self, subject: str) -> None:
        if self.subject.lower() == subject and not self.future.done():
            self.future.set_exception(PermissionDenied("publish to", self.subject))


class Window:
    """Messages that are stored together: `add` sends each at once, `settle` waits until all are stored.

    Stored at least once: what is not acknowledged in time, or not before an outage, is sent again.
    A window may be used again after `settle`. It serves one asyncio task.
    """

    def __init__(self, publisher: Publisher, on_full: Callable[[str], None] | None) -> None:
        self.count = 0
        """Messages added since the last `settle`."""
        self._publisher = publisher
        self._on_full = on_full
        self._open: dict[str, tuple[str, bytes]] = {}
        self._refused: dict[str, tuple[str, bytes]] = {}
        self._full = False
        self._absent_since: float | None = None
        self._failure: CorralError | None = None
        self._epoch = publisher._epoch
        self._wake = asyncio.Event()

    async def add(self, subject: str, payload: bytes) -> None:
        """Send a message to be stored.

        Raises:
            TooLarge: this message was not sent; the window is as before.
            ApiError, NoResponder, PermissionDenied: an earlier message was refused for good.
        """
        publisher = self._publisher
        if self._failure is not None:
            raise self._failure
        if publisher._subscription is None:
            await publisher._ready()
        if not self._open:
            self._epoch = publisher._epoch
        token = str(next(publisher._numbers))
        self._open[token] = (subject, payload)
        publisher._pending[token] = self
        try:
            await publisher.connection.publish(subject, payload, reply=f"{publisher._inbox}.{token}")
        except CorralError:
            self._drop(token)
            raise
        self.count += 1

    async def settle(self) -> None:
        """Return when every message of this window is stored, however long an outage or a full stream lasts.

        Raises:
            ApiError, NoResponder, PermissionDenied: a message was refused for good; the window is
                given up, and which of its other messages are stored is not known.
        """
        publisher = self._publisher
        publisher._settling.add(self)
        wait = _FULL_WAIT
        try:
            while self._open or self._refused:
                await self._wait_for_acks()
                if not self._refused:
                    continue
                await asyncio.sleep(wait)
                if self._full:  # one message asks whether there is room again
                    self._full = False
                    await self._send_refused(1)
                    await self._wait_for_acks()
                    wait = min(wait * 2, _FULL_WAIT_MAX)
                if not self._full:
                    await self._send_refused(len(self._refused))
            self.count = 0
        except BaseException:
            self.abandon()
            raise
        finally:
            publisher._settling.discard(self)

    def abandon(self) -> None:
        """Wait for no acknowledgement any more; which messages are stored is not known."""
        for token in list(self._open):
            self._drop(token)
        self._refused.clear()
        self._failure = None
        self._absent_since = None
        self.count = 0

    # --- what the publisher tells

    def on_ack(self, token: str, message: Message) -> None:
        entry = self._open.pop(token, None)
        if entry is None:
            return
        # Decoding each acknowledgement would cost as much as receiving it; only refusals are worth it.
        if message.headers is not None or b'"error"' in message.data:
            self._on_refusal(token, entry, message)
        elif self._absent_since is not None:
            self._absent_since = None
        if not self._open:
            self._wake.set()

    def on_denied(self, subject: str) -> None:
        for name, _ in self._open.values():
            if name.lower() == subject:
                self._fail(PermissionDenied("publish to", name))
                return

    def on_reconnect(self) -> None:
        self._wake.set()

    # --- inside

    def _on_refusal(self, token: str, entry: tuple[str, bytes], message: Message) -> None:
        subject = entry[0]
        if status_of(message) == "503":
            now = time.monotonic()
            self._absent_since = self._absent_since or now
            if now - self._absent_since > _ABSENT_GRACE:
                self._fail(NoResponder(subject))
            self._refused[token] = entry
            return
        try:
            _sequence(subject, _decode_ack(message.data))
        except StorageFull as full:
            self._refused[token] = entry
            if not self._full:
                self._full = True
                _log.warning("a stream is full", extra={"stream": full.stream, "reason": full.description})
                if self._on_full is not None:
                    self._on_full(full.description)
        except CorralError as error:
            self._fail(error)

    def _fail(self, error: CorralError) -> None:
        self._failure = self._failure or error
        self._wake.set()

    async def _wait_for_acks(self) -> None:
        """Until nothing is open, sending again what an outage or silence has put in doubt."""
        publisher = self._publisher
        while self._open:
            self._wake.clear()
            before = len(self._open)
            silent = False
            try:
                async with asyncio.timeout(publisher.timeout):
                    await self._wake.wait()
            except TimeoutError:
                silent = len(self._open) == before
            if self._failure is not None:
                break
            if silent or self._epoch != publisher._epoch:
                self._epoch = publisher._epoch
                await self._send(list(self._open))
        if self._failure is not None:
            raise self._failure

    async def _send_refused(self, count: int) -> None:
        tokens = list(itertools.islice(self._refused, count))
        for token in tokens:
            self._open[token] = self._refused.pop(token)
            self._publisher._pending[token] = self
        await self._send(tokens)

    async def _send(self, tokens: list[str]) -> None:
        publisher = self._publisher
        for token in tokens:
            entry = self._open.get(token)
            if entry is not None:  # else acknowledged meanwhile
                await publisher.connection.publish(entry[0], entry[1], reply=f"{publisher._inbox}.{token}")

    def _drop(self, token: str) -> None:
        self._open.pop(token, None)
        self._publisher._pending.pop(token, None)


def _headers(
    headers: Mapping[str, str] | None, expect: int | None, ttl: float | None, message_id: str | None
) -> dict[str, str] | None:
    result = dict(headers or {})
    if expect is not None:
        result["Nats-Expected-Last-Subject-Sequence"] = str(expect)
    if ttl is not None:
        result["Nats-TTL"] = f"{max(1, math.ceil(ttl))}s"
    if message_id is not None:
        result["Nats-Msg-Id"] = message_id
    return result or None


def _sequence(subject: str, ack: _Ack) -> int:
    """The stored message's sequence, or the error that the server answered."""
    error = ack.error
    if error is None:
        return ack.seq
    if error.err_code in _WRONG_LAST:
        raise WrongLastSequence(subject)
    if error.err_code in _FULL:
        raise StorageFull(ack.stream, error.description)
    raise ApiError(error.err_code or error.code, error.description)
