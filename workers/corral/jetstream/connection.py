"""One connection to NATS that outlives outages, behind which nats-py stays hidden.

nats-py reconnects by itself, except where it closes for good: after an error of the protocol, an
expired login, a message that the server found too large. Then a new client takes its place, with
the same subscriptions. Callers see an outage only as time that passes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec
import nats.errors
from nats.aio.client import Client as NatsClient

from corral.credentials import API_PREFIX, INBOX_PREFIX, Access
from corral.decoding import decoder
from corral.errors import ApiError, BadName, NoServer, PermissionDenied, TooLarge, Unconfirmed
from corral.jetstream.entrance import reason_of
from corral.jetstream.link import Link
from corral.jetstream.requests import Requests
from corral.jetstream.subscription import Message, Subscription
from corral.jetstream.wire import publish_to_all

__all__ = ["UNAVAILABLE_WAIT", "Connection", "Message", "Subscription"]

_log = logging.getLogger(__name__)

_HIGH_WATER = 8 << 20  # bytes not yet written to the socket at which `publish` waits for the server
_SMALL = 1000  # characters and bytes of a message without headers, up to which it cannot be too large
_CONTROL_LINE = 4000  # bytes for subject and reply; the server cuts the connection at a line of 4096
_CONSUMER_OFFLINE = 10119
UNAVAILABLE_WAIT = 0.25  # seconds between two attempts while a cluster misses a node or a leader
_decode_answer = decoder(dict[str, Any], "the server's answer")
_DENIED = re.compile(r'permissions violation for (publish|subscription)[^"]*"([^"]*)"')


class Connection:
    """A connection that is there, or will be again. Made by `Connection.open`, ended by `close`."""

    def __init__(self, access: Access, name: str) -> None:
        self.access = access
        """What it was opened with. It holds secrets."""
        self._link = Link(access, name, attach=self._attach, on_back=self._back, on_error=self._report)
        self.only_asks = False
        """Whether this user was found to be allowed no consumers, and so reads by asking again and again."""
        self._inbox_prefix = access.login.inbox_prefix or INBOX_PREFIX
        self._api_prefix = access.login.api_prefix or API_PREFIX
        self._subscriptions: set[Subscription] = set()
        self._on_reconnect: list[Callable[[], None]] = []
        self._on_denied: list[Callable[[str, str], None]] = []
        self._requests = Requests(self.publish, self.new_inbox(), self.addresses)

    # --- opening and closing

    @classmethod
    async def open(cls, servers: Access | Sequence[str], *, name: str, timeout: float = 5.0) -> Connection:
        """Connect to one of `servers`, URLs that may carry `user:password@` or `token@`; an access says more.

        Every server is tried once; `timeout` is in seconds, for all of it. From then on the
        connection is kept up for ever: only here is a missing server an error.

        Raises:
            NoServer: none answered.
            PermissionDenied: a server refused the login, or the inbox.
            BadName: an access with a file that cannot be used.
        """
        connection = cls(Access.of(servers), name)
        deadline = asyncio.get_running_loop().time() + timeout
        try:
            await connection._link.open(timeout)
            async with asyncio.timeout_at(deadline):
                await connection.subscribe(connection._requests.subject, connection._requests.on_reply)
        except TimeoutError:
            await connection.close()
            raise NoServer(connection.addresses, f"no answer within {timeout:g} s") from None
        except BaseException:
            await connection.close()
            raise
        return connection

    async def close(self) -> None:
        """Send what is buffered, and close. Calls that wait for the connection raise, replies don't come any more."""
        await self._link.close()

    @property
    def name(self) -> str:
        """What the server's monitoring calls this connection."""
        return self._link.name

    @property
    def servers(self) -> list[str]:
        """The URLs that it was opened with."""
        return self._link.servers

    @property
    def addresses(self) -> list[str]:
        """The servers as host:port, without the secrets of their URLs."""
        return self._link.addresses

    @property
    def connected(self) -> bool:
        """Whether messages can be sent now."""
        return self._link.usable

    @property
    def lost_at(self) -> float | None:
        """`time.monotonic()` of the moment the connection was lost; None while it is there."""
        return self._link.lost_at

    @property
    def max_payload(self) -> int:
        """The most bytes that the server takes as one message, headers included."""
        return self._link.client.max_payload

    async def ready(self) -> None:
        """Wait until the connection is there.

        Raises:
            CorralError: it was closed by `close`.
        """
        await self._link.ready()

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
        if headers is not None or len(subject) + len(payload) + len(reply) > _SMALL:
            self._check_size(subject, payload, reply, headers)
        link = self._link
        while True:
            if not link.usable:
                await link.ready()
            try:
                await link.client.publish(subject, payload, reply, dict(headers) if headers else None)
            except nats.errors.ConnectionClosedError:
                link.found_closed()
                continue
            except nats.errors.BadSubjectError:
                raise BadName("subject", subject, "neither empty nor with white space") from None
            if link.client.pending_data_size > _HIGH_WATER:
                await self.flush()
            return

    async def publish_to_all(self, subjects: Collection[str], payload: bytes) -> None:
        """As `publish`, of one short payload to many subjects, which must have come from the server."""
        link = self._link
        while subjects:
            if not link.usable:
                await link.ready()
            if link.client.is_closed:
                link.found_closed()
                continue
            await publish_to_all(link.client, subjects, payload)
            if link.client.pending_data_size > _HIGH_WATER:
                await self.flush()
            return

    async def flush(self, timeout: float = 5.0) -> bool:
        """Wait until the server has taken all that was published; False after `timeout` seconds or an outage."""
        if not self.connected:
            return False
        # nats-py's own flush will not do: its PING overtakes what is still buffered, and if it times out
        # the late answer to its cancelled future ends the read loop. Hence first a mark in the queue of
        # the task that writes the buffer, then a PING whose future is never cancelled.
        link = self._link
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        written: asyncio.Future[None] = loop.create_future()
        pong: asyncio.Future[None] = loop.create_future()
        await link.client._flush_queue.put(written)  # type: ignore[union-attr]  # noqa: SLF001
        await asyncio.wait({written, link.lost}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if not written.done() or link.lost.done():
            return False
        await link.client._send_ping(pong)  # noqa: SLF001
        left = max(deadline - loop.time(), 0)
        await asyncio.wait({pong, link.lost}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        return pong.done()

    async def subscribe(self, subject: str, callback: Callable[[Message], None]) -> Subscription:
        """Call `callback` with every message on `subject`, from the time this returns (with a connection).

        The callback is called in the order of arrival, and must not block.

        Raises:
            PermissionDenied: the server does not let this user subscribe.
        """
        subscription = Subscription(subject, callback, flush=self.flush, on_close=self._subscriptions.discard)
        denied: list[str] = []
        forget = self.on_denied(lambda action, name: denied.append(name) if action == "subscription" else None)
        self._subscriptions.add(subscription)
        try:
            # If the client is closed just now, its successor subscribes all that are registered.
            with contextlib.suppress(nats.errors.ConnectionClosedError):
                await subscription.attach(self._link.client)
            while not await self.flush():
                await self.ready()
        except BaseException:
            await subscription.close()
            raise
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

        With `resend` it is sent again after an outage, for what may be carried out twice.

        Raises:
            NoResponder: nobody listens on `subject`.
            NoServer: there was no connection for `timeout` seconds; nothing was sent.
            Unconfirmed: sent, and no reply within `timeout` seconds.
            PermissionDenied: at once, when the server says so.
        """
        return await self._requests.ask(subject, payload, timeout=timeout, headers=headers, resend=resend)

    async def api(
        self, suffix: str, body: Mapping[str, object] | None = None, *, timeout: float = 5.0
    ) -> dict[str, Any]:
        """Call JetStream's `$JS.API.<suffix>`; sent again after an outage, within `timeout` seconds.

        Raises:
            ApiError: the server refused; `.code` says why.
            NoResponder, NoServer, Unconfirmed, PermissionDenied: as `request`.
        """
        payload = msgspec.json.encode(body) if body is not None else b""
        deadline = time.monotonic() + timeout
        while True:
            left = max(deadline - time.monotonic(), 0.001)
            reply = await self.request(self.api_subject(suffix), payload, timeout=left, resend=True)
            answer: dict[str, Any] = _decode_answer(reply.data)
            error = answer.get("error")
            if error is None:
                return answer
            code = error.get("err_code") or error.get("code", 0)
            refused = ApiError(code, error.get("description", ""))
            # What is placed on a node that is away may be made elsewhere: then asking again is not the way.
            if not refused.passes or code == _CONSUMER_OFFLINE:
                raise refused
            if time.monotonic() + UNAVAILABLE_WAIT > deadline:
                raise Unconfirmed(f"a call of {suffix}, after {timeout:.3g} s in which {refused}")
            await asyncio.sleep(UNAVAILABLE_WAIT)

    def api_subject(self, suffix: str) -> str:
        """The subject of a call of JetStream's API: `$JS.API.<suffix>`, or under the prefix that the access names."""
        return f"{self._api_prefix}.{suffix}"

    def new_inbox(self) -> str:
        """A subject that nobody else uses."""
        return f"{self._inbox_prefix}.{secrets.token_hex(10)}"

    # --- what happens to the connection

    def on_reconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after every outage, with the subscriptions in place again; returns how to stop that."""
        return _register(self._on_reconnect, callback)

    def on_denied(self, callback: Callable[[str, str], None]) -> Callable[[], None]:
        """Call `callback(action, subject)` when the server refuses a "publish" or a "subscription".

        The subject is in lower case: nats-py gives no other.
        """
        return _register(self._on_denied, callback)

    # --- inside

    def _check_size(self, subject: str, payload: bytes, reply: str, headers: Mapping[str, str] | None) -> None:
        """Refuse here what the server would answer by cutting the connection."""
        size = len(payload)
        if headers:
            size += 12 + sum(len(name) + len(value.encode()) + 4 for name, value in headers.items())
        if size > self._link.client.max_payload:
            raise TooLarge(size, self._link.client.max_payload)
        line = len(subject.encode()) + len(reply)
        if line > _CONTROL_LINE:
            raise TooLarge(line, _CONTROL_LINE)

    async def _attach(self, client: NatsClient) -> None:
        while waiting := [each for each in self._subscriptions if each.client is not client]:
            for subscription in waiting:
                await subscription.attach(client)

    def _back(self) -> None:
        self._requests.on_reconnect()
        for callback in list(self._on_reconnect):
            _call(callback)

    def _report(self, error: Exception) -> None:
        denied = _DENIED.search(str(error).lower())
        if denied is None:
            _log.debug("the NATS client reports an error", extra={"connection": self.name, "reason": reason_of(error)})
            return
        action, subject = denied.groups()
        _log.warning("the server refuses for lack of rights", extra={"action": action, "subject": subject})
        if action == "publish":
            self._requests.on_denied(subject)
        for callback in list(self._on_denied):
            _call(callback, action, subject)


def _register(callbacks: list[Any], callback: object) -> Callable[[], None]:
    callbacks.append(callback)

    def forget() -> None:
        with contextlib.suppress(ValueError):
            callbacks.remove(callback)

    return forget


def _call(callback: Callable[..., None], *args: object) -> None:
    try:
        callback(*args)
    except Exception:  # noqa: BLE001 (raised further it would end the reconnect of nats-py half-way)
        _log.exception("a callback of the connection failed")
