"""The markers of runs that are stopped or over, as a worker knows them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from corral.jetstream.records import Records
from corral.runs import Marker, decode_marker
from corral.subjects import Names

log = logging.getLogger(__name__)


class Markers:
    """Follows the keys `interrupt.<run>`; calls `on_marker(run, marker)` for each, those of before included."""

    def __init__(self, records: Records, names: Names, on_marker: Callable[[str, Marker], None]) -> None:
        self._reader = records.watch("interrupt.>")
        self._names = names
        self._on_marker = on_marker
        self._rounds: dict[str, int] = {}
        self.revision = 0
        """Revision of the last marker that was seen."""
        self.loaded = asyncio.Event()
        """Set when everything that was stored before the start is known."""

    def stops(self, run_id: str, round: int) -> bool:
        """Whether tasks of this round of the run are not to be executed any more."""
        stopped = self._rounds.get(run_id)
        return stopped is not None and round <= stopped

    async def run(self) -> None:
        """Follow the keys until cancelled."""
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(self._wait_loaded())
            async for batch in self._reader:
                for stored in batch:
                    self._see(self._names.key_of(stored.subject), stored.data, gone=stored.operation is not None)
                    self.revision = stored.sequence
            waiting.cancel()

    async def _wait_loaded(self) -> None:
        await self._reader.caught_up.wait()
        self.loaded.set()

    def _see(self, key: str, data: bytes, *, gone: bool) -> None:
        run_id = key.partition(".")[2]
        if gone:
            self._rounds.pop(run_id, None)
            return
        try:
            marker = decode_marker(data)
        except msgspec.DecodeError as error:
            log.error("a marker that cannot be read is ignored", extra={"run": run_id, "error": str(error)})
            return
        self._rounds[run_id] = max(marker.round, self._rounds.get(run_id, 0))
        self._on_marker(run_id, marker)
