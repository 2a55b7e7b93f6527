"""Reading a stream in order, without gaps and without duplicates, over outages and restarts.

The server keeps a short-lived consumer that remembers nothing; what was read so far is known here.
Whenever the sequence of deliveries has a hole, a heartbeat is missing, the connection was lost or
the consumer is gone, a new consumer continues one past the last message that was handed out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Final

from corral.errors import ApiError, NoResponder, NoServer, PermissionDenied, Unconfirmed
from corral.jetstream import direct
from corral.jetstream.connection import Connection
from corral.jetstream.direct import Stored
from corral.jetstream.ephemeral import Ephemeral
from corral.jetstream.polling import Polling

__all__ = ["LAST_PER_SUBJECT", "NEW", "Reader", "Since", "Stored"]

_log = logging.getLogger(__name__)

_RETRY = 0.5  # seconds until reading is tried again in an outage
_NS = 1_000_000_000

Source = Ephemeral | Polling


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


@dataclass(frozen=True, slots=True)
class Behind:
    """Start behind the message of this sequence, which was stored at `time`, in seconds since 1970.

    If another one is stored there now, the stream has lost what was read: `Reader.generation` says so, and reading
    begins with the first message.
    """

    sequence: int
    time: float


class Reader:
    """Batches of messages of a stream: `async for batch in reader`. It serves one asyncio task.

    `start` is a stream sequence, `Since(time)`, `Behind(...)`, `LAST_PER_SUBJECT` or `NEW`. `filters` are subjects
    with wildcards; none means the whole stream. Nothing is asked of the server before the first
    iteration, and no more than about two batches are held for a reader that is slow. `heartbeat` is
    in seconds: after two of them in silence reading begins anew.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        filters: Sequence[str] = (),
        *,
        start: int | Since | Behind | _Start = 1,
        heartbeat: float = 5.0,
    ) -> None:
        self.position = 0
        """Sequence of the last message that was handed out, or is to be read behind; 0 before the first."""
        self.pending: int | None = None
        """Messages that waited in the stream behind the last one handed out; None before that is known."""
        self.generation = 0
        """How often the stream was found to have lost what was read; then reading begins again at `start`."""
        self.caught_up = asyncio.Event()
        """Set when all that was there has been handed out and the next batch is asked for."""
        self.sure = asyncio.Event()
        """Set while nothing suggests that the stream may have lost what was read: not after an outage, until it was
        looked at again."""
        self._connection = connection
        self._stream = stream
        self._filters = list(filters)
        self._start = start
        self._heartbeat = heartbeat
        self._source: Source | None = None
        self._anchor: tuple[int, int] | None = None  # sequence and time (ns) of the last message handed out
        if isinstance(start, Behind):
            self.position = start.sequence
            self._anchor = (start.sequence, int(start.time * _NS))
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
            source = await self._working_source()
            if source.batch:
                return self._hand_out(source)
            if source.pending == 0:  # nothing is there that fits the filters, or nothing any more
                self.pending = 0
                self.caught_up.set()
            await source.ask()
            await self._wait(source)
        await self._drop_source()  # one that was being made while `close` was called
        raise StopAsyncIteration

    async def to_end(self) -> AsyncGenerator[list[Stored], None]:
        """Batches of all messages from here to the present end of the stream, possibly none.

        If `generation` changes on the way, reading has begun again, and what came before is void.
        """
        while not self._closed:
            source = await self._working_source()
            if source.batch:
                yield self._hand_out(source)
            elif source.pending == 0:
                self.pending = 0
                break
            else:
                await source.ask()
                await self._wait(source)
        self.caught_up.set()

    async def read_all(self) -> list[Stored]:
        """All messages from here to the present end of the stream, possibly none."""
        found: list[Stored] = []
        generation = self.generation
        async for batch in self.to_end():
            if self.generation != generation:
                found, generation = [], self.generation
            found += batch
        return found

    async def close(self) -> None:
        """Stop; an iteration that waits ends."""
        self._closed = True
        self._wake.set()
        self._forget()
        await self._drop_source()

    # --- inside

    async def _drop_source(self) -> None:
        if self._source is not None:
            source, self._source = self._source, None
            await source.close()

    def _hand_out(self, source: Source) -> list[Stored]:
        batch, source.batch = source.batch, []
        self.position = batch[-1].sequence
        self._anchor = (self.position, source.time)
        self.pending = source.pending
        return batch

    async def _wait(self, source: Source) -> None:
        """Until something arrives or changes; a missed heartbeat breaks the source."""
        self._wake.clear()
        if source.batch or source.broken or self._closed:
            return
        source.heard = False
        try:
            async with asyncio.timeout(2 * self._heartbeat):
                await self._wake.wait()
        except TimeoutError:
            if not source.heard:
                source.breaks("no heartbeat")

    async def _working_source(self) -> Source:
        """The present source, or a new one that continues behind the last message that was handed out."""
        while self._source is None or (self._source.broken and not self._source.batch):
            if self._source is not None:
                if self._source.error is not None:
                    raise self._source.error
                _log.debug("reading again", extra={"stream": self._stream, "reason": self._source.broken})
                await self._drop_source()
            try:
                self._source = await self._begin()
            except (NoServer, Unconfirmed, NoResponder):
                await asyncio.sleep(_RETRY)  # an outage, which ends
            except ApiError as error:
                if not error.passes:
                    raise
                await asyncio.sleep(_RETRY)  # the next consumer may be placed on another node
        return self._source

    async def _begin(self) -> Source:
        if await self._lost():
            self._start_again()
        source: Source
        if self._connection.only_asks:
            source = Polling(self._connection, self._stream, self._wake)
        else:
            source = Ephemeral(self._connection, self._stream, self._wake, heartbeat=self._heartbeat)
        try:
            await source.create(self._filters, self._deliver_from())
        except PermissionDenied as denied:
            await source.close()
            if isinstance(source, Polling):
                raise
            self._connection.only_asks = True  # this user may make no consumer
            try:
                return await self._begin()
            except PermissionDenied:
                self._connection.only_asks = False
                raise denied from None
        except BaseException:
            await source.close()
            raise
        if self._start is NEW and not self.position:
            self.position = source.start  # what is new from here on stays new after an outage
        if not source.broken:
            self.sure.set()
        return source

    def _start_again(self) -> None:
        _log.warning("the stream has lost messages that were read", extra={"stream": self._stream})
        self.generation += 1
        self.position = 0
        self.pending = None
        self._anchor = None
        self.caught_up.clear()

    async def _lost(self) -> bool:
        """Whether the stream has lost its tail, with what was read here: it is shorter, or has grown again since.

        A consumer that starts behind the end would wait there, and miss what is stored meanwhile.
        """
        if self._anchor is None:
            return False
        sequence, time_ns = self._anchor
        try:
            info = await self._connection.api(f"STREAM.INFO.{self._stream}")
            if info["state"]["last_seq"] < sequence:
                return True
            stored = await direct.at(self._connection, self._stream, sequence)
        except (ApiError, PermissionDenied):
            return False  # not to be found out; creating the consumer will say what is wrong
        # Absent says nothing: it may have been purged. A float of today's time is exact to a microsecond.
        return stored is not None and abs(stored.time - time_ns / _NS) > 1e-5

    def _deliver_from(self) -> dict[str, object]:
        if self.position:
            return {"deliver_policy": "by_start_sequence", "opt_start_seq": self.position + 1}
        match self._start:
            case _Start():
                return {"deliver_policy": self._start.value}
            case Since(time):
                start = datetime.fromtimestamp(time, UTC).isoformat()
                return {"deliver_policy": "by_start_time", "opt_start_time": start}
            case Behind():
                return {"deliver_policy": "all"}
            case int():
                return {"deliver_policy": "by_start_sequence", "opt_start_seq": max(self._start, 1)}

    def _on_reconnect(self) -> None:
        self.sure.clear()
        if self._source is not None:
            self._source.breaks("the connection was lost")
