"""What the bookkeeper knows of one run."""

from __future__ import annotations

import time

from corral.ledger import Ledger
from corral.runs import Marker, Record


class Book:
    """A run's record, its marker, and the ledger of its events."""

    __slots__ = (
        "closed",
        "ending",
        "ledger",
        "marker",
        "marker_revision",
        "moved_at",
        "record",
        "revision",
        "run_id",
        "shown_running",
    )

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.record: Record | None = None
        self.revision = 0
        self.marker: Marker | None = None
        self.marker_revision = 0
        self.ledger = Ledger("")
        self.closed = False
        """The run has ended: its events are not folded any more."""
        self.ending = False
        """Its end is under way."""
        self.moved_at = time.monotonic()
        """`time.monotonic()` of the last change of its record or its counts."""
        self.shown_running = False
        """The record shows running tasks, so that it must be written again when they stop."""

    @property
    def live(self) -> bool:
        """Whether the run is known, and has not ended."""
        return self.record is not None and not self.closed

    def close(self) -> None:
        """Forget what only a live run needs."""
        self.closed = True
        self.ledger = _NOTHING


_NOTHING = Ledger("")
