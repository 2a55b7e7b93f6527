"""The counts in the runs' records: written when they change, and not more often than anybody could read them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable

import msgspec

from corral.book import Book, Books
from corral.errors import Conflict, CorralError
from corral.jetstream.records import Records
from corral.roster import Roster
from corral.runs import counted, encode
from corral.settings import Settings
from corral.subjects import run_key

log = logging.getLogger(__name__)

_AT_ONCE = 200
_BYTES_PER_SECOND = 1_000_000
"""What the writes of one record may cost: a body of a megabyte is stored again with each."""


class RecordWriter:
    """Writes the records of live runs. `settings.record_interval` seconds pass between two writes of one."""

    def __init__(self, records: Records, books: Books, roster: Roster, settings: Settings) -> None:
        self._records = records
        self._books = books
        self._roster = roster
        self._settings = settings
        self._dirty: set[str] = set()

    def touch(self, run_ids: Iterable[str]) -> None:
        """The counts of these runs may have changed."""
        self._dirty.update(run_ids)

    async def run(self) -> None:
        """Write until cancelled. With so many runs that a round takes long, half of the time is left for their ends."""
        spent = 0.0
        while True:
            await asyncio.sleep(max(self._settings.record_interval, spent))
            began = time.monotonic()
            dirty, self._dirty = self._dirty, set()
            books = [book for run_id in dirty if (book := self._books.get(run_id)) is not None and book.live]
            self._dirty.update(book.run_id for book in books if book.write_at > began)
            due = [book for book in books if book.write_at <= began]
            for start in range(0, len(due), _AT_ONCE):
                await asyncio.gather(*[self._write(book) for book in due[start : start + _AT_ONCE]])
            spent = time.monotonic() - began

    async def _write(self, book: Book) -> None:
        record = book.record
        # An ending run's record is written by its ending; one that nobody claimed has nothing to count.
        counted_now = record is not None and record.state in ("running", "interrupting")
        if record is None or not counted_now or not book.live or book.ledger.over or book.ending:
            return
        topics, root = self._roster.running(book.run_id, time.monotonic())
        book.shown_running = bool(topics) or root
        new = counted(record, book.ledger, topics, root_running=root)
        if new == record:
            return
        new = msgspec.structs.replace(new, updated_at=time.time())
        value = encode(new)
        book.write_at = time.monotonic() + len(value) / _BYTES_PER_SECOND
        try:
            revision = await self._records.update(run_key(book.run_id), value, book.revision)
        except Conflict:
            self._dirty.add(book.run_id)  # the new record is on its way here
        except CorralError as error:
            log.warning("a record was not written", extra={"run": book.run_id, "error": str(error)})
            self._dirty.add(book.run_id)
        else:
            if revision > book.revision:
                book.record, book.revision = new, revision
