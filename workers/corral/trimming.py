"""Old runs make room for new ones: what is kept of ended runs goes before its time where a stream is nearly full.

A record and its events are kept for days, so that people can look at them. Where so many runs end that there is no room
for days, the oldest go first; otherwise starts, and in the end all work, would stop until something expires.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from corral.errors import CorralError, Unreadable
from corral.jetstream import direct
from corral.jetstream.connection import Connection
from corral.jetstream.direct import Stored
from corral.jetstream.topology import purge_events, purge_key, room
from corral.runs import decode_record
from corral.subjects import Names, interrupt_key

log = logging.getLogger(__name__)

BEGIN = 0.8
"""A stream of records or events that is fuller than this part of its limit is made emptier,"""
END = 0.75
"""until no more than this part is taken."""
KEPT = 30.0
"""Seconds for which an ended run is kept in any case: whoever waits for it sees its end."""
LOOK = 2.0
"""Seconds between two looks."""
PAGES = 20
"""Thousands of records that are gone through in one look."""
AT_ONCE = 50


class Trimming:
    """The bookkeeper's. `on_forgotten` is called with each run's id: nobody else is told."""

    def __init__(self, connection: Connection, names: Names, on_forgotten: Callable[[str], None]) -> None:
        self._connection = connection
        self._names = names
        self._on_forgotten = on_forgotten
        self._next = 1
        """Where the next look goes on among the records, which lie in the order in which they were last written."""

    async def run(self) -> None:
        """Look from time to time, until cancelled."""
        while True:
            await asyncio.sleep(LOOK)
            await self.try_to_look()

    async def try_to_look(self) -> None:
        """As `look`; what goes wrong is logged."""
        try:
            await self.look()
        except (CorralError, direct.Outage) as error:
            log.warning("no room could be made", extra={"error": str(error)})

    async def look(self) -> int:
        """Forget old runs if a stream is nearly full; how many."""
        gone = 0
        if await self._fuller_than(BEGIN):
            for _ in range(PAGES):
                gone += await self._go_through_page()
                if self._next == 1 or not await self._fuller_than(END):
                    break
        if gone:
            log.warning("old runs are forgotten, because there is no room for more", extra={"runs": gone})
        return gone

    async def _go_through_page(self) -> int:
        stored, pending = await direct.batch(
            self._connection, self._names.bucket_stream, self._names.key("run.*"), {"seq": self._next}
        )
        self._next = stored[-1].sequence + 1 if stored and pending else 1
        ended = [each for each in stored if self._has_ended(each)]
        gone = 0
        for start in range(0, len(ended), AT_ONCE):
            if gone and not await self._fuller_than(END):
                self._next = ended[start].sequence
                break
            gone += sum(await asyncio.gather(*map(self._forget, ended[start : start + AT_ONCE])))
        return gone

    async def _fuller_than(self, part: float) -> bool:
        streams = await room(self._connection, self._names)
        return any(
            used > part * limit > 0 for stream, (used, limit) in streams.items() if stream != self._names.tasks_stream
        )

    def _has_ended(self, stored: Stored) -> bool:
        if stored.operation is not None or stored.time > time.time() - KEPT:
            return False
        try:
            return not decode_record(stored.data).live
        except Unreadable:
            return False

    async def _forget(self, stored: Stored) -> bool:
        """The record first, if it is still this one: without it nobody brings the run back and misses its events."""
        key = self._names.key_of(stored.subject)
        run_id = key.partition(".")[2]
        # Without a tombstone, for which there may be no room, and which nobody needs: whoever shows the run keeps it.
        if not await purge_key(self._connection, self._names, key, stored.sequence):
            return False  # a retry has brought it back, or somebody else was here
        self._on_forgotten(run_id)
        # What may still turn up of a run without a record is dropped, also without its marker.
        await purge_key(self._connection, self._names, interrupt_key(run_id))
        await purge_events(self._connection, self._names, run_id)
        return True
