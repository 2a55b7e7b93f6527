"""How a run ends, be it finished or ordered to stop: one procedure, each step of which can be taken again.

    finished, or ordered to stop
      -> record `ending` or `interrupting` -> marker -> all workers confirm -> sweep the queue -> fold to the end
      -> `RunEnded` -> key freed -> record `final`

The marker stops what is left of the run anywhere: a copy of a task that was stored twice, or one that a frozen
worker holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec

from corral import events
from corral.book import Book, Books
from corral.errors import Conflict, CorralError, StorageFull
from corral.jetstream.connection import Connection
from corral.jetstream.publisher import Publisher
from corral.jetstream.records import Records
from corral.jetstream.topology import clear, last_sequence, queue_counts
from corral.retrying import Reopener
from corral.roster import Roster
from corral.runs import Marker, Record, counted, decode_marker, decode_record, encode, outcome
from corral.settings import Settings
from corral.subjects import Names, holder_of, interrupt_key, run_key, unique_key

log = logging.getLogger(__name__)

AT_ONCE = 200
"""Runs whose ends are at one of their steps. Twenty thousand at once would keep the renewal of the lease waiting behind
their requests, and the next bookkeeper would find as many."""
PAUSE = 0.5
"""Seconds before an ending that failed is tried again."""
MARKER_TTL = 900.0
"""Seconds for which the marker of a run that has ended is kept. Every worker has seen it long before; and one that
meets a task of a run that it does not know looks at the record."""


class Ending:
    """Ends runs, each in an asyncio task of `group`."""

    def __init__(
        self,
        *,
        connection: Connection,
        records: Records,
        publisher: Publisher,
        names: Names,
        settings: Settings,
        roster: Roster,
        books: Books,
        fold_to: Callable[[int | None], Awaitable[None]],
        group: asyncio.TaskGroup,
    ) -> None:
        self._connection = connection
        self._records = records
        self._publisher = publisher
        self._names = names
        self._settings = settings
        self._roster = roster
        self._books = books
        self._fold_to = fold_to
        self._group = group
        self._waiting: dict[str, tuple[int, asyncio.Future[None]]] = {}
        self._places = asyncio.Semaphore(AT_ONCE)

    def look_at(self, book: Book) -> None:
        """Begin to end the run if it is time to."""
        if book.ending or not book.live:
            return
        if self._stopped(book) or self._finished(book):
            book.ending = True
            self._group.create_task(self._end(book), name=f"end {book.run_id}")

    def heard(self) -> None:
        """Somebody may have confirmed something."""
        if not self._waiting:
            return
        seen, stopping = self._roster.confirmed(time.monotonic())
        for run_id, (revision, future) in list(self._waiting.items()):
            if revision <= seen and run_id not in stopping:
                del self._waiting[run_id]
                if not future.done():
                    future.set_result(None)

    # --- the procedure -----------------------------------------------------------------------------

    async def _end(self, book: Book) -> None:
        try:
            await self._steps(book)
        except CorralError as error:
            log.warning("the end of a run is tried again", extra={"run": book.run_id, "error": str(error)})
            await asyncio.sleep(10 * PAUSE if isinstance(error, StorageFull) else PAUSE)
        except Exception:
            # One run that cannot be ended must not keep all others from it.
            log.exception("a run could not be ended", extra={"run": book.run_id})
            await asyncio.sleep(10 * PAUSE)
        finally:
            book.ending = False
        self.look_at(book)

    async def _steps(self, book: Book) -> None:
        log.debug("an end begins", extra={"run": book.run_id})
        async with self._places:
            interrupted = self._stopped(book)
            if not await self._enter(book, "interrupting" if interrupted else "ending"):
                return
            round = book.record.round if book.record else 0
            revision = await self._mark(book, round, "stop" if interrupted else "over")
        await self._confirmed(book.run_id, revision)  # which may take as long as a thread that does not stop
        async with self._places:
            await self._conclude(book, round, interrupted=interrupted)

    async def _conclude(self, book: Book, round: int, *, interrupted: bool) -> None:
        """What follows when no worker holds anything of the run."""
        if not await self._sweep(book):
            return
        await self._fold_to(None)
        if book.closed:
            return  # another bookkeeper has ended it meanwhile, and the ledger is gone
        if book.record is not None and book.ledger.round < round:
            await self._begin_round(book, book.record)
        if not book.ledger.over:
            await self._fold_to(await self._say_ended(book, interrupted=interrupted and not book.ledger.finished))
        key_revision = await self._key_revision(book)
        if await self._unchanged(book) and not book.closed:
            await self._free_key(book, key_revision)
            if await self._finish(book) and interrupted:
                await self._shorten_marker(book.run_id, round)

    def _stopped(self, book: Book) -> bool:
        """Whether somebody ordered this round of the run to stop. The event is stored first, so it is order enough."""
        record, marker = book.record, book.marker
        # Of two bookkeepers one may have ended the run already: then the other finds a record that is final.
        if record is None or not record.live or record.state in ("starting", "reopening"):
            return False
        if book.ledger.round == record.round and book.ledger.interrupt is not None:
            return True
        return marker is not None and marker.kind == "stop" and marker.round == record.round

    def _finished(self, book: Book) -> bool:
        record = book.record
        if (
            record is None
            or record.state not in ("running", "ending", "interrupting")
            or book.ledger.round != record.round
        ):
            return False
        return book.ledger.over or book.ledger.finished

    async def _enter(self, book: Book, state: str) -> bool:
        """Move the record on; False if it has changed meanwhile and must be looked at again."""
        record = book.record
        if record is None or record.state == state:
            return record is not None
        moved = msgspec.structs.replace(record, state="ending" if state == "ending" else "interrupting")
        order = book.ledger.interrupt
        if state == "interrupting" and order is not None:
            moved = msgspec.structs.replace(moved, interrupted_by=order.by, interrupt_reason=order.reason)
        return await self._write(book, moved)

    async def _mark(self, book: Book, round: int, kind: Literal["stop", "over"]) -> int:
        """The marker's revision; it is written if there is none of this round."""
        key = interrupt_key(book.run_id)
        order = book.ledger.interrupt
        by, reason = (order.by, order.reason) if order else ("", None)
        marker = encode(Marker(kind=kind, round=round, by=by, reason=reason, at=time.time()))
        entry = None  # most runs end once, and without an order to stop: there is no marker to look for
        while True:
            try:
                if entry is None:
                    return await self._records.create(key, marker, ttl=MARKER_TTL)
                return await self._records.update(key, marker, entry.revision, ttl=MARKER_TTL)
            except Conflict:
                entry = await self._records.get(key, leader=True)
            if entry is not None and _round_of(entry.value) >= round:
                return entry.revision

    async def _shorten_marker(self, run_id: str, round: int) -> None:
        """Whoever ordered the stop wrote the marker to last for as long as the run might."""
        key = interrupt_key(run_id)
        entry = await self._records.get(key, leader=True)
        if entry is not None and _round_of(entry.value) == round:
            with contextlib.suppress(Conflict):  # a retry was stopped meanwhile
                await self._records.update(key, entry.value, entry.revision, ttl=MARKER_TTL)

    async def _confirmed(self, run_id: str, revision: int) -> None:
        seen, stopping = self._roster.confirmed(time.monotonic())
        if revision <= seen and run_id not in stopping:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[run_id] = (revision, future)
        try:
            await future
        finally:
            self._waiting.pop(run_id, None)

    async def _sweep(self, book: Book) -> bool:
        """Remove what is left in the queue.

        The bound is read before the record is checked, so that the tasks of a retry lie above it.
        """
        counts = await queue_counts(self._connection, self._names, book.run_id)
        below = 1 + await last_sequence(self._connection, self._names.tasks_stream) if counts else 0
        if not await self._unchanged(book):
            return False
        for (run_id, topic), count in counts.items():
            await clear(self._connection, self._names, run_id, topic, below=below, count=count)
        return True

    async def _begin_round(self, book: Book, record: Record) -> None:
        """The order to stop came in the middle of a retry: say all that it brings back, so that it can end.

        Else what its producer stores later would begin a round that nobody ends.
        """
        await Reopener(self._connection, self._publisher, self._names).reopen(record, book.ledger)
        if book.marker is not None:
            # The order itself is on record only in the round that has begun; what it did is counted from here on.
            ordered = events.Interrupted(round=record.round, by=book.marker.by, reason=book.marker.reason).cut()
            subject = self._names.event(book.run_id, events.kind(ordered))
            await self._publisher.store(subject, events.encode_event(ordered))
        await self._fold_to(None)

    async def _say_ended(self, book: Book, *, interrupted: bool) -> int:
        """Store that the run is over; the event's sequence."""
        ledger = book.ledger
        receipt = None
        if ledger.interrupted_at is not None:
            receipt = ledger.make_receipt(max(0.0, time.time() - ledger.interrupted_at))
        status = "interrupted" if interrupted else outcome(ledger.counts()[0])
        ended = events.RunEnded(round=ledger.round, interrupted=interrupted, status=status, receipt=receipt)
        subject = self._names.event(book.run_id, events.kind(ended))
        return await self._publisher.store(subject, events.encode_event(ended))

    async def _key_revision(self, book: Book) -> int | None:
        """The key's revision while it names this run; None if there is nothing to free."""
        if book.record is None or book.record.unique is None:
            return None
        entry = await self._records.get(unique_key(book.record.unique), leader=True)
        return entry.revision if entry is not None and holder_of(entry.value) == book.run_id else None

    async def _unchanged(self, book: Book) -> bool:
        """Whether the record is still the one that was read; if not, the newer one is taken note of."""
        entry = await self._records.get(run_key(book.run_id), leader=True)
        if entry is None:
            return False
        if entry.revision != book.revision:
            record = decode_record(entry.value, book.run_id)
            same = book.record is not None and (record.state, record.round) == (book.record.state, book.record.round)
            book.record, book.revision = record, max(entry.revision, book.revision)
            return same
        return True

    async def _free_key(self, book: Book, revision: int | None) -> None:
        if revision is None or book.record is None or book.record.unique is None:
            return
        try:
            await self._records.delete(unique_key(book.record.unique), revision)
        except Conflict:
            log.info("the key has another holder already", extra={"run": book.run_id})

    async def _finish(self, book: Book) -> bool:
        """Write the final record; False if it has changed meanwhile."""
        record = book.record
        if record is None:
            return False
        ledger = book.ledger
        final = counted(record, ledger, {}, root_running=False)
        final = msgspec.structs.replace(
            final,
            state="final",
            status=outcome(final.counts),
            finished_at=ledger.last_at,
            updated_at=time.time(),
            interrupted_by=ledger.interrupt.by if ledger.interrupt else record.interrupted_by,
            interrupt_reason=ledger.interrupt.reason if ledger.interrupt else record.interrupt_reason,
            receipt=ledger.receipt,
            selection=None,
        )
        if await self._write(book, final, ttl=self._settings.retention):
            self._books.close(book.run_id, book.revision)
            log.info("a run has ended", extra={"run": book.run_id, "status": final.status})
            return True
        return False

    async def _write(self, book: Book, record: Record, *, ttl: float | None = None) -> bool:
        try:
            revision = await self._records.update(run_key(book.run_id), encode(record), book.revision, ttl=ttl)
        except Conflict:
            await self._unchanged(book)
            return False
        book.record, book.revision = record, revision
        return True


def _round_of(marker: bytes) -> int:
    """The round that a marker stops; below every round for one that cannot be read, so that it is written over."""
    try:
        return decode_marker(marker).round
    except msgspec.DecodeError:
        return -1
