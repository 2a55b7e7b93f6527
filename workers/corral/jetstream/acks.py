"""Acknowledgements of stored messages: one subscription for all, whose subject's last token says which message."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Protocol

import msgspec

from corral.decoding import decoder
from corral.errors import ApiError, StorageFull, WrongLastSequence
from corral.jetstream.connection import Connection
from corral.jetstream.subscription import Message, Subscription

# err_codes: no room on the server (10023 resources, 10028 memory, 10047 disk) or in the stream (10077).
_FULL = frozenset({10023, 10028, 10047, 10077})
_WRONG_LAST = frozenset({10071, 10164})


class Waiting(Protocol):
    """Who waits for acknowledgements."""

    def on_ack(self, token: str, message: Message) -> None:
        """The server's answer to the message of `token`."""

    def on_denied(self, subject: str) -> None:
        """The server refuses messages on `subject`, which is in lower case."""

    def on_reconnect(self) -> None:
        """There was an outage: acknowledgements may be lost."""


class Acks:
    """Who waits for which acknowledgement."""

    def __init__(self, connection: Connection) -> None:
        self.outages = 0
        """How many there were so far."""
        self.open = False
        """Whether acknowledgements are received."""
        self.waiting: dict[str, Waiting] = {}
        """By token."""
        self.prefix = f"{connection.new_inbox()}."
        self.tokens = itertools.count(1)
        self._connection = connection
        self._skip = len(self.prefix)
        self._subscription: Subscription | None = None
        self._opening = asyncio.Lock()
        self._forget = (connection.on_denied(self._on_denied), connection.on_reconnect(self._on_reconnect))

    async def ready(self) -> None:
        """Subscribe, the first time."""
        async with self._opening:
            if self._subscription is None:
                self._subscription = await self._connection.subscribe(f"{self.prefix}*", self._on_ack)
                self.open = True

    async def close(self) -> None:
        """Receive nothing more."""
        for forget in self._forget:
            forget()
        if self._subscription is not None:
            await self._subscription.close()

    def _on_ack(self, message: Message) -> None:
        token = message.subject[self._skip :]
        waiting = self.waiting.pop(token, None)
        if waiting is not None:
            waiting.on_ack(token, message)

    def _on_denied(self, action: str, subject: str) -> None:
        if action == "publish":
            for waiting in set(self.waiting.values()):
                waiting.on_denied(subject)

    def _on_reconnect(self) -> None:
        self.outages += 1
        for waiting in set(self.waiting.values()):
            waiting.on_reconnect()


class _Error(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Ack(msgspec.Struct):
    stream: str = ""
    seq: int = 0
    error: _Error | None = None


_decode: Callable[[bytes], _Ack] = decoder(_Ack, "an acknowledgement")


def sequence_of(subject: str, data: bytes) -> int:
    """The sequence under which the message on `subject` is stored, or the error that the server answered."""
    ack = _decode(data)
    error = ack.error
    if error is None:
        return ack.seq
    if error.err_code in _WRONG_LAST:
        raise WrongLastSequence(subject)
    if error.err_code in _FULL:
        raise StorageFull(ack.stream, error.description)
    raise ApiError(error.err_code or error.code, error.description)
