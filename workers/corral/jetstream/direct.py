"""Stored messages, and reading them by JetStream's direct get: one request, no consumer, any replica.

A replica may be behind. What is decided on is decided by compare-and-set, or read from the leader.
"""

from __future__ import annotations

import asyncio
import base64
import calendar
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from corral.errors import ApiError, NoResponder, PermissionDenied, Unconfirmed
from corral.jetstream.connection import Connection
from corral.jetstream.subscription import Message, status_of
from corral.jetstream.wire import parse_headers

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
    reply = await connection.request(
        connection.api_subject(f"DIRECT.GET.{stream}.{subject}"), timeout=timeout, resend=True
    )
    return _stored(reply)


async def at(connection: Connection, stream: str, sequence: int, *, timeout: float = 5.0) -> Stored | None:
    """The message at `sequence`; None if it is not there."""
    return await get(connection, stream, {"seq": sequence}, timeout=timeout)


async def get(
    connection: Connection, stream: str, wanted: Mapping[str, object], *, timeout: float = 5.0
) -> Stored | None:
    """As `leader_get`, of any replica, which may be behind."""
    body = msgspec.json.encode(wanted)
    reply = await connection.request(connection.api_subject(f"DIRECT.GET.{stream}"), body, timeout=timeout, resend=True)
    return _stored(reply)


async def leader_last(connection: Connection, stream: str, subject: str, *, timeout: float = 5.0) -> Stored | None:
    """As `last`, but asked of the stream's leader: never behind."""
    return await leader_get(connection, stream, {"last_by_subj": subject}, timeout=timeout)


async def leader_get(
    connection: Connection, stream: str, wanted: Mapping[str, object], *, timeout: float = 5.0
) -> Stored | None:
    """The message that `STREAM.MSG.GET` gives for `wanted`, asked of the stream's leader; None if there is none."""
    try:
        answer = await connection.api(f"STREAM.MSG.GET.{stream}", dict(wanted), timeout=timeout)
    except ApiError as error:
        if error.code == _NO_MESSAGE:
            return None
        raise
    message: dict[str, Any] = answer["message"]
    headers = parse_headers(base64.b64decode(message.get("hdrs", "")))
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
        try:
            some, pending = await batch(connection, stream, subject, {"seq": start}, timeout=timeout)
        except Outage:
            continue
        found += some
        if pending == 0 or not some:
            return found
        start = some[-1].sequence + 1


async def last_of_each(
    connection: Connection, stream: str, subjects: Sequence[str], up_to: int, *, timeout: float = 5.0
) -> list[Stored] | None:
    """The last message of each subject that matches one of `subjects`, among those up to the sequence `up_to`.

    None if they are more than the server gives at once (1,024), or too large together. A replica may be behind.
    """
    name = connection.api_subject(f"DIRECT.GET.{stream}")
    body = msgspec.json.encode({"multi_last": subjects, "up_to_seq": up_to})
    while True:
        try:
            *messages, end = await _replies(connection, name, body, timeout)
        except Outage:
            continue
        headers = end.headers or {}
        match status_of(end):
            case "204":
                if int(headers.get("Nats-Num-Pending", "0")):
                    return None
                return [stored for message in messages if (stored := _stored(message)) is not None]
            case "404":
                return []
            case "413":
                return None
            case status:
                raise _refused(name, status, headers)


class Outage(Exception):
    """The connection was lost on the way."""


async def batch(
    connection: Connection, stream: str, subject: str, start: Mapping[str, object], *, timeout: float = 5.0
) -> tuple[list[Stored], int]:
    """Up to _BATCH messages on `subject` from `start` on (`seq` or `start_time`), and how many follow.

    Raises:
        Outage: the connection was lost on the way.
        ApiError, NoResponder, PermissionDenied, Unconfirmed: as `Connection.api`.
    """
    name = connection.api_subject(f"DIRECT.GET.{stream}")
    body = msgspec.json.encode({**start, "next_by_subj": subject, "batch": _BATCH})
    *messages, last = await _replies(connection, name, body, timeout)
    headers = last.headers or {}
    match status_of(last):
        case "204":
            found = [stored for message in messages if (stored := _stored(message)) is not None]
            return found, int(headers.get("Nats-Num-Pending", "0"))
        case "404":
            return [], 0
        case status:
            raise _refused(name, status, headers)


def _refused(name: str, status: str | None, headers: Mapping[str, str]) -> NoResponder | ApiError:
    return NoResponder(name) if status == "503" else ApiError(int(status or 0), headers.get("Description", ""))


async def _replies(connection: Connection, name: str, body: bytes, timeout: float) -> list[Message]:
    """All replies to one request; the last is a status."""
    messages: list[Message] = []
    done: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def end(error: Exception | None) -> None:
        if not done.done():
            done.set_result(error)

    def on_message(message: Message) -> None:
        messages.append(message)
        if status_of(message) is not None:
            end(None)

    def on_denied(action: str, denied: str) -> None:
        if action == "publish" and denied == name.lower():
            end(PermissionDenied("publish to", name))

    subscription = await connection.subscribe(connection.new_inbox(), on_message)
    forget = (connection.on_reconnect(lambda: end(Outage())), connection.on_denied(on_denied))
    try:
        async with asyncio.timeout(timeout):
            await connection.publish(name, body, reply=subscription.subject)
            error = await done
    except TimeoutError:
        raise Unconfirmed(f"reading by {name}, after {timeout:g} s without an end") from None
    finally:
        for each in forget:
            each()
        await subscription.close()
    if error is not None:
        raise error
    return messages


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
