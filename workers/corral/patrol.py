"""What the bookkeeper sees to because no event announces it: workers that die, runs that stand still, strangers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import islice
from typing import Protocol

from corral.book import Book, Books
from corral.ending import Ending
from corral.errors import CorralError, Unreadable
from corral.jetstream.records import Records
from corral.oddities import Oddities
from corral.record_writer import RecordWriter
from corral.recovery import Recovery
from corral.subjects import run_key

log = logging.getLogger(__name__)

LOOK = 1.0
"""Seconds between two looks, at most."""
AT_ONCE = 2_000
"""Runs that are looked at in one look. With a hundred thousand live ones nothing else would get its turn."""
REPAIRS = 200
"""Runs that are repaired at once: each costs the server two questions. The others come a look later."""
UNKNOWN = 30.0
"""Seconds after which a run that has events or a marker and no record is forgotten: its record has expired."""


class OnRecord(Protocol):
    """What is done with a record that was read."""

    def __call__(self, run_id: str, data: bytes, revision: int, *, gone: bool) -> None:
        """Unreadable if it is none."""


class Patrol:
    """Looks at all books, some at a time, each in its turn. `pause` is in seconds."""

    def __init__(
        self,
        *,
        records: Records,
        books: Books,
        recovery: Recovery,
        ending: Ending,
        writer: RecordWriter,
        fold_to: Callable[[], Awaitable[None]],
        on_record: OnRecord,
        oddities: Oddities,
        pause: float,
        group: asyncio.TaskGroup,
    ) -> None:
        self._records = records
        self._books = books
        self._recovery = recovery
        self._ending = ending
        self._writer = writer
        self._fold_to = fold_to
        self._on_record = on_record
        self._oddities = oddities
        self._pause = pause
        self._group = group
        self._repairing: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Look until cancelled."""
        turns: Iterator[Book] = iter(())
        while True:
            await asyncio.sleep(self._pause)
            now = time.monotonic()
            self._writer.touch(book.run_id for book in self._books if book.shown_running)
            some = list(islice(turns, AT_ONCE))
            if len(some) < AT_ONCE:
                turns = iter(self._books)
            for book in some:
                if self._books.get(book.run_id) is book:
                    self._look_at(book, now)
            self._ending.heard()

    def _look_at(self, book: Book, now: float) -> None:
        if book.live:
            self._ending.look_at(book)
            if len(self._repairing) < REPAIRS and self._recovery.due(book, now):
                repair = self._group.create_task(self._repair(book))
                self._repairing.add(repair)
                repair.add_done_callback(self._repairing.discard)
        elif book.record is None and now - book.moved_at > UNKNOWN:
            book.moved_at = now
            self._group.create_task(self._look_up(book))

    async def _repair(self, book: Book) -> None:
        moved_at = book.moved_at = time.monotonic()  # look again only after as long a time
        try:
            await self._fold_to()
            if book.live and book.moved_at == moved_at:
                await self._recovery.repair(book)
        except Exception as error:  # noqa: BLE001  # one run that cannot be repaired must not stop all others
            log.warning("a run could not be repaired", extra={"run": book.run_id, "error": str(error)})

    async def _look_up(self, book: Book) -> None:
        """Forget a run that has no record; if it has one, that must have been missed."""
        try:
            entry = await self._records.get(run_key(book.run_id), leader=True)
        except CorralError as error:
            log.warning("a record could not be looked up", extra={"run": book.run_id, "error": str(error)})
            return
        if entry is None:
            if book.record is None:
                self._books.forget(book.run_id)
            return
        try:
            self._on_record(book.run_id, entry.value, entry.revision, gone=False)
        except Unreadable as error:
            self._oddities.note("a run whose record cannot be read is left alone", run=book.run_id, error=str(error))
            if book.record is None:
                self._books.forget(book.run_id)
