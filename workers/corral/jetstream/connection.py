"""One connection to NATS that outlives outages, behind which nats-py stays hidden.

nats-py reconnects by itself, except where it closes for good: after a protocol error, an expired
login, a message that the server found too large. Then a new client takes its place here, with the
same subscriptions. Callers see an outage only as time that passes.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec
import nats.errors
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg as NatsMsg
from nats.aio.subscription import Subscription as NatsSubscription

from corral.errors import ApiError, BadName, CorralError, NoResponder, NoServer, PermissionDenied, TooLarge, Unconfirmed

_log = logging.getLogger(__name__)

_PING_INTERVAL = 5  # seconds; with two unanswered pings a dead peer is noticed within 15
_RECONNECT_WAIT = 0.25  # seconds between two attempts at one server
_CONNECT_TIMEOUT = 5
_WATCH = 1.0  # seconds between looks at whether nats-py has closed without telling
# While connected, nats-py waits without end at this limit, even if it is closed meanwhile: it is
# set out of reach, and `publish` itself waits at _HIGH_WATER.
_PENDING_LIMIT = 1 << 30
_HIGH_WATER = 8 << 20
_CONTROL_LINE = 4096 - 96  # bytes for subject and reply; the server cuts the connection at a line of 4096
_JETSTREAM_UNAVAILABLE = 10008
_DENIED = re.compile(r'permissions violation for (publish|subscription)[^"]*"([^"]*)"')


class Message(msgspec.Struct, frozen=True, gc=False):
    """What arrived on a subscription. A status of the server is in the headers, as `Status` and `Description`."""

    subject: str
    data: bytes
    reply: str = ""
    headers: Mapping[str, str] | None = None


class Subscription:
    """A callback on a subject, kept over reconnects and rebuilt clients until `close`."""

    def __init__(self, connection: Connection, subject: str, callback: Callable[[Message], None]) -> None:
        self.subject = subject
        self.closed = False
        self._connection = connection
        self._callback = callback
        self._nats: NatsSubscription | None = None
        self._client: NatsClient | None = None

    async def close(self) -> None:
        """Take no more messages; what arrives later is dropped."""
        self.closed = True
        self._connection._forget(self)  # noqa: SLF001 (two halves of one thing)
        if self._nats is not None:
            # A closed or closing client has no subscriptions any more, which is what is wanted.
            with contextlib.suppress(nats.errors.Error):
                await self._nats.unsubscribe()

    async def drain(self) -> None:
        """Like `close`, but what the server has sent up to now still reaches the callback."""
        if self._client is not None and self._nats is not None and self._connection.connected:
            # nats-py's own drain flushes in the way that `Connection.flush` avoids.
            with contextlib.suppress(nats.errors.Error):
                await self._client._send_unsubscribe(self._nats._id)  # noqa: SLF001
                await self._connection.flush()
        await self.close()

    def redirect(self, callback: Callable[[Message], None]) -> None:
        """Call `callback` from now on."""
        self._callback = callback

    async def _attach(self, client: NatsClient) -> None:
        """Subscribe on `client`.

        nats-py hands each message to `future` where one is given, straight from its read loop. This
        object stands in for that future: no queue, no task and no coroutine a message (measured:
        pulling and acknowledging goes from 44k to 59k messages a second), and no limit at which
        nats-py would drop messages of a slow consumer. What may be in flight is bounded by what was
        asked for instead.
        """
        self._client = client
        self._nats = await client.subscribe(self.subject, future=cast("asyncio.Future[Any]", self))

    def cancelled(self) -> bool:
        """Part of what nats-py expects of a future."""
        return self.closed

    def set_result(self, msg: NatsMsg) -> None:
        """Part of what nats-py expects of a future: called for every message."""
        try:
            self._callback(Message(msg.subject, msg.data, msg.reply, msg.headers))
        except Exception:
            # Raised further it would end nats-py's read loop, and with it every other subscription.
            _log.exception("a callback failed", extra={"subject": msg.subject})


class _Waiter:
    """A request that waits for its reply."""

    __slots__ = ("future", "resend", "subject")

    def __init__(self, subject: str, future: asyncio.Future[Message | None], *, resend: bool) -> None:
        self.subject = subject
        self.future = future
        self.resend = resend


class Connection:
    """A connection that is there or will be again. Made by `Connection.open`, ended by `close`."""

    def __init__(self, servers: Sequence[str], name: str, inbox_prefix: str) -> None:
        self.servers = list(servers)
        self.name = name
        self.lost_at: float | None = time.monotonic()
        """`time.monotonic()` of the moment the connection was lost; None while it is there."""
        self._inbox_prefix = inbox_prefix
        self._client = NatsClient()
        self._up = asyncio.Event()
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gone = asyncio.Event()
        self._closed = False
        self._rebuilder: asyncio.Task[None] | None = None
        self._subscriptions: set[Subscription] = set()
        self._on_reconnect: list[Callable[[], None]] = []
        self._on_denied: list[Callable[[str, str], None]] = []
        self._opening: asyncio.Future[None] | None = None
        self._failures: list[str] = []
        self._inbox = self.new_inbox()
        self._tokens = itertools.count(1)
        self._waiters: dict[str, _Waiter] = {}

    # --- opening and closing

    @classmethod
    async def open(
        cls, servers: Sequence[str], *, name: str, timeout: float = 5.0, inbox_prefix: str = "_INBOX"
    ) -> Connection:
        """Connect to one of `servers`, URLs that may carry `user:password@` or `token@`.

        Every server is tried once. `timeout` is in seconds, for all of it. After this call the
        connection is kept up for ever; only here is a missing server an error.

        Raises:
            NoServer: none answered.
            PermissionDenied: a server refused the login, or the inbox of `inbox_prefix`.
        """
        connection = cls(servers, name, inbox_prefix)
        try:
            await connection._connect_first(timeout)
            await connection.subscribe(f"{connection._inbox}.*", connection._on_reply)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def close(self) -> None:
        """Send what is still buffered and close; calls that wait for a reply run into their timeout."""
        self._closed = True
        self._up.set()  # who waits for the connection wakes, and finds it closed
        if self._rebuilder is not None:
            self._rebuilder.cancel()
            await asyncio.wait({self._rebuilder})
        with contextlib.suppress(nats.errors.Error, OSError):
            await self._client.close()

    @property
    def connected(self) -> bool:
        """Whether messages can be sent now."""
        return self._up.is_set() and not self._closed

    @property
    def max_payload(self) -> int:
        """The most bytes that the server takes as one message, headers included."""
        return self._client.max_payload

    @property
    def addresses(self) -> list[str]:
        """The servers as host:port, without the secrets of their URLs."""
        return [_address(server) for server in self.servers]

    # --- messages

    async def publish(
        self, subject: str, payload: bytes = b"", *, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Hand a message to the connection; without one, wait until there is one again.

        Returning does not mean that the server has it: an outage can still lose it.

        Raises:
            TooLarge: more than the server takes; nothing was sent.
            CorralError: the connection was closed by `close`.
        """
        self._check_size(subject, payload, reply, headers)
        while True:
            if not self._up.is_set():
                await self._up.wait()
            if self._closed:
                raise CorralError("the connection is closed")
            try:
                await self._client.publish(subject, payload, reply, dict(headers) if headers else None)
            except (nats.errors.ConnectionClosedError, nats.errors.ConnectionDrainingError):
                self._lose()
                continue
            except nats.errors.BadSubjectError:
                raise BadName("subject", subject, "neither empty nor with white space") from None
            if self._client.pending_data_size > _HIGH_WATER:
                await self.flush(_CONNECT_TIMEOUT)
            return

    async def flush(self, timeout: float = 5.0) -> bool:
        """Wait until the server has taken all that was published; False after `timeout` seconds or an outage."""
        if not self.connected:
            return False
        # nats-py's own flush cancels its future at the timeout, and the late answer to a cancelled
        # future ends nats-py's read loop. This future is never cancelled.
        pong: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        await self._client._send_ping(pong)  # noqa: SLF001
        await asyncio.wait({pong, self._lost}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        return pong.done()

    async def subscribe(self, subject: str, callback: Callable[[Message], None]) -> Subscription:
        """Call `callback` with every message on `subject`, from the time this returns (which waits for a connection).

        The callback is called in the order of arrival and must not block.

        Raises:
            PermissionDenied: the server does not let this user subscribe.
        """
        subscription = Subscription(self, subject, callback)
        denied: list[str] = []
        forget = self.on_denied(lambda action, name: denied.append(name) if action == "subscription" else None)
        self._subscriptions.add(subscription)
        try:
            # If the client is closed just now, its successor subscribes all that are registered.
            with contextlib.suppress(nats.errors.ConnectionClosedError, nats.errors.ConnectionDrainingError):
                await subscription._attach(self._client)  # noqa: SLF001
            while not self._closed and not await self.flush():
                await self._up.wait()
        finally:
            forget()
        if subject.lower() in denied:
            await subscription.close()
            raise PermissionDenied("subscribe to", subject)
        return subscription

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        *,
        timeout: float,
        headers: Mapping[str, str] | None = None,
        resend: bool = False,
    ) -> Message:
        """Send a message and return the first reply to it.

        With `resend` it is sent again after an outage, for requests that may be carried out twice.

        Raises:
            NoResponder: nobody listens on `subject`.
            NoServer: there was no connection for `timeout` seconds; nothing was sent.
            Unconfirmed: sent, and no reply within `timeout` seconds.
            PermissionDenied: at once, when the server says so.
        """
        token = str(next(self._tokens))
        sent = False
        try:
            async with asyncio.timeout(timeout):
                while True:
                    future: asyncio.Future[Message | None] = asyncio.get_running_loop().create_future()
                    self._waiters[token] = _Waiter(subject, future, resend=resend)
                    await self.publish(subject, payload, reply=f"{self._inbox}.{token}", headers=headers)
                    sent = True
                    reply = await future
                    if reply is not None:
                        break
        except TimeoutError:
            if not sent:
                raise NoServer(self.addresses, "the connection is lost") from None
            raise Unconfirmed(f"a request to {subject}, after {timeout:g} s without a reply") from None
        finally:
            self._waiters.pop(token, None)
        if status_of(reply) == "503":
            raise NoResponder(subject)
        return reply

    async def api(
        self, suffix: str, body: Mapping[str, object] | None = None, *, timeout: float = 5.0
    ) -> dict[str, Any]:
        """Call JetStream's API `$JS.API.<suffix>`; sent again after an outage, within `timeout` seconds.

        Raises:
            ApiError: the server refused; `.code` says why.
            NoResponder, NoServer, Unconfirmed, PermissionDenied: as `request`.
        """
        payload = msgspec.json.encode(body) if body is not None else b""
        deadline = time.monotonic() + timeout
        while True:
            left = max(deadline - time.monotonic(), 0.001)
            reply = await self.request(f"$JS.API.{suffix}", payload, timeout=left, resend=True)
            answer: dict[str, Any] = msgspec.json.decode(reply.data)
            error = answer.get("error")
            if error is None:
                return answer
            code = error.get("err_code") or error.get("code", 0)
            if code != _JETSTREAM_UNAVAILABLE or time.monotonic() + _RECONNECT_WAIT > deadline:
                raise ApiError(code, error.get("description", ""))
            await asyncio.sleep(_RECONNECT_WAIT)  # JetStream is there, but still starting

    def new_inbox(self) -> str:
        """A subject that nobody else uses."""
        return f"{self._inbox_prefix}.{secrets.token_hex(10)}"

    # --- what happens to the connection

    def on_reconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after every outage, when the subscriptions are there again; returns how to stop that."""
        return _register(self._on_reconnect, callback)

    def on_denied(self, callback: Callable[[str, str], None]) -> Callable[[], None]:
        """Call `callback(action, subject)` when the server refuses a "publish" or "subscription".

        nats-py gives the subject in lower case only.
        """
        return _register(self._on_denied, callback)

    # --- inside

    def _check_size(self, subject: str, payload: bytes, reply: str, headers: Mapping[str, str] | None) -> None:
        """Refuse here what the server would answer by cutting the connection."""
        size = len(payload)
        if headers:
            size += 12 + sum(len(name) + len(value.encode()) + 4 for name, value in headers.items())
        if size > self._client.max_payload:
            raise TooLarge(size, self._client.max_payload)
        if len(subject) + len(reply) > _CONTROL_LINE // 4:  # at most four bytes a character
            line = len(subject.encode()) + len(reply)
            if line > _CONTROL_LINE:
                raise TooLarge(line, _CONTROL_LINE)

    async def _connect_first(self, timeout: float) -> None:
        self._opening = asyncio.get_running_loop().create_future()
        connecting = asyncio.create_task(self._connect(self._client))
        try:
            both: set[asyncio.Future[None]] = {connecting, self._opening}
            await asyncio.wait(both, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if self._opening.done():
                self._opening.result()
            if not connecting.done() or not self._client.is_connected:
                raise NoServer(self.addresses, "; ".join(self._failures) or f"no answer within {timeout:g} s")
            connecting.result()
        finally:
            connecting.cancel()
            await asyncio.wait({connecting})
            self._opening = None
        self._lift()
        self._rebuilder = asyncio.create_task(self._keep(), name=f"corral connection {self.name}")

    async def _connect(self, client: NatsClient) -> None:
        """Connect `client`, trying for ever."""

        async def on_error(error: Exception) -> None:
            if client is self._client:
                self._on_error(error)

        async def on_lost() -> None:
            if client is self._client:
                self._lose()

        async def on_back() -> None:
            if client is self._client:
                self._lift()

        async def on_closed() -> None:
            if client is self._client:
                self._lose()
                self._gone.set()

        await client.connect(
            self.servers,
            name=self.name,
            error_cb=on_error,
            disconnected_cb=on_lost,
            reconnected_cb=on_back,
            closed_cb=on_closed,
            connect_timeout=_CONNECT_TIMEOUT,
            reconnect_time_wait=cast("int", _RECONNECT_WAIT),
            max_reconnect_attempts=-1,
            ping_interval=_PING_INTERVAL,
            pending_size=_PENDING_LIMIT,
            inbox_prefix=self._inbox_prefix,
        )

    async def _keep(self) -> None:
        """Put a new client in the place of one that has closed for good."""
        while True:
            # nats-py calls nobody if sending its last bytes fails, hence the look once a second.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WATCH):
                    await self._gone.wait()
            if not self._client.is_closed:
                continue
            self._gone.clear()
            self._lose()
            _log.warning("the NATS client closed and is replaced", extra={"connection": self.name})
            client = NatsClient()
            self._client = client
            await self._connect(client)
            with contextlib.suppress(nats.errors.ConnectionClosedError):  # then the next round starts again
                while waiting := [each for each in self._subscriptions if each._client is not client]:  # noqa: SLF001
                    for subscription in waiting:
                        await subscription._attach(client)  # noqa: SLF001
            if client.is_connected:
                self._lift()

    def _forget(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)

    def _lose(self) -> None:
        if self._up.is_set() and not self._closed:
            self._up.clear()
            self.lost_at = time.monotonic()
            self._lost.set_result(None)
            _log.warning("the connection is lost", extra={"connection": self.name, "servers": self.addresses})

    def _lift(self) -> None:
        if self._up.is_set() or self._closed:
            return
        self._up.set()
        self.lost_at = None
        self._lost = asyncio.get_running_loop().create_future()
        if self._opening is None and self._rebuilder is not None:
            _log.info("the connection is back", extra={"connection": self.name})
            for waiter in self._waiters.values():
                if waiter.resend and not waiter.future.done():
                    waiter.future.set_result(None)
            for callback in list(self._on_reconnect):
                _call(callback)

    def _on_reply(self, message: Message) -> None:
        waiter = self._waiters.get(message.subject[len(self._inbox) + 1 :])
        if waiter is not None and not waiter.future.done():
            waiter.future.set_result(message)

    def _on_error(self, error: Exception) -> None:
        text = str(error)
        if self._opening is not None and not self._opening.done():
            self._failures.append(_reason(error))
            if "authorization" in text.lower() or "authentication" in text.lower():
                self._opening.set_exception(PermissionDenied(f"log in at {', '.join(self.addresses)}", ""))
            elif len(self._failures) >= len(self.servers):
                self._opening.set_exception(NoServer(self.addresses, "; ".join(dict.fromkeys(self._failures))))
            return
        if denied := _DENIED.search(text.lower()):
            self._deny(denied[1], denied[2])
        else:
            _log.debug("the NATS client reports an error", extra={"connection": self.name, "reason": _reason(error)})

    def _deny(self, action: str, subject: str) -> None:
        _log.warning("the server refuses for lack of rights", extra={"action": action, "subject": subject})
        if action == "publish":
            for waiter in self._waiters.values():
                if waiter.subject.lower() == subject and not waiter.future.done():
                    waiter.future.set_exception(PermissionDenied("publish to", waiter.subject))
        for callback in list(self._on_denied):
            _call(callback, action, subject)


def status_of(message: Message) -> str | None:
    """The server's status code in a message without a body, such as "503"; None for ordinary messages."""
    if message.headers is None or message.data:
        return None
    return message.headers.get("Status")


def _register(callbacks: list[Any], callback: object) -> Callable[[], None]:
    callbacks.append(callback)

    def forget() -> None:
        with contextlib.suppress(ValueError):
            callbacks.remove(callback)

    return forget


def _call(callback: Callable[..., None], *args: object) -> None:
    try:
        callback(*args)
    except Exception:
        # Raised further it would end the reconnect of nats-py half-way.
        _log.exception("a callback of the connection failed")


def _address(server: str) -> str:
    return urlsplit(server if "://" in server else f"nats://{server}").netloc.rpartition("@")[2]


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return "no answer"
    if isinstance(error, OSError):
        return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    return str(error).removeprefix("nats: ")
