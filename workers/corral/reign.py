"""What a bookkeeper does while it is elected.

keys (records, markers)  ->  books  <-  events, behind the last checkpoint
books  ->  records of what changed, ends of what has finished, repairs of what stands still, the next checkpoint
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine

from corral.answering import Answering
from corral.book import Book, Books
from corral.checkpoint_reading import Anchor
from corral.checkpoints import Checkpoints
from corral.ending import Ending
from corral.errors import CorralError, Unreadable
from corral.events import decode_event
from corral.history import read_ledger
from corral.jetstream.connection import Connection
from corral.jetstream.direct import leader_get
from corral.jetstream.publisher import Publisher
from corral.jetstream.reader import Behind, Reader, Stored
from corral.jetstream.records import Records
from corral.jetstream.topology import last_sequence
from corral.ledger import Ledger
from corral.oddities import Oddities
from corral.patrol import LOOK, Patrol
from corral.questions import ASK
from corral.record_writer import RecordWriter
from corral.recovery import Recovery
from corral.roster import Roster
from corral.runs import Record, decode_marker, decode_record
from corral.settings import Settings
from corral.stranded import Stranded
from corral.subjects import Names, is_run_id
from corral.trimming import Trimming
from corral.write_anew import write_anew

log = logging.getLogger(__name__)

PAUSE = 0.1
"""Seconds between two looks at what will come soon."""
LAG = 10.0
"""Seconds in which a copy of the event stream that lags behind must have caught up."""
HISTORIES = 16
"""Histories that are read at once: each takes a consumer, and a server that makes thousands answers nobody else."""


class Reign:
    """The time from an election to the next. All that it does ends with `group`, and if one part fails, all do."""

    def __init__(
        self,
        *,
        connection: Connection,
        records: Records,
        publisher: Publisher,
        names: Names,
        settings: Settings,
        roster: Roster,
        group: asyncio.TaskGroup,
    ) -> None:
        self._connection = connection
        self._records = records
        self._names = names
        self._settings = settings
        self._roster = roster
        self._group = group
        self._books = Books()
        self._oddities = Oddities(log)
        self._anchored = False
        """Whether there was a checkpoint, so that not all events are read."""
        self._restored = False
        """Whether the checkpoint is read: before that, no book is opened."""
        self._folded = 0
        """Stream sequence of the last event that was folded."""
        self._last: Stored | None = None
        """That event, if it was folded in this reign."""
        self._progress = asyncio.Condition()
        self._events: Reader | None = None
        self._sources: list[Reader] = []
        """All that is read."""
        self._closing: list[Callable[[], Coroutine[None, None, None]]] = []
        self._histories = asyncio.Semaphore(HISTORIES)
        self._checkpoints = Checkpoints(connection, records, names)
        self._writer = RecordWriter(records, self._books, roster, settings)
        self._answering = Answering(connection, records, self._books, self._fold_to, group)
        self._ending = Ending(
            connection=connection,
            records=records,
            publisher=publisher,
            names=names,
            settings=settings,
            roster=roster,
            books=self._books,
            fold_to=self._fold_to,
            group=group,
        )
        self._patrol = Patrol(
            records=records,
            books=self._books,
            recovery=Recovery(
                connection=connection,
                records=records,
                publisher=publisher,
                names=names,
                settings=settings,
                roster=roster,
            ),
            ending=self._ending,
            writer=self._writer,
            fold_to=self._fold_to,
            on_record=self._on_record,
            oddities=self._oddities,
            pause=min(LOOK, settings.beat),
            group=group,
        )
        self._stranded = Stranded(
            connection=connection,
            records=records,
            publisher=publisher,
            names=names,
            roster=roster,
            books=self._books,
            fold_to=self._fold_to,
        )
        self._trimming = Trimming(connection, names, self._books.forget)

    async def begin(self) -> None:
        """Read what is there, and do from then on what is to be done."""
        keys = self._follow(self._records.watch("run.*"))
        markers = self._follow(self._records.watch("interrupt.*"))
        self._sources = [keys, markers]
        await keys.caught_up.wait()
        await markers.caught_up.wait()
        anchor = await self._restore()
        if self._roster.idle and not any(_is_stopping(book) for book in self._books):
            # What a worker holds is a message that it has not acknowledged, unless an interrupt has removed that.
            self._roster.vouch()
        end = await last_sequence(self._connection, self._names.events_stream)
        start = Behind(anchor.sequence, anchor.time) if anchor is not None else 1
        self._events = Reader(self._connection, self._names.events_stream, [self._names.all_events], start=start)
        self._closing.append(self._events.close)
        self._sources.append(self._events)
        for job in (
            self._fold(self._events),
            self._caught_up(self._events, end),
            self._writer.run(),
            self._patrol.run(),
            self._look_for_stranded(),
            self._trimming.run(),
            self._save(),
        ):
            self._group.create_task(job)
        ask = self._names.control(ASK)
        # The server delivers under any subject that a consumer names; the message keeps its own, and is no question.
        asks = await self._connection.subscribe(
            ask, lambda message: self._answering.on_ask(message) if message.subject == ask else None
        )
        self._closing.append(asks.close)

    async def close(self) -> None:
        """Let the server send nothing more."""
        for close in self._closing:
            await close()

    def heard(self, run_ids: list[str]) -> None:
        """A worker has said what it executes: something of these runs."""
        self._writer.touch(run_id for run_id in run_ids if self._books.get(run_id) is not None)
        self._ending.heard()

    async def write_anew(self) -> None:
        """Write the records, keys and markers of live runs anew: somebody has erased the bucket."""
        await write_anew(self._records, self._books)

    # --- keys --------------------------------------------------------------------------------------

    def _follow(self, keys: Reader) -> Reader:
        self._group.create_task(self._follow_keys(keys))
        self._closing.append(keys.close)
        return keys

    async def _follow_keys(self, keys: Reader) -> None:
        """Records and markers, as anybody writes them."""
        async for batch in keys:
            if keys.generation:
                raise RuntimeError("the bucket lost its tail")  # stand again, and read everything anew
            for stored in batch:
                kind, _, run_id = self._names.key_of(stored.subject).partition(".")
                try:
                    if not is_run_id(run_id):
                        raise Unreadable("a key", "it is of no run")
                    if kind == "run":
                        self._on_record(run_id, stored.data, stored.sequence, gone=stored.operation is not None)
                    elif stored.operation is None and not self._books.has_ended(run_id):
                        marker = decode_marker(stored.data)
                        book = self._books.of(run_id)
                        book.marker = marker
                        self._ending.look_at(book)
                except Unreadable as error:
                    self._oddities.note(
                        "a key that cannot be read is ignored", key=stored.subject[:200], error=str(error)
                    )

    def _on_record(self, run_id: str, data: bytes, revision: int, *, gone: bool) -> None:
        if gone:
            self._books.forget(run_id)
            return
        record = decode_record(data, run_id)
        if not record.live:
            self._books.close(run_id, revision)
            return
        book = self._books.reopen(run_id, revision)
        if book is None or revision <= book.revision:
            return
        book.record, book.revision = record, revision
        book.moved_at = time.monotonic()
        if self._restored:
            # A copy of the bucket that lags behind may show a run late, of which events lie before the anchor.
            begun = record.claim is not None or record.seq > 0
            self._open(book, record, doubtful=begun and self._anchored and self._settings.replicas > 1)
            self._ending.look_at(book)

    def _open(self, book: Book, record: Record, ledger: Ledger | None = None, *, doubtful: bool = False) -> None:
        """Let the book fold events from now on, or as soon as its history is read."""
        if book.held is None:
            return
        if ledger is not None:
            book.reopening = False
            book.open(ledger)
        elif book.reopening or doubtful:
            self._group.create_task(self._read_history(book, record))
        else:
            book.open(Ledger(record.topic))

    async def _restore(self) -> Anchor | None:
        """Open the books with what the last bookkeeper has left; where to read on."""
        live = {book.run_id: book.record for book in self._books if book.record is not None}
        loaded = await self._checkpoints.load(live)
        if loaded.anchor is not None:
            self._anchored = True
            self._folded = loaded.anchor.sequence
        self._restored = True
        for book in self._books:
            if book.record is None:
                continue
            # Of a round after the first, some events lie before the anchor for sure.
            behind = loaded.anchor is not None and (book.record.round > 0 or book.run_id not in live)
            doubtful = behind or book.run_id in loaded.doubtful
            self._open(book, book.record, loaded.ledgers.get(book.run_id), doubtful=doubtful)
            self._ending.look_at(book)
        return loaded.anchor

    async def _read_history(self, book: Book, record: Record) -> None:
        """Fold the history of a run of which no ledger is kept: a retry has brought it back."""
        book.reopening = True
        # Every change of the record comes here, as long as the history is not read: the first that has it ends that.
        patience = LAG / PAUSE
        while self._books.get(book.run_id) is book and book.held is not None:
            try:
                async with self._histories:
                    ledger = await read_ledger(self._connection, self._names, record.id, record.topic)
                patience -= 1
                complete = patience < 0 or await self._is_complete(book, ledger)
            except Exception as error:  # noqa: BLE001  # one run that cannot be read must not stop all others
                log.warning("a history could not be read yet", extra={"run": book.run_id, "error": str(error)})
                await asyncio.sleep(10 * PAUSE)
            else:
                if not complete:
                    await asyncio.sleep(PAUSE)
                elif book.held is not None:
                    book.open(ledger)
                    self._ending.look_at(book)

    async def _is_complete(self, book: Book, ledger: Ledger) -> bool:
        """Whether all follows that was folded after the history: a copy of the stream may have lagged behind."""
        wanted = {"seq": ledger.sequence + 1, "next_by_subj": self._names.run_events(book.run_id)}
        following = await leader_get(self._connection, self._names.events_stream, wanted)
        if following is None or following.sequence > self._folded:
            return True
        return any(sequence == following.sequence for _, sequence, _ in book.held or ())

    # --- the fold ----------------------------------------------------------------------------------

    async def _fold(self, events: Reader) -> None:
        async for batch in events:
            if events.generation:
                raise RuntimeError("the event stream lost its tail; counts are folded anew")
            changed: dict[str, Book] = {}
            for stored in batch:
                run_id = self._names.run_of_event(stored.subject)
                if self._books.has_ended(run_id):
                    continue
                try:
                    event = decode_event(stored.data, stored.subject)
                    book = changed[run_id] = self._books.of(run_id)
                    book.take(event, stored.sequence, stored.time)
                except Exception as error:  # noqa: BLE001  # one absurd event must not stop the counting of all runs
                    self._oddities.note(
                        "an event that cannot be read is ignored", seq=stored.sequence, error=str(error)
                    )
            self._last = batch[-1]
            self._writer.touch(changed)
            now = time.monotonic()
            for book in changed.values():
                if book.record is not None:  # else it is looked up in the end, however many events come
                    book.moved_at = now
                self._ending.look_at(book)
            await self._reached(batch[-1].sequence)

    async def _caught_up(self, reader: Reader, end: int) -> None:
        """What was stored before the reader's start is of no run that matters: it counts as folded."""
        await reader.caught_up.wait()
        await self._reached(end)

    async def _reached(self, sequence: int) -> None:
        async with self._progress:
            self._folded = max(self._folded, sequence)
            self._progress.notify_all()

    async def _fold_to(self, sequence: int | None = None) -> None:
        """Return when the event of this sequence has been folded; without one, everything that is stored now."""
        end = await last_sequence(self._connection, self._names.events_stream) if sequence is None else sequence
        async with self._progress:
            await self._progress.wait_for(lambda: self._folded >= end)
        if self._events is not None:
            await self._events.sure.wait()  # after an outage, it may be that what was folded is not there any more

    # --- what time alone changes -------------------------------------------------------------------

    async def _look_for_stranded(self) -> None:
        """Find messages that the server has forgotten."""
        while True:
            await asyncio.sleep(self._settings.ack_wait / 3)
            try:
                await self._stranded.look()
            except CorralError as error:
                log.warning("the queue could not be looked at", extra={"error": str(error)})

    # --- checkpoints -------------------------------------------------------------------------------

    async def _save(self) -> None:
        """Leave to the next bookkeeper what was folded."""
        while True:
            await asyncio.sleep(self._settings.checkpoint_interval)
            anchor = Anchor.of(self._last) if self._last is not None else None
            # A run that is not known yet, and has events before the anchor, would be taken for one without.
            unknown = [book for book in self._books if book.record is None and book.held]
            while any(self._books.get(book.run_id) is book and book.record is None for book in unknown):  # noqa: ASYNC110
                await asyncio.sleep(PAUSE)  # rare, and nobody waits for it
            # After an outage the server may have lost a tail: then a run that has ended here may be live again, and
            # who reads a checkpoint without its ledger, yet with an anchor behind its events, would count it anew.
            for reader in self._sources:
                await reader.sure.wait()
            try:
                await self._checkpoints.save(self._books, anchor)
            except CorralError as error:
                log.warning("a checkpoint was not written", extra={"error": str(error)})


def _is_stopping(book: Book) -> bool:
    """Whether messages of the run may have been removed while workers had them."""
    if book.record is None:
        return False
    ordered = book.marker is not None and book.marker.kind == "stop" and book.marker.round >= book.record.round
    return ordered or book.record.state in ("interrupting", "ending")
