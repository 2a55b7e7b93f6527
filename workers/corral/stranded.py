"""Messages that lie in the queue and that the server will never deliver, found and sent again.

A purge of one run's messages that are in flight moves the consumer's count of deliveries past those of other runs. The
next acknowledgement then moves its floor of acknowledged messages past a message that waits for its next attempt, and
that message is forgotten (nats-server 2.15.1). What gives it away: it is still stored, and not above the floor.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec

from corral.book import Books
from corral.errors import Conflict
from corral.jetstream.connection import Connection
from corral.jetstream.direct import Stored
from corral.jetstream.publisher import Publisher
from corral.jetstream.records import Records
from corral.jetstream.topology import ack_floors, first_task, remove
from corral.messages import ROOT, TaskMessage, decode_task, encode_again
from corral.roster import Roster
from corral.runs import decode_record, encode
from corral.subjects import Names, run_key

log = logging.getLogger(__name__)

AT_ONCE = 1_000
"""Messages of one topic that are looked at in one go."""


class Stranded:
    """Looks for them from time to time. `books` are the bookkeeper's, and `fold_to` brings them up to date."""

    def __init__(
        self,
        *,
        connection: Connection,
        records: Records,
        publisher: Publisher,
        names: Names,
        roster: Roster,
        books: Books,
        fold_to: Callable[[], Awaitable[None]],
    ) -> None:
        self._connection = connection
        self._records = records
        self._publisher = publisher
        self._names = names
        self._roster = roster
        self._books = books
        self._fold_to = fold_to
        self._suspects: set[int] = set()

    async def look(self) -> None:
        """Send again what was seen in the last look too; one that is just being acknowledged is gone by then."""
        found = [
            stored for topic, floor in (await self._floors()).items() for stored in await self._below(topic, floor)
        ]
        again = [stored for stored in found if stored.sequence in self._suspects]
        self._suspects = {stored.sequence for stored in found}
        if again:
            await self._fold_to()
        for stored in again:
            await self._settle(stored)

    async def _floors(self) -> dict[str, int]:
        return await ack_floors(self._connection, self._names)

    async def _below(self, topic: str, floor: int) -> list[Stored]:
        found: list[Stored] = []
        start = 1
        while floor and len(found) < AT_ONCE:
            stored = await first_task(self._connection, self._names, topic, start)
            if stored is None or stored.sequence > floor:
                break
            found.append(stored)
            start = stored.sequence + 1
        return found

    async def _settle(self, stored: Stored) -> None:
        run_id, topic = self._names.split_task(stored.subject)
        try:
            message = decode_task(stored.data)
        except msgspec.DecodeError:
            return  # no task: it is not ours to judge
        verdict = self._judge(run_id, topic, message)
        if verdict == "leave":
            return
        if verdict == "send":
            log.warning("a task is sent again that the server forgot", extra={"run": run_id, "task": message.task})
            if message.task == ROOT and not await self._release(run_id, message.round, stored.sequence):
                return
            await self._publisher.store(stored.subject, encode_again(message))
        await remove(self._connection, self._names, stored.sequence)

    def _judge(self, run_id: str, topic: str, message: TaskMessage) -> Literal["remove", "leave", "send"]:
        if self._books.has_ended(run_id):
            return "remove"
        book = self._books.get(run_id)
        if book is None or book.record is None or book.held is not None:
            return "leave"
        ledger = book.ledger
        if ledger.over:
            return "remove"
        if message.round > ledger.round or book.ending:
            return "leave"
        if ledger.tree.outcome(message.task) is not None or ledger.tree.stale(message.task, message.round):
            return "remove"
        # A worker may be at it, and will say how it ended.
        topics, root = self._roster.running(run_id, time.monotonic())
        return "leave" if (root if message.task == ROOT else topics.get(topic)) else "send"

    async def _release(self, run_id: str, round: int, sequence: int) -> bool:
        """Let another message be the run's root; False if the record says otherwise."""
        entry = await self._records.get(run_key(run_id), leader=True)
        record = decode_record(entry.value, run_id) if entry is not None else None
        if entry is None or record is None or record.round != round:
            return False
        if record.state == "queued":
            return True  # nobody has claimed it
        if record.state != "running" or record.claim != (round, sequence):
            return False
        try:
            queued = msgspec.structs.replace(record, state="queued", claim=None, root="pending")
            await self._records.update(entry.key, encode(queued), entry.revision)
        except Conflict:
            return False  # it moves after all
        return True
