"""Reading a stream in order, without gaps and without duplicates, over outages and restarts.

The server keeps a short-lived consumer that remembers nothing; what was read so far is known here.
Whenever the sequence of deliveries has a hole, a heartbeat is missing, the connection was lost or
the consumer is gone, a new consumer continues one past the last message that was handed out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

import msgspec

from corral.errors import ApiError, CorralError, NoResponder, NoServer, Unconfirmed
from corral.jetstream import direct
from corral.jetstream.connection import Connection, Message, Subscription
from corral.jetstream.direct import Stored, operation_of

__all__ = ["LAST_PER_SUBJECT", "NEW", "Reader", "Since", "Stored"]

_log = logging.getLogger(__name__)

_BATCH = 2_000  # messages asked for at once
_MAX_BYTES = 16 << 20  # bytes asked for at once, so that large messages don't pile up
_EXPIRES = 30.0
_HEARTBEAT = 5.0
_INACTIVE = 60.0  # seconds after which the server removes a consumer that nobody reads
_RETRY = 0.5
_NS = 1_000_000_000


class _Start(Enum):
    LAST_PER_SUBJECT = "last_per_subject"
    NEW = "new"


LAST_PER_SUBJECT: Final = _Start.LAST_PER_SUBJECT
"""Start with the last message of each subject."""
NEW: Final = _Start.NEW
"""Start with what is stored from now on."""


@dataclass(frozen=True, slots=True)
class Since:
    """Start with the first message that was stored at or after `time`, in seconds since 1970."""

    time: float


class Reader:
    """Batches of messages of a stream: `async for batch in reader`. It serves one asyncio task.

    `start` is a stream sequence, `Since(time)`, `LAST_PER_SUBJECT` or `NEW`. `filters` are subjects
    with wildcards; none means the whole stream. Nothing is asked of the server before the first
    iteration, and no more than about two batches are held for a reader that is slow.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        filters: Sequence[str] = (),
        *,
        start: int | Since | _Start = 1,
    ) -> None:
        self.position = 0
        """Sequence of the last message that was handed out; 0 before the first."""
        self.pending: int | None = None
        """Messages that waited in the stream behind the last one handed out; None before that is known."""
        self.generation = 0
        """How often the stream was found to have lost what was read; then reading begins again at `start`."""
        self.caught_up = asyncio.Event()
        """Set when all that was there has been handed out and the next batch is asked for."""
        self._connection = connection
        self._stream = stream
        self._filters = list(filters)
        self._start = start
        self._batch_bytes = max(_MAX_BYTES, 2 * connection.max_payload)
        self._epoch: _Epoch | None = None
        self._anchor: tuple[int, int] | None = None  # sequence and time (ns) of the last message handed out
        self._wake = asyncio.Event()
        self._closed = False
        self._forget = connection.on_reconnect(self._on_reconnect)

    def __aiter__(self) -> AsyncIterator[list[Stored]]:
        return self

    async def __anext__(self) -> list[Stored]:
        """The next messages, at least one, in the order of the stream.

        Raises:
            ApiError: the stream is not there, or a filter is refused.
            PermissionDenied: at once, when the server says so.
        """
        if self.pending == 0:
            self.caught_up.set()
        while not self._closed:
            epoch = await self._healthy_epoch()
            if epoch.batch:
                return self._hand_out(epoch)
            if epoch.pending == 0:  # only before the first message: nothing fits the filters
                self.pending = 0
                self.caught_up.set()
            await epoch.ask()
            self._wake.clear()
            await self._wait(epoch)
        raise StopAsyncIteration

    async def read_all(self) -> list[Stored]:
        """All messages up to the end that the stream has on the way, possibly none."""
        found: list[Stored] = []
        while self.pending != 0 and not self._closed:
            epoch = await self._healthy_epoch()
            if epoch.pending == 0 and not epoch.batch:
                self.pending = 0
                break
            generation = self.generation
            found += await anext(self)
            if generation != self.generation:
                found.clear()
        self.caught_up.set()
        return found

    async def close(self) -> None:
        """Stop; an iteration that waits ends."""
        self._closed = True
        self._wake.set()
        self._forget()
        if self._epoch is not None:
            epoch, self._epoch = self._epoch, None
            await epoch.close()
            if self._connection.connected:
                # Else, or if this is refused, the server removes the consumer after _INACTIVE seconds.
                await self._connection.publish(f"$JS.API.CONSUMER.DELETE.{self._stream}.{epoch.name}")

    # --- inside

    def _hand_out(self, epoch: _Epoch) -> list[Stored]:
        batch, epoch.batch = epoch.batch, []
        self.position = batch[-1].sequence
        self._anchor = (self.position, epoch.time)
        self.pending = epoch.pending
        return batch

    async def _wait(self, epoch: _Epoch) -> None:
        """Until something arrives or changes; a missed heartbeat breaks the epoch."""
        epoch.heard = False
        try:
            async with asyncio.timeout(2 * _HEARTBEAT):
                await self._wake.wait()
        except TimeoutError:
            if not epoch.heard:
                epoch.breaks("no heartbeat")

    async def _healthy_epoch(self) -> _Epoch:
        """The present epoch, or a new one that continues where the broken one has handed out its last message."""
        while self._epoch is None or (self._epoch.broken and not self._epoch.batch):
            if self._epoch is not None:
                broken, self._epoch = self._epoch, None
                _log.debug("reading again", extra={"stream": self._stream, "reason": broken.broken})
                await broken.close()
            try:
                self._epoch = await self._begin()
            except (NoServer, Unconfirmed, NoResponder):
                await asyncio.sleep(_RETRY)  # an outage, which ends
        return self._epoch

    async def _begin(self) -> _Epoch:
        if await self._anchor_is_gone():
            self._start_again()
        epoch = _Epoch(self)
        epoch.subscription = await self._connection.subscribe(epoch.inbox, epoch.on_message)
        try:
            info = await self._create_consumer(epoch.name)
            if self.position and info["delivered"]["stream_seq"] < self.position:
                # The server puts a start behind the stream's end back to its end: it has lost its tail.
                self._start_again()
                epoch.broken = "the stream is shorter than what was read"
        except BaseException:
            await epoch.close()
            raise
        epoch.pending = info["num_pending"]
        return epoch

    def _start_again(self) -> None:
        _log.warning("the stream has lost messages that were read", extra={"stream": self._stream})
        self.generation += 1
        self.position = 0
        self.pending = None
        self._anchor = None
        self.caught_up.clear()

    async def _anchor_is_gone(self) -> bool:
        """Whether another message stands where the last one was read: the stream lost its tail and grew again."""
        if self._anchor is None:
            return False
        sequence, time_ns = self._anchor
        try:
            stored = await direct.at(self._connection, self._stream, sequence)
        except ApiError:
            return False
        # Absent says nothing: it may have been purged or replaced. Floats of today's times are exact to 1 µs.
        return stored is not None and abs(stored.time - time_ns / _NS) > 1e-5

    async def _create_consumer(self, name: str) -> dict[str, Any]:
        config: dict[str, object] = {
            "name": name,
            "ack_policy": "none",
            "max_deliver": 1,
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": int(_INACTIVE * _NS),
            **self._deliver_from(),
        }
        suffix = f"CONSUMER.CREATE.{self._stream}.{name}"
        if len(self._filters) == 1:  # the subject then says which filter, for permissions
            config["filter_subject"] = self._filters[0]
            suffix += f".{self._filters[0]}"
        elif self._filters:
            config["filter_subjects"] = self._filters
        return await self._connection.api(suffix, {"stream_name": self._stream, "config": config})

    def _deliver_from(self) -> dict[str, object]:
        if self.position:
            return {"deliver_policy": "by_start_sequence", "opt_start_seq": self.position + 1}
        match self._start:
            case _Start():
                return {"deliver_policy": self._start.value}
            case Since(time):
                start = datetime.fromtimestamp(time, UTC).isoformat()
                return {"deliver_policy": "by_start_time", "opt_start_time": start}
            case int():
                return {"deliver_policy": "by_start_sequence", "opt_start_seq": max(self._start, 1)}

    def _on_reconnect(self) -> None:
        if self._epoch is not None:
            self._epoch.breaks("the connection was lost")


