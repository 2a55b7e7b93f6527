"""What is done where somebody has erased the bucket: the bookkeeper's memory is the only copy of the live runs left."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable

from corral.book import Book
from corral.errors import Conflict, CorralError
from corral.jetstream.records import Records
from corral.runs import encode
from corral.subjects import interrupt_key, run_key, unique_key

log = logging.getLogger(__name__)

RUNS_AT_ONCE = 200
"""Runs that are written at once."""
PAUSE = 0.5
"""Seconds until what could not be written is tried again; each time as long again, up to:"""
LONGEST = 30.0


async def write_anew(records: Records, books: Iterable[Book]) -> None:
    """Create the records, keys and markers of live runs, as far as they are not there; returns when all are.

    What cannot be written is tried again, after the others, until it is written or the run has ended.
    """
    left = [book for book in books if book.record is not None]
    log.error("the bucket was erased; live runs are written anew", extra={"runs": len(left)})
    pause = PAUSE
    while left:
        failed: dict[str, CorralError] = {}
        for start in range(0, len(left), RUNS_AT_ONCE):
            async with asyncio.TaskGroup() as group:
                for book in left[start : start + RUNS_AT_ONCE]:
                    group.create_task(_write(records, book, failed))
        left = [book for book in left if book.run_id in failed]
        for error in list(failed.values())[:1]:
            log.warning("runs could not be written anew yet", extra={"runs": len(left), "error": str(error)})
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST)


async def _write(records: Records, book: Book, failed: dict[str, CorralError]) -> None:
    if book.record is None or book.closed:
        return
    keys = {}
    if book.record.unique is not None:
        keys[unique_key(book.record.unique)] = book.run_id.encode()
    if book.marker is not None:
        keys[interrupt_key(book.run_id)] = encode(book.marker)
    keys[run_key(book.run_id)] = encode(book.record)  # last: who sees it finds the rest
    try:
        for key, value in keys.items():
            with contextlib.suppress(Conflict):  # it was not erased, or somebody has written it since
                await records.create(key, value)
    except CorralError as error:
        failed[book.run_id] = error
