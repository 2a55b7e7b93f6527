"""What the bookkeeper knows of one run."""

from __future__ import annotations

import time

from corral.events import AnyEvent
from corral.ledger import Ledger
from corral.runs import Marker, Record


class Book:
    """A run's record, its marker, and the ledger of its events."""

    __slots__ = (
        "closed",
        "ending",
        "held",
        "ledger",
        "marker",
        "marker_revision",
        "moved_at",
        "record",
        "reopening",
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
        self.ledger = _NOTHING
        self.held: list[tuple[AnyEvent, int, float]] | None = []
        """Events that wait until the ledger can take them: the run's topic is not known yet, or its history is read."""
        self.reopening = False
        """A retry has brought the run back, and its history is being read."""
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
        """Whether the run is known and folded, and has not ended."""
        return self.record is not None and not self.closed and self.held is None

    def take(self, event: AnyEvent, sequence: int, at: float) -> None:
        """Fold an event, or keep it until that is possible."""
        if self.held is not None:
            self.held.append((event, sequence, at))
        else:
            self.ledger.apply(event, sequence, at)

    def open(self, ledger: Ledger) -> None:
        """Begin with a ledger: a new one, or one that has folded the run's history."""
        self.ledger, held, self.held = ledger, self.held, None
        self.reopening = False
        for event, sequence, at in held or ():
            self.ledger.apply(event, sequence, at)  # what it has folded already, it passes over

    def close(self) -> None:
        """Forget what only a live run needs."""
        self.closed = True
        self.ledger, self.held = _NOTHING, None

    def reopen(self) -> None:
        """A retry has brought the run back: events wait until its history is read."""
        self.closed = False
        self.reopening = True
        self.held = []


_NOTHING = Ledger("")
