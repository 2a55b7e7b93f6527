"""How a run is retried: a row of steps like a start, each of which may be done again.

    record `reopening` -> unique key -> record `queued` -> `Reopened` -> messages -> record `running`

Until `queued` a retry can be undone, by writing the old record; from then on it is only finished, by whoever comes
by. What is brought back follows from the events alone, so everybody who goes on with it finds the same.

A run may have millions of tasks, and as many stored bodies. Of these nobody keeps more than a window: a first pass
over the errors finds out whose body is stored, a second one publishes. How far it has come stands in the record, and
each note of it is a compare-and-set: so another one can go on there, and of two at once one leaves.
"""

from __future__ import annotations

import logging
import time
from contextlib import aclosing

import msgspec

from corral import events
from corral.bitmap import Bitmap
from corral.errors import Conflict, DuplicateRun, EventsExpired, NotEnded, Unconfirmed
from corral.events import Reopened
from corral.history import StoredBody, Tasks, read_ledger, stored_bodies
from corral.jetstream.connection import Connection
from corral.jetstream.publisher import Publisher, Window
from corral.jetstream.records import Records
from corral.jetstream.topology import queue_counts
from corral.ledger import Ledger
from corral.messages import ROOT, encode_task
from corral.parts import split
from corral.reopening import Back, brought_back, by_topic, plan, with_messages
from corral.runs import Record, counted, decode_record, encode
from corral.starter import Starter
from corral.subjects import Names, run_key

log = logging.getLogger(__name__)

PART = 512 * 1024
"""Bytes of one `Reopened`, about, where the server takes that much."""
ALL = -1
"""`Record.resent` when there is nothing left to publish but the root, which comes last."""
WINDOW = 2_000
"""Messages that are confirmed together, at most;"""
WINDOW_BYTES = 4 * 1024 * 1024
"""and their bytes, about."""


