"""Requests and their replies: one inbox for all, each request with a token of its own."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Mapping, Sequence
from typing import Protocol

from corral.errors import NoResponder, NoServer, PermissionDenied, Unconfirmed
from corral.jetstream.subscription import Message, status_of


class _Publish(Protocol):
    def __call__(
        self, subject: str, payload: bytes, *, reply: str, headers: Mapping[str, str] | None
    ) -> Awaitable[None]: ...


class _Waiter:
    """A request that waits for its reply; None as reply means to ask again."""

    __slots__ = ("future", "resend", "subject")

    def __init__(self, subject: str, *, resend: bool) -> None:
        self.subject = subject
        self.resend = resend
        self.future: asyncio.Future[Message | None] = asyncio.get_running_loop().create_future()


class Requests:
    """The requests of one connection that wait for a reply. The connection reports what happens to it."""

    def __init__(self, publish: _Publish, inbox: str, addresses: Sequence[str]) -> None:
        self.subject = f"{inbox}.*"
        self._publish = publish
        self._inbox = inbox
        self._addresses = addresses
        self._tokens = itertools.count(1)
        self._waiters: dict[str, _Waiter] = {}

    async def ask(
        self, subject: str, payload: bytes, *, timeout: float, headers: Mapping[str, str] | None, resend: bool
    ) -> Message:
        """As `Connection.request`, which see."""
        token = str(next(self._tokens))
        sent = False
        try:
            async with asyncio.timeout(timeout):
                while True:
                    self._waiters[token] = waiter = _Waiter(subject, resend=resend)
                    await self._publish(subject, payload, reply=f"{self._inbox}.{token}", headers=headers)
                    sent = True
                    reply = await waiter.future
                    if reply is not None:
                        break
        except TimeoutError:
            if not sent:
                raise NoServer(self._addresses, "the connection is lost") from None
            raise Unconfirmed(f"a request to {subject}, after {timeout:.3g} s without a reply") from None
        finally:
            self._waiters.pop(token, None)
        if status_of(reply) == "503":
            raise NoResponder(subject)
        return reply

    def on_reply(self, message: Message) -> None:
        """A message on the inbox."""
        waiter = self._waiters.get(message.subject[len(self._inbox) + 1 :])
        if waiter is not None and not waiter.future.done():
            waiter.future.set_result(message)

    def on_reconnect(self) -> None:
        """Replies to what was asked before will not come."""
        for waiter in self._waiters.values():
            if waiter.resend and not waiter.future.done():
                waiter.future.set_result(None)

    def on_denied(self, subject: str) -> None:
        """The server refuses messages on `subject`, which is in lower case."""
        for waiter in self._waiters.values():
            if waiter.subject.lower() == subject and not waiter.future.done():
                waiter.future.set_exception(PermissionDenied("publish to", waiter.subject))
