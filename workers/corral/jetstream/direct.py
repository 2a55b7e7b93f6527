"""Stored messages, and reading them by JetStream's direct get: one request, no consumer, any replica.

A replica may be behind. What is decided on is decided by compare-and-set, or read from the leader.
"""

from __future__ import annotations

import asyncio
import base64
import calendar
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from corral.errors import ApiError, Unconfirmed
from corral.jetstream.connection import Connection
from corral.jetstream.subscription import Message, status_of

_NO_MESSAGE = 10037
_BATCH = 1000
# A header of the server's own markers, for what ended by its time to live or by a purge.
_MARKER = "Nats-Marker-Reason"
_OPERATION = "KV-Operation"


class Stored(msgspec.Struct, frozen=True, gc=False):
    """One message of a stream."""

    subject: str
    sequence: int
    time: float
    """When it was stored, in seconds since 1970."""
    data: bytes
    operation: str | None = None
    """None for a value; for a tombstone "DEL" or "PURGE", or "MaxAge" when a time to live has ended it."""


def operation_of(headers: Mapping[str, str] | None) -> str | None:
    """What kind of tombstone a message is; None for a value."""
    if headers is None:
        return None
    return headers.get(_OPERATION) or headers.get(_MARKER)


async def last(connection: Connection, stream: str, subject: str, *, timeout: float = 5.0) -> Stored | None:
    """The last message on `subject`, tombstones included; None if there is none. A replica may be behind."""
    reply = await connection.request(f"$JS.API.DIRECT.GET.{stream}.{subject}", timeout=timeout, resend=True)
    return _stored(reply)


async def at(connection: Connection, stream: str, sequence: int, *, timeout: float = 5.0) -> Stored | None:
    """The message at `sequence`; None if it is not there."""
    body = msgspec.json.encode({"seq": sequence})
    reply = await connection.request(f"$JS.API.DIRECT.GET.{stream}", body, timeout=timeout, resend=True)
    return _stored(reply)


async def leader_last(connection: Connection, stream: str, subject: str, *, timeout: float = 5.0) -> Stored | None:
    """As `last`, but asked of the stream's leader: never behind."""
    try:
        answer = await connection.api(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject}, timeout=timeout)
    except ApiError as error:
        if error.code == _NO_MESSAGE:
            return None
        raise
    message: dict[str, Any] = answer["message"]
    headers = _parse_headers(base64.b64decode(message.get("hdrs", "")))
    return Stored(
        message["subject"],
        message["seq"],
        parse_time(message["time"]),
        base64.b64decode(message.get("data", "")),
        operation_of(headers),
    )


async def all_on(connection: Connection, stream: str, subject: str, *, timeout: float = 5.0) -> list[Stored]:
    """Every message on `subject`, which may hold wildcards, in the order of the stream. A replica may be behind."""
    found: list[Stored] = []
    start = 1
    while True:
        batch, pending = await _batch(connection, stream, subject, start, timeout)
        found += batch
        if pending == 0 or not batch:
            return found
        start = batch[-1].sequence + 1


async def _batch(
    connection: Connection, stream: str, subject: str, start: int, timeout: float
) -> tuple[list[Stored], int]:
    """Up to _BATCH messages on `subject` from sequence `start`, and how many follow."""
    messages: list[Message] = []
    complete = asyncio.Event()

    def on_message(message: Message) -> None:
        messages.append(message)
        if status_of(message) is not None:
            complete.set()

    body = msgspec.json.encode({"seq": start, "next_by_subj": subject, "batch": _BATCH})
    name = f"$JS.API.DIRECT.GET.{stream}"
    inbox = connection.new_inbox()
    subscription = await connection.subscribe(inbox, on_message)

    def ask_again() -> None:
        complete.set()

    forget = connection.on_reconnect(ask_again)
    forget_denied = connection.on_denied(lambda _action, _subject: complete.set())
    try:
        async with asyncio.timeout(timeout):
            while not messages or status_of(messages[-1]) is None:
                messages.clear()
                complete.clear()
                await connection.publish(name, body, reply=inbox)
                await complete.wait()
    except TimeoutError:
        raise Unconfirmed(f"reading {subject} from {stream}, after {timeout:g} s") from None
    finally:
        forget()
        forget_denied()
        await subscription.close()
    end = messages.pop()
    pending = int((end.headers or {}).get("Nats-Num-Pending", "0"))
    return [stored for message in messages if (stored := _stored(message)) is not None], pending


def _stored(reply: Message) -> Stored | None:
    """The message in a direct get's answer; None if the answer says that there is none."""
    status = status_of(reply)
    headers = reply.headers or {}
    if status == "404":
        return None
    if status is not None:
        raise ApiError(int(status), headers.get("Description", ""))
    return Stored(
        headers["Nats-Subject"],
        int(headers["Nats-Sequence"]),
        parse_time(headers["Nats-Time-Stamp"]),
        reply.data,
        operation_of(headers),
    )


def parse_time(text: str) -> float:
    """Seconds since 1970 of an RFC 3339 time in UTC, which the server gives down to nanoseconds."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + (float(f"0.{fraction}") if fraction else 0.0)


def _parse_headers(raw: bytes) -> dict[str, str]:
    lines = raw.decode(errors="replace").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if ":" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}
