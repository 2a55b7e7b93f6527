"""The messages of a retry on their way, and the record that says how far they have come."""

from __future__ import annotations

import time

import msgspec

from corral.errors import Conflict
from corral.history import StoredBody
from corral.jetstream.publisher import Window
from corral.jetstream.records import Records
from corral.messages import encode_task
from corral.runs import Record, encode
from corral.subjects import Names, run_key

WINDOW = 2_000
"""Messages that are confirmed together, at most;"""
WINDOW_BYTES = 4 * 1024 * 1024
"""and their bytes, about."""


class Sending:
    """Messages on their way, a window at a time, and how far they have come."""

    def __init__(self, window: Window, records: Records, names: Names, record: Record, revision: int) -> None:
        self.pause = 5.0
        """Seconds without a note after which there is one for the sake of it."""
        self._window = window
        self._records = records
        self._names = names
        self._record = record
        self._revision = revision
        self._bytes = 0
        self._last = 0
        self._noted_at = 0.0

    async def send(self, topic: str, each: StoredBody) -> bool:
        """Publish the message of a task; False if its body cannot be read."""
        body = each.body()
        if body is None:
            return False
        message = encode_task(each.task, self._record.round, body)
        await self._window.add(self._names.task(self._record.id, topic), message)
        self._last = each.stored.sequence
        self._bytes += len(message)
        if self._window.count >= WINDOW or self._bytes >= WINDOW_BYTES:
            await self.settle()
        return True

    async def settle(self) -> None:
        """Wait until all is stored, and note that; Conflict as `note`."""
        if self._window.count:
            await self._window.settle()
            self._bytes = 0
            await self.note(self._last)

    async def note_in_time(self) -> None:
        """Give a sign of life where nothing was sent for long; Conflict as `note`."""
        if time.monotonic() - self._noted_at > self.pause:
            await self.note(self._record.resent)

    async def note(self, sequence: int) -> None:
        """Note up to which stored error all have their messages; Conflict if somebody else has written the record."""
        await self._write(msgspec.structs.replace(self._record, resent=sequence, updated_at=time.time()))

    async def run(self) -> None:
        """Without a root that claims the run, it runs from here on; Conflict as `note`."""
        await self._write(msgspec.structs.replace(self._record, state="running"))

    def close(self) -> None:
        """Wait for nothing any more."""
        self._window.abandon()

    async def _write(self, record: Record) -> None:
        if self._record.state != "queued":
            raise Conflict(run_key(record.id))
        self._revision = await self._records.update(run_key(record.id), encode(record), self._revision)
        self._record = record
        self._noted_at = time.monotonic()
