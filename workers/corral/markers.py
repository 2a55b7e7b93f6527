"""The markers of runs that are stopped or over, as a worker knows them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from corral.errors import Unreadable
from corral.jetstream.reader import Stored
from corral.oddities import Oddities
from corral.runs import Marker, decode_marker
from corral.subjects import Names

log = logging.getLogger(__name__)


class Markers:
    """Knows the keys `interrupt.<run>`; calls `on_marker(run, marker)` for each that is seen."""

    def __init__(self, names: Names, on_marker: Callable[[str, Marker], None]) -> None:
        self._names = names
        self._on_marker = on_marker
        self._rounds: dict[str, int] = {}
        self._oddities = Oddities(log)
        self.revision = 0
        """Revision of the last marker that was seen. Set after all that follows from it."""

    def stops(self, run_id: str, round: int) -> bool:
        """Whether tasks of this round of the run are not to be executed any more."""
        stopped = self._rounds.get(run_id)
        return stopped is not None and round <= stopped

    def see(self, batch: Sequence[Stored]) -> None:
        """Take note of what was stored."""
        for stored in batch:
            run_id = self._names.key_of(stored.subject).partition(".")[2]
            if stored.operation is not None:
                self._rounds.pop(run_id, None)
            else:
                self._see(run_id, stored.data)
            self.revision = max(self.revision, stored.sequence)

    def loaded(self, revision: int) -> None:
        """All markers up to this revision have been seen; the last ones may have expired since."""
        self.revision = max(self.revision, revision)

    def _see(self, run_id: str, data: bytes) -> None:
        try:
            marker = decode_marker(data)
        except Unreadable as error:
            self._oddities.note("a marker that cannot be read is ignored", run=run_id[:64], error=str(error))
            return
        self._rounds[run_id] = max(marker.round, self._rounds.get(run_id, 0))
        self._on_marker(run_id, marker)
