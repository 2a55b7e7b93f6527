"""The client of nats-py, kept connected: opened, watched, and replaced when it has closed for good."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import cast
from urllib.parse import urlsplit

import nats.errors
from nats.aio.client import Client as NatsClient

from corral.credentials import Access
from corral.errors import CorralError, NoServer, PermissionDenied
from corral.jetstream.entrance import login_options, prepare, reason_of
from corral.jetstream.wire import new_client

_log = logging.getLogger(__name__)

_PING_INTERVAL = 5.0  # seconds; with two pings unanswered, a dead peer is noticed within 15
_RECONNECT_WAIT = 0.25  # seconds between two attempts at one server
_CONNECT_TIMEOUT = 5.0
_CLOSE_TIMEOUT = 2.0
_WATCH = 1.0  # seconds between looks at what nats-py does not tell
# At this limit nats-py waits for the socket, and waits for ever if it is closed meanwhile: the limit
# is set out of reach, and `Connection.publish` waits by itself long before.
_PENDING_LIMIT = 1 << 30


class Link:
    """A client that is connected, or will be again."""

    def __init__(
        self,
        access: Access,
        name: str,
        *,
        attach: Callable[[NatsClient], Awaitable[None]],
        on_back: Callable[[], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self.servers = access.urls
        self.addresses = [_address(server) for server in access.urls]
        self._access = access
        self._login = login_options(access)
        self.name = name
        self.client = new_client()
        self.closed = False
        self.usable = False
        """Whether messages can be sent now."""
        self.up = asyncio.Event()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the present connection is lost; a new one for each connection."""
        self.lost_at: float | None = time.monotonic()
        self._gone = asyncio.Event()  # the client has closed for good
        self._keeper: asyncio.Task[None] | None = None
        self._attach = attach
        self._on_back = on_back
        self._on_error = on_error
        self._started = True
        self._opening: asyncio.Future[None] | None = None
        self._failures: list[str] = []

    async def open(self, timeout: float) -> None:
        """As `Connection.open`, which see."""
        self._opening = asyncio.get_running_loop().create_future()
        connecting = asyncio.create_task(self._connect(self.client))
        both: set[asyncio.Future[None]] = {connecting, self._opening}
        try:
            await asyncio.wait(both, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if self._opening.done():
                self._opening.result()
            if connecting.done() and (error := connecting.exception()) is not None:
                self._started = False  # an address is none; a client that never began cannot be closed
                raise NoServer(self.addresses, reason_of(error)) from None
            if not self.client.is_connected:
                raise NoServer(self.addresses, "; ".join(self._failures) or f"no answer within {timeout:g} s")
        finally:
            connecting.cancel()
            await asyncio.wait({connecting})
            self._opening.cancel()
            self._opening = None
        self._lift()
        self._keeper = asyncio.create_task(self._keep(), name=f"connection {self.name}")

    async def close(self) -> None:
        """Send what is buffered, and close."""
        self.closed = True
        self.usable = False
        self.up.set()  # who waits for the connection wakes, and finds it closed
        if not self.lost.done():
            self.lost.set_result(None)
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        if not self._started:
            return
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self.client.close()
        except (nats.errors.Error, OSError, TimeoutError):
            _abort(self.client)

    async def ready(self) -> None:
        """Wait until the connection is there; CorralError if it was closed by `close`."""
        if not self.up.is_set():
            await self.up.wait()
        if self.closed:
            raise CorralError("the connection is closed")

    def found_closed(self) -> None:
        """The client says that it is closed, perhaps before it has told."""
        self._lose()
        self._gone.set()

    async def _connect(self, client: NatsClient) -> None:
        """Connect `client`, trying for ever. What it reports counts while it is the present one."""

        async def on_error(error: Exception) -> None:
            if client is self.client:
                self._report(error)

        async def on_lost() -> None:
            if client is self.client:
                self._lose()

        async def on_back() -> None:
            if client is self.client:
                self._lift()

        async def on_closed() -> None:
            if client is self.client:
                self.found_closed()

        prepare(client, tls=self._access.needs_tls)
        await client.connect(
            self.servers,
            name=self.name,
            **self._login,
            error_cb=on_error,
            disconnected_cb=on_lost,
            reconnected_cb=on_back,
            closed_cb=on_closed,
            # nats-py says int, and passes them on to asyncio.
            connect_timeout=cast("int", _CONNECT_TIMEOUT),
            reconnect_time_wait=cast("int", _RECONNECT_WAIT),
            ping_interval=cast("int", _PING_INTERVAL),
            max_reconnect_attempts=-1,
            pending_size=_PENDING_LIMIT,
        )

    async def _keep(self) -> None:
        """See to what nats-py leaves undone."""
        while True:
            # If sending its last bytes fails, a closing client tells nobody: hence the look once a second.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WATCH):
                    await self._gone.wait()
            self._gone.clear()
            if self.client.is_closed:
                self._lose()
                await self._replace()
            elif self.client.is_reconnecting and self.up.is_set():
                # It waits until the old socket has sent its last bytes, to a peer that may be dead.
                _abort(self.client)

    async def _replace(self) -> None:
        _log.warning("the NATS client closed and is replaced", extra={"connection": self.name})
        _abort(self.client)  # where closing has failed half-way, the socket is still open
        self.client = client = new_client()
        await self._connect(client)
        with contextlib.suppress(nats.errors.ConnectionClosedError):  # closed again: the next round replaces it
            await self._attach(client)
        if client.is_connected:
            self._lift()

    def _lose(self) -> None:
        if self.up.is_set() and not self.closed:
            self.up.clear()
            self.usable = False
            self.lost_at = time.monotonic()
            self.lost.set_result(None)
            _log.warning("the connection is lost", extra={"connection": self.name, "servers": self.addresses})

    def _lift(self) -> None:
        if self.up.is_set():
            return
        self.up.set()
        self.usable = True
        self.lost_at = None
        self.lost = asyncio.get_running_loop().create_future()
        if self._keeper is not None:  # else it is the first connection
            _log.info("the connection is back", extra={"connection": self.name})
            self._on_back()

    def _report(self, error: Exception) -> None:
        if self._opening is None:
            self._on_error(error)
            return
        self._failures.append(reason_of(error))
        if self._opening.done():
            return
        text = str(error).lower()
        if "authorization" in text or "authentication" in text:
            self._opening.set_exception(PermissionDenied(f"log in at {', '.join(self.addresses)}", ""))
        elif len(self._failures) >= len(self.servers):
            self._opening.set_exception(NoServer(self.addresses, "; ".join(dict.fromkeys(self._failures))))


def _abort(client: NatsClient) -> None:
    """Close the client's socket without sending what is buffered."""
    writer = getattr(client._transport, "_io_writer", None)  # noqa: SLF001 (nothing public does it)
    if writer is not None:
        writer.transport.abort()


def _address(server: str) -> str:
    return urlsplit(server if "://" in server else f"nats://{server}").netloc.rpartition("@")[2]
