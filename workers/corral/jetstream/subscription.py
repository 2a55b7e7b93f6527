"""Messages as they arrive, and the subscriptions that they arrive on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import msgspec
import nats.errors
from nats.aio.client import Client as NatsClient
from nats.aio.subscription import Subscription as NatsSubscription

_log = logging.getLogger(__name__)


class Message(msgspec.Struct, frozen=True, gc=False):
    """What arrived on a subscription. A status of the server is in the headers, as `Status` and `Description`."""

    subject: str
    data: bytes
    reply: str = ""
    headers: Mapping[str, str] | None = None


def status_of(message: Message) -> str | None:
    """The server's status code in a message without a body, such as "503"; None for ordinary messages."""
    if message.headers is None or message.data:
        return None
    return message.headers.get("Status")


class Subscription:
    """A callback on a subject, kept over outages until `close`. Made by `Connection.subscribe`."""

    def __init__(
        self,
        subject: str,
        callback: Callable[[Message], None],
        *,
        flush: Callable[[], Awaitable[bool]],
        on_close: Callable[[Subscription], None],
    ) -> None:
        self.subject = subject
        self.closed = False
        self.client: NatsClient | None = None
        """The client that holds this subscription at present."""
        self._callback = callback
        self._flush = flush
        self._on_close = on_close
        self._nats: NatsSubscription | None = None

    async def close(self) -> None:
        """Take no more messages; what is on its way is dropped."""
        self.closed = True
        self._on_close(self)
        if self._nats is not None:
            # A client that is closed has no subscriptions any more, which is what is wanted.
            with contextlib.suppress(nats.errors.Error):
                await self._nats.unsubscribe()

    async def drain(self) -> None:
        """As `close`, but what the server has sent by now still reaches the callback."""
        if self.client is not None and self._nats is not None:
            # nats-py's own drain flushes in the way that `Connection.flush` avoids.
            await self.client._send_unsubscribe(self._nats._id)  # noqa: SLF001
            await self._flush()
        await self.close()

    def redirect(self, callback: Callable[[Message], None]) -> None:
        """Call `callback` from now on."""
        self._callback = callback

    async def attach(self, client: NatsClient) -> None:
        """Subscribe on `client`.

        Where nats-py is given a future it hands it each message, straight from its read loop. This
        object stands in for that future: nothing is queued, so nothing is dropped at a limit for slow
        consumers, and pulling with acknowledgements is 15 % faster than by a coroutine a message
        (140k/s instead of 122k/s). How much may be in flight is bounded by what was asked for.
        """
        self.client = client
        self._nats = await client.subscribe(self.subject, future=cast("asyncio.Future[Any]", self))

    def cancelled(self) -> bool:
        """Part of what nats-py expects of a future."""
        return self.closed

    def set_result(self, message: Message) -> None:
        """Part of what nats-py expects of a future: called with every message."""
        try:
            self._callback(message)
        except Exception:  # noqa: BLE001 (raised further it would end nats-py's read loop, for all subscriptions)
            _log.exception("a callback failed", extra={"subject": message.subject})
