"""Room that is kept for what has begun: runs are started only while the streams are not nearly full.

A run that has begun needs room to go on: for the tasks that it sends, for their ends, for its record and for an order
to stop it. Starts alone could fill the streams to the last byte, and then nothing would ever move again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from corral.errors import CorralError, StorageFull
from corral.jetstream.connection import Connection
from corral.jetstream.topology import room
from corral.subjects import Names

log = logging.getLogger(__name__)

FOR_STARTS = 0.9
"""The part of each stream that starts may fill."""
LOOK_AGAIN = 1.0
"""Seconds for which an answer of the server is good."""
OVERHEAD = 1_000
"""Bytes that a start takes at most in a stream, beside its message."""


class Headroom:
    """Looks at the streams at most once a second, or when what was started since then may have filled them."""

    def __init__(self, connection: Connection, names: Names) -> None:
        self._connection = connection
        self._names = names
        self._left = 0.0
        """Bytes that may still be taken, in the fullest of the streams."""
        self._under_way = 0
        """Bytes of starts that may not be stored yet: an answer of the server says nothing of them."""
        self._fullest = ""
        self._good_until = 0.0
        self._looking = asyncio.Lock()

    @asynccontextmanager
    async def taken(self, size: int) -> AsyncIterator[None]:
        """Let a start with a message of `size` bytes go on, which is stored in here.

        Raises:
            StorageFull: a stream is so full that the rest is kept for runs that have begun.
        """
        size += OVERHEAD
        if self._lacks(size):
            async with self._looking:
                if self._lacks(size):
                    await self._look()
        if self._left < size:
            kept = f"{1 - FOR_STARTS:.0%} of its limit are kept for runs that have begun"
            raise StorageFull(self._fullest, kept)
        self._left -= size
        self._under_way += size
        try:
            yield
        finally:
            self._under_way -= size

    def _lacks(self, size: int) -> bool:
        return self._left < size or time.monotonic() > self._good_until

    async def _look(self) -> None:
        try:
            streams = await room(self._connection, self._names)
        except CorralError as error:
            # Who may not ask can start all the same: the server refuses what does not fit.
            log.debug("how full the streams are is not known", extra={"error": str(error)})
            self._left = float("inf")
        else:
            left = {name: FOR_STARTS * limit - used for name, (used, limit) in streams.items() if limit > 0}
            self._fullest = min(left, key=lambda name: left[name], default="")
            self._left = left.get(self._fullest, float("inf")) - self._under_way
        self._good_until = time.monotonic() + LOOK_AGAIN
