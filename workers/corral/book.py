"""What the bookkeeper knows of one run, and of all."""

from __future__ import annotations

import time
from collections.abc import Iterator

from corral.events import AnyEvent
from corral.ledger import Ledger
from corral.runs import Marker, Record

HELD = 10_000
"""Events of a run without a record that are kept at most."""


class Book:
    """A live run's record, its marker, and the ledger of its events."""

    __slots__ = (
        "closed",
        "ending",
        "held",
        "ledger",
        "marker",
        "moved_at",
        "record",
        "reopening",
        "revision",
        "run_id",
        "shown_running",
        "write_at",
    )

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.record: Record | None = None
        self.revision = 0
        self.marker: Marker | None = None
        self.ledger = _NOTHING
        self.held: list[tuple[AnyEvent, int, float]] | None = []
        """Events that wait until the ledger can take them: the run's topic is not known yet, or its history is read."""
        self.reopening = False
        """The run's history is being read."""
        self.closed = False
        """The run has ended."""
        self.ending = False
        """Its end is under way."""
        self.moved_at = time.monotonic()
        """`time.monotonic()` of the last change of its record or its counts."""
        self.write_at = 0.0
        """`time.monotonic()` from which on its record may be written again."""
        self.shown_running = False
        """The record shows running tasks, so that it must be written again when they stop."""

    @property
    def live(self) -> bool:
        """Whether the run is known and folded, and has not ended."""
        return self.record is not None and not self.closed and self.held is None

    def take(self, event: AnyEvent, sequence: int, at: float) -> None:
        """Fold an event, or keep it until that is possible."""
        if self.held is not None:
            if self.record is None and len(self.held) >= HELD:
                # Somebody may have made the run up. If not, its history is read when its record comes.
                self.held.clear()
                self.reopening = True
            self.held.append((event, sequence, at))
        else:
            self.ledger.apply(event, sequence, at)

    def open(self, ledger: Ledger) -> None:
        """Begin with a ledger: a new one, or one that has folded some of the run's history."""
        self.ledger, held, self.held = ledger, self.held, None
        self.reopening = False
        for event, sequence, at in held or ():
            self.ledger.apply(event, sequence, at)  # what it has folded already, it passes over


class Books:
    """The books of all runs that are live, or not known yet. Of those that have ended only the ids are kept."""

    def __init__(self) -> None:
        self._open: dict[str, Book] = {}
        self._closed: dict[str, int] = {}
        """Run -> the revision of its final record."""

    def __iter__(self) -> Iterator[Book]:
        return iter(list(self._open.values()))

    def get(self, run_id: str) -> Book | None:
        """The book of a run that has not ended; None if there is none."""
        return self._open.get(run_id)

    def of(self, run_id: str) -> Book:
        """The book of a run that has not ended, a new one if there is none."""
        book = self._open.get(run_id)
        if book is None:
            book = self._open[run_id] = Book(run_id)
        return book

    def has_ended(self, run_id: str) -> bool:
        """Whether the run is known to have ended."""
        return run_id in self._closed

    def close(self, run_id: str, revision: int) -> None:
        """The run has ended, with a record of this revision."""
        book = self._open.pop(run_id, None)
        if book is not None:
            book.closed = True
            book.ledger, book.held = _NOTHING, None
        self._closed[run_id] = max(revision, self._closed.get(run_id, 0))

    def reopen(self, run_id: str, revision: int) -> Book | None:
        """The book of a run that is live by a record of this revision; None if it has ended by a later one.

        Of a run that had ended, which a retry has brought back, the book is `reopening`.
        """
        ended_by = self._closed.get(run_id, 0)
        if revision <= ended_by:
            return None
        book = self.of(run_id)
        if ended_by:
            del self._closed[run_id]
            book.reopening = True
        return book

    def forget(self, run_id: str) -> None:
        """The run's record is gone."""
        self._open.pop(run_id, None)
        self._closed.pop(run_id, None)


_NOTHING = Ledger("")