class _Epoch:
    """One consumer and what came from it."""

    def __init__(self, reader: Reader) -> None:
        self.name = f"r{secrets.token_hex(8)}"
        self.inbox = reader._connection.new_inbox()
        self.subscription: Subscription | None = None
        self.batch: list[Stored] = []
        self.time = 0  # ns, of the last message
        self.pending: int | None = None
        self.broken = ""  # why, when it is
        self.heard = True
        self._reader = reader
        self._delivered = 0  # deliveries of this consumer so far
        self._asked = 0  # asked for and neither delivered nor expired

    async def ask(self) -> None:
        """Ask for more, unless enough is on its way."""
        if self.broken or self._asked > _BATCH // 2:
            return
        self._asked += _BATCH
        body = {
            "batch": _BATCH,
            "max_bytes": self._reader._batch_bytes,
            "expires": int(_EXPIRES * _NS),
            "idle_heartbeat": int(_HEARTBEAT * _NS),
        }
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._reader._stream}.{self.name}"
        await self._reader._connection.publish(subject, msgspec.json.encode(body), reply=self.inbox)

    def on_message(self, message: Message) -> None:
        self.heard = True
        if self.broken:
            return
        if not message.reply.startswith("$JS.ACK."):
            self._on_status(message)
            return
        tokens = message.reply.split(".")
        # $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<ns>.<pending>; a longer form
        # has domain and account before the stream, and one token more at the end.
        sequence, delivered, time_ns, pending = tokens[5:9] if len(tokens) == 9 else tokens[7:11]
        self._delivered += 1
        if int(delivered) != self._delivered:
            self.breaks("a gap")
            return
        self._asked -= 1
        self.time = int(time_ns)
        self.pending = int(pending)
        operation = None if message.headers is None else operation_of(message.headers)
        self.batch.append(Stored(message.subject, int(sequence), self.time / _NS, message.data, operation))
        self._reader._wake.set()

    def _on_status(self, message: Message) -> None:
        headers = message.headers or {}
        status = headers.get("Status")
        if status == "100":
            if int(headers.get("Nats-Last-Consumer", self._delivered)) > self._delivered:
                self.breaks("a gap")
        elif status == "408" or "Nats-Pending-Messages" in headers:  # expired, or enough bytes
            self._asked -= int(headers.get("Nats-Pending-Messages", _BATCH))
            self._reader._wake.set()
        else:
            self.breaks(f"{status} {headers.get('Description', '')}")

    def breaks(self, reason: str) -> None:
        """This consumer delivers nothing more that counts; what it has delivered does."""
        self.broken = self.broken or reason
        self._reader._wake.set()

    async def close(self) -> None:
        if self.subscription is not None:
            with contextlib.suppress(CorralError):
                await self.subscription.close()
