"""Storing messages, one at a time or thousands in a window, each confirmed by the server."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping

from corral.errors import ApiError, NoResponder, PermissionDenied, Unconfirmed
from corral.jetstream.acks import Acks, sequence_of
from corral.jetstream.connection import UNAVAILABLE_WAIT, Connection
from corral.jetstream.subscription import Message, status_of
from corral.jetstream.window import ABSENT_GRACE, Window

__all__ = ["Publisher", "Window"]

_ABSENT_WAIT = 0.1  # seconds between two attempts at a stream that does not answer


class Publisher:
    """Stores messages in streams; safe to share between asyncio tasks. `timeout` is in seconds."""

    def __init__(self, connection: Connection, *, timeout: float = 10.0) -> None:
        self.timeout = timeout
        self._connection = connection
        self._acks = Acks(connection)

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
        seconds, rounded up to whole ones. Of what comes with the same `message_id` within two minutes
        only the first is stored, and its sequence returned.

        Raises:
            WrongLastSequence: the subject's last message is not `expect`.
            StorageFull: no room; nothing was stored.
            NoResponder: no stream takes this subject.
            TooLarge, PermissionDenied: nothing was stored.
            Unconfirmed: no answer within `timeout` seconds; it may be stored or not.
        """
        all_headers = _headers(headers, expect, ttl, message_id)
        deadline = time.monotonic() + self.timeout
        absent_since: float | None = None
        while True:
            reply = await self._store_once(subject, payload, all_headers, deadline)
            if status_of(reply) != "503":
                try:
                    return sequence_of(subject, reply.data)
                except ApiError as refused:
                    if not refused.passes:
                        raise
                    if time.monotonic() + UNAVAILABLE_WAIT > deadline:
                        raise Unconfirmed(f"storing a message on {subject}, after a time in which {refused}") from None
                absent_since = None
                await asyncio.sleep(UNAVAILABLE_WAIT)
                continue
            now = time.monotonic()
            absent_since = absent_since or now
            if now > min(deadline, absent_since + ABSENT_GRACE):
                raise NoResponder(subject)
            await asyncio.sleep(_ABSENT_WAIT)

    def window(self, on_full: Callable[[str], None] | None = None) -> Window:
        """A new window; `on_full(reason)` is called whenever a stream is found to have no room."""
        return Window(self._connection, self._acks, timeout=self.timeout, on_full=on_full)

    async def close(self) -> None:
        """Receive no more acknowledgements; who still waits for one runs into the timeout."""
        await self._acks.close()

    async def _store_once(
        self, subject: str, payload: bytes, headers: Mapping[str, str] | None, deadline: float
    ) -> Message:
        acks = self._acks
        token = str(next(acks.tokens))
        single = _Single(subject)
        try:
            async with asyncio.timeout(max(deadline - time.monotonic(), 0)):
                if not acks.open:
                    await acks.ready()
                acks.waiting[token] = single
                await self._connection.publish(subject, payload, reply=f"{acks.prefix}{token}", headers=headers)
                return await single.future
        except TimeoutError:
            raise Unconfirmed(f"storing a message on {subject}, after {self.timeout:g} s without an answer") from None
        finally:
            acks.waiting.pop(token, None)


class _Single:
    """One message that waits for its acknowledgement."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

    def on_ack(self, token: str, message: Message) -> None:  # noqa: ARG002 (there is but one)
        if not self.future.done():
            self.future.set_result(message)

    def on_denied(self, subject: str) -> None:
        if self.subject.lower() == subject and not self.future.done():
            self.future.set_exception(PermissionDenied("publish to", self.subject))

    def on_reconnect(self) -> None:
        """Nothing: only the caller knows whether to store it again."""


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
