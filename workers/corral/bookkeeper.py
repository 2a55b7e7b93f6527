"""The bookkeeper: one elected pool that folds all events, keeps the records, answers questions, and ends runs.

Whatever it writes is idempotent or compare-and-set, and says up to which event it was folded. So it can die at any
step, and the next one goes on; even two at once do no harm. Without one, work goes on, redelivered tasks wait, and
records stand still.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Literal

import msgspec

from corral.book import Book
from corral.ending import Ending
from corral.errors import Conflict, CorralError
from corral.events import decode_event
from corral.jetstream.connection import Connection, Message
from corral.jetstream.publisher import Publisher
from corral.jetstream.reader import Reader, Since
from corral.jetstream.records import Records
from corral.jetstream.topology import last_sequence
from corral.ledger import Ledger
from corral.questions import ASK, Answer, Question, decode_questions
from corral.questions import encode as encode_answers
from corral.recovery import Recovery
from corral.retrying import History
from corral.roster import Roster
from corral.runs import Record, counted, decode_beat, decode_marker, decode_record, encode
from corral.settings import Settings
from corral.stranded import Stranded
from corral.subjects import Names, run_key

log = logging.getLogger(__name__)

MARGIN = 3_600.0
"""Seconds by which clocks may differ: events are read from so much before the oldest live run."""
LOOK = 1.0
"""Seconds between two looks at what time alone can change: deaths of workers, queues that empty."""


class Bookkeeper:
    """One candidate. `roster` hears from the moment of `listen`; the rest begins with `lead`."""

    def __init__(self, connection: Connection, settings: Settings, roster: Roster) -> None:
        self._connection = connection
        self._settings = settings
        self._names = Names(settings.namespace)
        self._publisher = Publisher(connection, timeout=settings.publish_timeout)
        self.records = Records(connection, self._publisher, self._names)
        self._roster = roster
        self._books: dict[str, Book] = {}
        self._dirty: set[str] = set()
        self._folded = 0
        """Stream sequence of the last event that was folded."""
        self._progress = asyncio.Condition()
        self._ending: Ending | None = None
        self._heard = asyncio.Event()

    async def listen(self) -> None:
        """Hear heartbeats from now on, elected or not."""
        await self._connection.subscribe(self._names.all_beats, self._on_beat)

    async def next_beat(self) -> None:
        """Return when the next heartbeat is heard, of any worker."""
        self._heard.clear()
        await self._heard.wait()

    async def lead(self) -> None:
        """Keep the books until cancelled."""
        self._books.clear()
        self._dirty.clear()
        self._folded = 0
        keys = self.records.watch(">")
        async with asyncio.TaskGroup() as group:
            self._ending = Ending(
                connection=self._connection,
                records=self.records,
                publisher=self._publisher,
                names=self._names,
                settings=self._settings,
                roster=self._roster,
                fold_to=self._fold_to,
                group=group,
            )
            group.create_task(self._follow_keys(keys, group))
            await keys.caught_up.wait()
            end = await last_sequence(self._connection, self._names.events_stream)
            reader = self._events()
            group.create_task(self._fold(reader))
            group.create_task(self._caught_up(reader, end))
            group.create_task(self._write())
            recovery = Recovery(
                connection=self._connection,
                records=self.records,
                publisher=self._publisher,
                names=self._names,
                settings=self._settings,
                roster=self._roster,
            )
            group.create_task(self._look(recovery))
            stranded = Stranded(
                connection=self._connection,
                records=self.records,
                publisher=self._publisher,
                names=self._names,
                roster=self._roster,
                books=self._books,
                fold_to=self._fold_to,
            )
            group.create_task(self._look_for(stranded))
            asks = await self._connection.subscribe(
                self._names.control(ASK), lambda message: self._on_ask(group, message)
            )
            try:
                await asyncio.Future()
            finally:
                await asks.close()

    # --- what it hears -----------------------------------------------------------------------------

    def _on_beat(self, message: Message) -> None:
        try:
            beat = decode_beat(message.data)
        except msgspec.DecodeError:
            return  # not one of ours
        self._roster.hear(beat, time.monotonic())
        self._heard.set()
        self._dirty.update(run for run in beat.running if run in self._books)
        self._dirty.update(run for run in beat.roots if run in self._books)
        if self._ending is not None:
            self._ending.heard()

    async def _follow_keys(self, keys: Reader, group: asyncio.TaskGroup) -> None:
        """Records and markers, as anybody writes them."""
        async for batch in keys:
            if keys.generation:
                raise RuntimeError("the bucket lost its tail")  # stand again, and read everything anew
            for stored in batch:
                kind, _, run_id = self._names.key_of(stored.subject).partition(".")
                try:
                    if kind == "run":
                        self._on_record(group, run_id, stored.data, stored.sequence, gone=stored.operation is not None)
                    elif kind == "interrupt" and stored.operation is None:
                        book = self._book(run_id)
                        book.marker, book.marker_revision = decode_marker(stored.data), stored.sequence
                        self._look_at(book)
                except msgspec.DecodeError as error:
                    log.error(
                        "a key that cannot be read is ignored", extra={"key": stored.subject, "error": str(error)}
                    )

    def _on_record(self, group: asyncio.TaskGroup, run_id: str, data: bytes, revision: int, *, gone: bool) -> None:
        if gone:
            self._books.pop(run_id, None)
            return
        book = self._book(run_id)
        if revision <= book.revision:
            return
        book.record, book.revision = decode_record(data), revision
        book.moved_at = time.monotonic()
        if not book.record.live:
            book.close()
        elif book.closed:
            book.reopen()
            group.create_task(self._reopen(book, book.record))
        else:
            if book.held is not None and not book.reopening:
                book.open(Ledger(book.record.topic))
            self._look_at(book)

    async def _reopen(self, book: Book, record: Record) -> None:
        """Fold the history of a run that a retry has brought back."""
        while True:
            try:
                history = await History.read(self._connection, self._names, record)
            except Exception as error:  # noqa: BLE001  # one run that cannot be read must not stop all others
                log.warning("a history could not be read yet", extra={"run": book.run_id, "error": str(error)})
                await asyncio.sleep(LOOK)
            else:
                book.open(history.ledger)
                self._look_at(book)
                return

    def _book(self, run_id: str) -> Book:
        book = self._books.get(run_id)
        if book is None:
            book = self._books[run_id] = Book(run_id)
        return book

    # --- the fold ----------------------------------------------------------------------------------

    def _events(self) -> Reader:
        """A reader from the oldest event that can matter on."""
        created = [
            book.record.created_at for book in self._books.values() if book.record is not None and book.record.live
        ]
        oldest = min(created, default=time.time()) - MARGIN
        return Reader(self._connection, self._names.events_stream, [self._names.all_events], start=Since(oldest))

    async def _fold(self, events: Reader) -> None:
        generation = 0
        async for batch in events:
            if events.generation != generation:
                log.warning("the event stream lost its tail; counts are folded anew")
                raise RuntimeError("the event stream lost its tail")
            changed = set()
            for stored in batch:
                run_id = self._names.run_of_event(stored.subject)
                book = self._book(run_id)
                if book.closed:
                    continue
                try:
                    book.take(decode_event(stored.data), stored.sequence, stored.time)
                except Exception as error:  # noqa: BLE001  # one absurd event must not stop the counting of all runs
                    log.error(
                        "an event that cannot be read is ignored", extra={"seq": stored.sequence, "error": str(error)}
                    )
                changed.add(run_id)
            self._dirty |= changed
            for run_id in changed:
                self._books[run_id].moved_at = time.monotonic()
                self._look_at(self._books[run_id])
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

    def _look_at(self, book: Book) -> None:
        if self._ending is not None:
            self._ending.look_at(book)

    async def _look(self, recovery: Recovery) -> None:
        """See to what no event announces: workers that die, runs that stand still."""
        while True:
            await asyncio.sleep(min(LOOK, self._settings.beat))
            now = time.monotonic()
            for book in list(self._books.values()):
                if book.live:
                    self._look_at(book)
                    if book.shown_running:
                        self._dirty.add(book.run_id)
                    if recovery.due(book, now):
                        await self._repair(recovery, book)
            if self._ending is not None:
                self._ending.heard()

    async def _look_for(self, stranded: Stranded) -> None:
        """Find messages that the server has forgotten."""
        while True:
            await asyncio.sleep(self._settings.ack_wait / 3)
            try:
                await stranded.look()
            except CorralError as error:
                log.warning("the queue could not be looked at", extra={"error": str(error)})

    async def _repair(self, recovery: Recovery, book: Book) -> None:
        try:
            await self._fold_to()
            if recovery.due(book, time.monotonic()):
                await recovery.repair(book)
        except Exception as error:  # noqa: BLE001  # as above
            log.warning("a run could not be repaired", extra={"run": book.run_id, "error": str(error)})

    # --- records -----------------------------------------------------------------------------------

    async def _write(self) -> None:
        """Write the records of what changed, each at most every `record_interval` seconds."""
        while True:
            await asyncio.sleep(self._settings.record_interval)
            dirty, self._dirty = self._dirty, set()
            books = [book for run_id in dirty if (book := self._books.get(run_id)) is not None and book.live]
            for start in range(0, len(books), 200):
                await asyncio.gather(*[self._write_one(book) for book in books[start : start + 200]])

    async def _write_one(self, book: Book) -> None:
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
        try:
            revision = await self.records.update(run_key(book.run_id), encode(new), book.revision)
        except Conflict:
            self._dirty.add(book.run_id)  # the new record is on its way here
        except CorralError as error:
            log.warning("a record was not written", extra={"run": book.run_id, "error": str(error)})
            self._dirty.add(book.run_id)
        else:
            if revision > book.revision:
                book.record, book.revision = new, revision

    # --- questions ---------------------------------------------------------------------------------

    def _on_ask(self, group: asyncio.TaskGroup, message: Message) -> None:
        group.create_task(self._answer(message))

    async def _answer(self, message: Message) -> None:
        try:
            questions = decode_questions(message.data)
            await self._fold_to()
            answers = [await self._verdict(question) for question in questions]
            await self._connection.publish(message.reply, encode_answers(answers))
        except (CorralError, msgspec.DecodeError) as error:
            log.warning("a question is left without an answer", extra={"error": str(error)})

    async def _verdict(self, question: Question) -> Answer | None:
        """None where it cannot be told yet."""
        book = self._books.get(question.run)
        if book is None or book.record is None or question.round > book.record.round:
            # Its record may be on its way here. Who says "over" for a run that has just begun would lose its task.
            entry = await self.records.get(run_key(question.run), leader=True)
            live = entry is not None and decode_record(entry.value).live
            return None if live else Answer("over")
        if book.closed:
            return Answer("over")
        if book.held is not None or question.round > book.ledger.round:
            return None
        return _answer(book.ledger, question)


def _answer(ledger: Ledger, question: Question) -> Answer:
    """What the ledger says to a question."""
    task, tree = question.task, ledger.tree
    if ledger.over:
        return Answer("over")
    if tree.outcome(task) is not None or tree.stale(task, question.round):
        return Answer("ended")
    verdict: Literal["isolate", "run"] = "isolate" if ledger.suspect(task) else "run"
    if question.round == 0:
        return Answer(verdict, tree.attempt(task))
    return Answer(verdict, tree.attempt(task), tree.sent_by(task), tree.to_restore(task, ledger.round))