class Reopener:
    """Stores what a retry brings back, as far as that is not done."""

    def __init__(self, connection: Connection, publisher: Publisher, names: Names) -> None:
        self._connection = connection
        self._publisher = publisher
        self._names = names

    async def bodies(self, run_id: str, ledger: Ledger) -> dict[int, Bitmap]:
        """The tasks of a run whose bodies are stored."""
        bodies = Tasks()
        if ledger.counts()[0].error:
            async with aclosing(stored_bodies(self._connection, self._names, run_id)) as batches:
                async for batch in batches:
                    for each in batch:
                        bodies.add(each.task)
        return bodies.batches()

    def parts(self, round: int, ledger: Ledger, back: Back) -> list[Reopened]:
        """The events that say so."""
        return split(round, by_topic(ledger.tree, back), min(PART, self._connection.max_payload // 2))

    async def reopen(self, run_id: str, round: int, ledger: Ledger) -> Back:
        """Store the missing ones for a run whose record has come to this round; what they bring back.

        The ledger is the run's before this round; or in it, perhaps only meanwhile: then there is nothing to store.
        """
        bodies = await self.bodies(run_id, ledger) if ledger.round < round else {}
        if ledger.round >= round:
            return brought_back(ledger)
        back = plan(ledger.tree, bodies)
        missing = [part for part in self.parts(round, ledger, back) if not ledger.parts.has(part)]
        await self.store(run_id, missing)
        return back

    async def store(self, run_id: str, parts: list[Reopened]) -> None:
        """Store these events."""
        for part in parts:
            await self._publisher.store(self._names.event(run_id, events.kind(part)), events.encode_event(part))


class Retrier:
    """Retries runs. `retention` is for how many seconds the record of an ended run is kept."""

    def __init__(
        self,
        connection: Connection,
        records: Records,
        publisher: Publisher,
        names: Names,
        starter: Starter,
        *,
        retention: float,
    ) -> None:
        self._connection = connection
        self._records = records
        self._publisher = publisher
        self._names = names
        self._starter = starter
        self._retention = retention
        self._reopener = Reopener(connection, publisher, names)

    async def retry(self, run_id: str, record: Record, revision: int) -> int:
        """Bring back what ended as error or interrupted; how many tasks that are. 0: nothing did, and nothing was done.

        Raises:
            NotEnded: the run is still live.
            DuplicateRun: another run holds its unique key now; nothing was changed.
            EventsExpired: the run's events are gone.
        """
        if record.state != "final":
            raise NotEnded(run_id)
        ledger = await read_ledger(self._connection, self._names, run_id, record.topic)
        if ledger.counts()[0] != record.counts:
            raise EventsExpired(run_id)
        back = plan(ledger.tree, await self._reopener.bodies(run_id, ledger))
        if not back:
            return 0
        reopening = msgspec.structs.replace(record, state="reopening", round=record.round + 1, claim=None, resent=0)
        try:
            revision = await self._records.update(run_key(run_id), encode(reopening), revision)
        except Conflict:
            raise NotEnded(run_id) from None
        await self._take_key(record, reopening, revision)
        parts = self._reopener.parts(reopening.round, ledger, back)
        for part in parts:
            ledger.apply(part, ledger.sequence + 1)  # so that the record shows what is going to be
        queued = _queued(reopening, ledger)
        try:
            revision = await self._records.update(run_key(run_id), encode(queued), revision)
        except Conflict:
            queued, revision = await self._look_again(run_id, reopening.round)
        await self._reopener.store(run_id, parts)
        await self._send(queued, revision, ledger, back)
        return sum(bits.count() for bits in back.values())

    async def finish(self, record: Record, revision: int, ledger: Ledger) -> None:
        """All steps after `queued`, as far as they are not done. `ledger` has folded all that is stored of the run."""
        back = await self._reopener.reopen(record.id, record.round, ledger)
        await self._send(record, revision, ledger, back)

    # --- messages ----------------------------------------------------------------------------------

    async def _send(self, record: Record, revision: int, ledger: Ledger, back: Back) -> None:
        """Publish the messages, and let the run go on. Leaves it to whoever else has written the record meanwhile."""
        left = Tasks(_open(with_messages(ledger.tree, back), record, ledger))
        root = left.take(ROOT)
        if root and record.resent == ALL and await queue_counts(self._connection, self._names, record.id):
            return  # everything waits in the queue, the root too
        sending = _Sending(self._publisher.window(), self._records, self._names, record, revision)
        sending.pause = self._publisher.timeout / 2
        try:
            await sending.note(record.resent)  # from here on, who was at it before finds out
            if record.resent != ALL:
                await self._send_errors(record, ledger, left, sending)
            if root:
                # The last one: it takes the run out of the hands of those who would finish this.
                message = encode_task(ROOT, record.round, bytes(record.body))
                await self._publisher.store(self._names.task(record.id, record.topic), message)
            else:
                await sending.run()
        except Conflict:
            log.info("somebody else has taken the retry over, or ended it", extra={"run": record.id})
        finally:
            sending.close()

    async def _send_errors(self, record: Record, ledger: Ledger, left: Tasks, sending: _Sending) -> None:
        """Publish the messages of these tasks, which ended as error."""
        async with aclosing(stored_bodies(self._connection, self._names, record.id)) as batches:
            async for batch in batches:
                for each in batch:
                    wanted = left.take(each.task) and each.stored.sequence > record.resent
                    if wanted and not await sending.send(ledger.tree.topic_of(each.task), each):
                        left.add(each.task)
                await sending.note_in_time()
        await sending.settle()
        await sending.note(ALL)
        if missing := left.count():
            log.error("bodies of errors are gone; their tasks stay open", extra={"run": record.id, "tasks": missing})

    # --- steps that are undone ---------------------------------------------------------------------

    async def _take_key(self, old: Record, reopening: Record, revision: int) -> None:
        if old.unique is None:
            return
        holder = await self._starter.take_key(old.unique, old.id)
        if holder is None:
            return
        try:
            await self._records.update(run_key(old.id), encode(old), revision, ttl=self._retention)
        except Conflict:
            log.info("the retry was undone already", extra={"run": old.id, "round": reopening.round})
        raise DuplicateRun(old.unique, holder)

    async def _look_again(self, run_id: str, round: int) -> tuple[Record, int]:
        """What somebody else has made of the record, if that is the step that was refused."""
        entry = await self._records.get(run_key(run_id), leader=True)
        record = decode_record(entry.value) if entry is not None else None
        if entry is None or record is None or record.round != round:
            raise Unconfirmed(f"the retry of run {run_id} took so long that it was undone; retry it again")
        return record, entry.revision


class _Sending:
    """Messages on their way, a window at a time, and how far they have come."""

    def __init__(self, window: Window, records: Records, names: Names, record: Record, revision: int) -> None:
        self.pause = 5.0
        """Seconds without a note after which there is one for the sake of it."""
        self._window = window
        self._records = records
        self._names = names
        self._record = record
        self._revision = revision
        self._bytes = 0
        self._last = 0
        self._noted_at = 0.0

    async def send(self, topic: str, each: StoredBody) -> bool:
        """Publish the message of a task; False if its body cannot be read."""
        body = each.body()
        if body is None:
            return False
        message = encode_task(each.task, self._record.round, body)
        await self._window.add(self._names.task(self._record.id, topic), message)
        self._last = each.stored.sequence
        self._bytes += len(message)
        if self._window.count >= WINDOW or self._bytes >= WINDOW_BYTES:
            await self.settle()
        return True

    async def settle(self) -> None:
        """Wait until all is stored, and note that; Conflict as `note`."""
        if self._window.count:
            await self._window.settle()
            self._bytes = 0
            await self.note(self._last)

    async def note_in_time(self) -> None:
        """Give a sign of life where nothing was sent for long; Conflict as `note`."""
        if time.monotonic() - self._noted_at > self.pause:
            await self.note(self._record.resent)

    async def note(self, sequence: int) -> None:
        """Note up to which stored error all have their messages; Conflict if somebody else has written the record."""
        await self._write(msgspec.structs.replace(self._record, resent=sequence, updated_at=time.time()))

    async def run(self) -> None:
        """Without a root that claims the run, it runs from here on; Conflict as `note`."""
        await self._write(msgspec.structs.replace(self._record, state="running"))

    def close(self) -> None:
        """Wait for nothing any more."""
        self._window.abandon()

    async def _write(self, record: Record) -> None:
        if self._record.state != "queued":
            raise Conflict(run_key(record.id))
        self._revision = await self._records.update(run_key(record.id), encode(record), self._revision)
        self._record = record
        self._noted_at = time.monotonic()


def _queued(reopening: Record, ledger: Ledger) -> Record:
    """The record of a run that is brought back."""
    return msgspec.structs.replace(
        counted(reopening, ledger, {}, root_running=False),
        state="queued",
        finished_at=None,
        receipt=None,
        interrupted_by=None,
        interrupt_reason=None,
        status="",
    )


def _open(back: Back, record: Record, ledger: Ledger) -> Back:
    """What of it has not ended since."""
    if ledger.round < record.round:
        return back
    return {batch: bits.minus(ledger.tree.batches[batch].ended) for batch, bits in back.items()}
