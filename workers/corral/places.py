"""Places for so many at once, which can be lent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager


class Places:
    """`count` places, and one more for each that is lent by a holder who waits for what others must do first."""

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)
        self._holders: set[Hashable] = set()

    @asynccontextmanager
    async def taken(self, holder: Hashable) -> AsyncIterator[None]:
        """Hold a place, once there is one."""
        await self._free.acquire()
        self._holders.add(holder)
        try:
            yield
        finally:
            self.lend(holder)

    def lend(self, holder: Hashable) -> None:
        """Let another one have the holder's place, for good. Who holds none lends none."""
        if holder in self._holders:
            self._holders.discard(holder)
            self._free.release()
