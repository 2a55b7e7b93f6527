"""What the bookkeeper repairs: starts and retries that were left half-made, and tasks whose message is lost.

Nothing here is urgent: it looks only at runs of which nothing has moved for a while, so that nobody is at work on them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import msgspec

from corral import events
from corral.book import Book
from corral.errors import Conflict
from corral.events import Ended, Failed
from corral.executor import Failure, fingerprint
from corral.jetstream.connection import Connection
from corral.jetstream.publisher import Publisher
from corral.jetstream.records import Records
from corral.jetstream.topology import queue_counts
from corral.messages import ROOT, TaskId, encode_task
from corral.retrying import Retrier
from corral.roster import Roster
from corral.runs import Record, State, encode
from corral.settings import Settings
from corral.starter import ABORTED_TTL, Starter
from corral.subjects import Names, run_key, unique_key

log = logging.getLogger(__name__)

LISTED = 1_000
"""Lost tasks of a run whose loss is stored one by one; the others are counted only."""
LOST = Failure(
    "Lost",
    "neither a message nor a worker has this task any more; retry its run to send it again",
    "",
    fingerprint("Lost", "", ""),
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
            case "running":
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
                await self._retrier.finish(record)
            case "queued" if record.round == 0 and not await queue_counts(self._connection, self._names, record.id):
                log.warning("the root of a run is published for its producer", extra={"run": record.id})
                message = encode_task(ROOT, 0, bytes(record.body))
                await self._publisher.store(self._names.task(record.id, record.topic), message)
            case "running" if not await queue_counts(self._connection, self._names, record.id):
                await self._end_lost(book, record)

    # --- starts ------------------------------------------------------------------------------------

    async def _move(self, book: Book, record: Record, state: State) -> None:
        undone = record.round - 1 if state == "final" else record.round
        moved = msgspec.structs.replace(record, state=state, round=undone)
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
        return entry is not None and entry.value.decode() == record.id

    # --- lost tasks --------------------------------------------------------------------------------

    def _runs(self, book: Book, now: float) -> bool:
        topics, root = self._roster.running(book.run_id, now)
        return bool(topics) or root

    async def _end_lost(self, book: Book, record: Record) -> None:
        """End as error what is open, though no message of it is left: the server lost it, or somebody deleted it."""
        lost = list(_open(book))
        log.error("tasks are lost", extra={"run": record.id, "tasks": len(lost)})
        for topic, task in lost[:LISTED]:
            failed = Failed(
                topic=topic,
                task=task,
                error=LOST.error,
                message=LOST.message,
                traceback="",
                attempt=book.ledger.tree.attempt(task),
                worker="bookkeeper",
                body=msgspec.Raw(b"null"),
                fingerprint=LOST.fingerprint,
                round=book.ledger.round,
            )
            await self._store(record.id, failed)
        self._number += 1
        ledger = book.ledger
        leaves: dict[tuple[str, int], list[int]] = {}
        dispatchers = []
        for topic, task in lost:
            if sent := ledger.tree.sent_by(task):
                dispatchers.append(events.DispatcherEnd(topic, task, ledger.round, "error", sent))
            else:
                leaves.setdefault((topic, task[0]), []).append(task[1])
        ends = [
            events.Ends(topic, batch, ledger.round, "error", events.ranges(ordinals))
            for (topic, batch), ordinals in leaves.items()
        ]
        await self._store(
            record.id, Ended(worker="bookkeeper", number=self._number, tasks=ends, dispatchers=dispatchers)
        )

    async def _store(self, run_id: str, event: events.Event) -> None:
        await self._publisher.store(self._names.event(run_id, events.kind(event)), events.encode_event(event))


def _open(book: Book) -> Iterator[tuple[str, TaskId]]:
    for topic, batch, spans in book.ledger.tree.open_tasks():
        for first, last in spans:
            for ordinal in range(first, last):
                yield topic, (batch, ordinal)
