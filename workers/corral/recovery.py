"""What the bookkeeper repairs: starts and retries that were left half-made, and tasks whose message is lost.

Nothing here is urgent: it looks only at runs of which nothing has moved for a while, so that nobody is at work on them.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterator

import msgspec

from corral import events
from corral.bitmap import Bitmap
from corral.book import Book
from corral.errors import Conflict
from corral.events import Ended, Failed
from corral.executor import Failure, fingerprint
from corral.history import BOOKKEEPER, LOST
from corral.jetstream.connection import Connection
from corral.jetstream.publisher import Publisher
from corral.jetstream.records import Records
from corral.jetstream.topology import queue_counts
from corral.ledger import Ledger
from corral.messages import ROOT, TaskId, encode_task
from corral.retrying import PART, Retrier
from corral.roster import Roster
from corral.runs import Record, State, encode
from corral.settings import Settings
from corral.starter import ABORTED_TTL, Starter
from corral.subjects import Names, holder_of, run_key, unique_key

log = logging.getLogger(__name__)

LISTED = 1_000
"""Lost tasks of a run whose loss is stored one by one; the others are counted only."""
RANGE = 64
"""Bytes that a range takes in an event, at most, if every batch has but one."""
FAILURE = Failure(
    LOST,
    "neither a message nor a worker has this task any more; retry its run to send it again",
    "",
    fingerprint(LOST, "", ""),
)


class Recovery:
    """Repairs runs that stand still."""

    def __init__(
        self,
        *,
        connection: Connection,
        records: Records,
        publisher: Publisher,
        names: Names,
        settings: Settings,
        roster: Roster,
    ) -> None:
        self._connection = connection
        self._records = records
        self._publisher = publisher
        self._names = names
        self._settings = settings
        self._roster = roster
        self._number = time.time_ns()
        self._starter = Starter(connection, records, publisher, names, settings)
        self._retrier = Retrier(connection, records, publisher, names, self._starter, retention=settings.retention)

    def due(self, book: Book, now: float) -> bool:
        """Whether the run has stood still for so long that somebody may have left it."""
        record = book.record
        if record is None or book.ending:
            return False
        still = now - book.moved_at
        match record.state:
            case "starting" | "queued" | "reopening":
                return still > self._settings.publish_timeout * 1.5
            case "running" | "ending" | "interrupting":
                # A run that began to end has to go on running where the server has lost the last end of a task.
                waiting = max(2 * self._settings.ack_wait, self._settings.reconcile)
                return still > waiting and not book.ledger.finished and not self._runs(book, now)
            case _:
                return False

    async def repair(self, book: Book) -> None:
        """Take the next step that its producer did not take, or end what is lost."""
        record = book.record
        book.moved_at = time.monotonic()  # look again only after as long a time
        if record is None:
            return
        match record.state:
            case "starting":
                # With the key it can go on; without it, it never began.
                await self._move(book, record, "queued" if await self._has_key(record) else "aborted")
            case "reopening":
                await self._move(book, record, "queued" if await self._has_key(record) else "final")
            case "queued" if record.round > 0:
                await self._retrier.finish(record, book.revision, book.ledger)
            case "queued" if record.round == 0 and not await queue_counts(self._connection, self._names, record.id):
                log.warning("the root of a run is published for its producer", extra={"run": record.id})
                message = encode_task(ROOT, 0, bytes(record.body))
                await self._publisher.store(self._names.task(record.id, record.topic), message)
            case "running" | "ending" | "interrupting":
                if not await queue_counts(self._connection, self._names, record.id):
                    await self._end_lost(book, record)

    # --- starts ------------------------------------------------------------------------------------

    async def _move(self, book: Book, record: Record, state: State) -> None:
        undone = record.round - 1 if state == "final" else record.round
        moved = msgspec.structs.replace(record, state=state, round=undone)
        if state == "final":
            moved = msgspec.structs.replace(moved, selection=None)
        try:
            await self._records.update(run_key(record.id), encode(moved), book.revision, ttl=self._ttl(state))
        except Conflict:
            return  # its producer lives
        log.warning("a start was left half-made", extra={"run": record.id, "state": state})
        if state == "aborted":
            await self._starter.free_key(record)

    def _ttl(self, state: State) -> float | None:
        """As those who end a record in the usual way keep it."""
        match state:
            case "aborted":
                return ABORTED_TTL
            case "final":
                return self._settings.retention
            case _:
                return None

    async def _has_key(self, record: Record) -> bool:
        if record.unique is None:
            return True
        entry = await self._records.get(unique_key(record.unique), leader=True)
        return entry is not None and holder_of(entry.value) == record.id

    # --- lost tasks --------------------------------------------------------------------------------

    def _runs(self, book: Book, now: float) -> bool:
        topics, root = self._roster.running(book.run_id, now)
        return bool(topics) or root

    async def _end_lost(self, book: Book, record: Record) -> None:
        """End as error what is open, though no message of it is left: the server lost it, or somebody deleted it."""
        lost = lost_ends(book.ledger, min(PART, self._connection.max_payload // 2))
        count = sum(len(part.dispatchers) + sum(_count(ends.ranges) for ends in part.tasks) for part in lost)
        if not count:
            return  # its last end was folded since it was looked at
        log.error("tasks are lost", extra={"run": record.id, "tasks": count})
        for topic, task in itertools.islice(_open(book.ledger), LISTED):
            failed = Failed(
                topic=topic,
                task=task,
                error=FAILURE.error,
                message=FAILURE.message,
                traceback="",
                attempt=book.ledger.tree.attempt(task),
                worker=BOOKKEEPER,
                body=msgspec.Raw(b"null"),
                fingerprint=FAILURE.fingerprint,
                round=record.round,
            )
            await self._store(record.id, failed)
        for ended in lost:
            # Should this process die between two, the next one ends what is still open.
            self._number += 1
            await self._store(record.id, msgspec.structs.replace(ended, number=self._number))

    async def _store(self, run_id: str, event: events.Event) -> None:
        await self._publisher.store(self._names.event(run_id, events.kind(event)), events.encode_event(event))


def lost_ends(ledger: Ledger, limit: int) -> list[Ended]:
    """Ends of all that is open, as error; each event of at most about `limit` bytes."""
    found: list[Ended] = []
    tasks: list[events.Ends] = []
    dispatchers: list[events.DispatcherEnd] = []
    size = 0

    def cut() -> None:
        nonlocal tasks, dispatchers, size
        found.append(Ended(worker=BOOKKEEPER, number=0, tasks=tasks, dispatchers=dispatchers))
        tasks, dispatchers, size = [], [], 0

    for topic, batch, spans in ledger.tree.open_tasks():
        bits = Bitmap.of_ranges(spans)
        senders = bits.both(ledger.tree.batches[batch].dispatchers)
        for ordinal in senders:
            end = events.DispatcherEnd(
                topic, (batch, ordinal), ledger.round, "error", ledger.tree.sent_by((batch, ordinal))
            )
            dispatchers.append(end)
            size += len(msgspec.json.encode(end))
            if size >= limit:
                cut()
        rest = list(bits.minus(senders).ranges())
        while rest:
            some = max(1, (limit - size) // RANGE)
            tasks.append(events.Ends(topic, batch, ledger.round, "error", rest[:some]))
            size += RANGE * (some if rest[some:] else len(rest)) + len(topic)
            rest = rest[some:]
            if size >= limit:
                cut()
    if tasks or dispatchers:
        cut()
    return found


def _open(ledger: Ledger) -> Iterator[tuple[str, TaskId]]:
    for topic, batch, spans in ledger.tree.open_tasks():
        for first, last in spans:
            for ordinal in range(first, last):
                yield topic, (batch, ordinal)


def _count(spans: list[events.Range]) -> int:
    return sum(last - first for first, last in spans)
