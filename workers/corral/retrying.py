"""How a run is retried: a row of steps like a start, each of which may be done again.

    record `reopening` -> unique key -> record `queued` -> `Reopened` -> messages -> record `running`

Until `queued` a retry can be undone, by writing the old record; from then on it is only finished, by whoever comes
by. What is brought back follows from the events alone; what a retry is limited to, if it is, stands in the record from
the first step on. So everybody who goes on with it finds the same.

A run may have millions of tasks, and as many stored bodies. Of these nobody keeps more than a window: a first pass
over the errors finds out whose body is stored, a second one publishes. How far it has come stands in the record, and
each note of it is a compare-and-set: so another one can go on there, and of two at once one leaves.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import aclosing
from typing import NamedTuple

import msgspec

from corral import events
from corral.bitmap import Bitmap
from corral.errors import Conflict, DuplicateRun, EventsExpired, NotEnded, SelectionTooLarge, Unconfirmed
from corral.events import Reopened
from corral.history import Tasks, read_ledger, stored_bodies
from corral.jetstream.connection import Connection
from corral.jetstream.publisher import Publisher
from corral.jetstream.records import Records
from corral.jetstream.topology import queue_counts
from corral.ledger import Ledger
from corral.messages import RESERVE, ROOT, TaskId, encode_task
from corral.parts import split
from corral.reopening import Back, brought_back, by_topic, ended_badly, plan, select, with_messages
from corral.runs import Record, counted, decode_record, encode
from corral.sending import Sending
from corral.starter import Starter
from corral.subjects import Names, run_key

log = logging.getLogger(__name__)

PART = 512 * 1024
"""Bytes of one `Reopened`, about, where the server takes that much."""
ALL = -1
"""`Record.resent` when there is nothing left to publish but the root, which comes last."""


class Chosen(NamedTuple):
    """What a user limits a retry to: these tasks, and all of these topics."""

    tasks: Sequence[TaskId] = ()
    topics: Sequence[str] = ()


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

    async def reopen(self, record: Record, ledger: Ledger) -> Back:
        """Store the missing ones for a run whose record has come to a round; what they bring back.

        The ledger is the run's before this round; or in it, perhaps only meanwhile: then there is nothing to store.
        """
        bodies = await self.bodies(record.id, ledger) if ledger.round < record.round else {}
        if ledger.round >= record.round:
            return brought_back(ledger)
        back = plan(ledger.tree, bodies, record.selection)
        missing = [part for part in self.parts(record.round, ledger, back) if not ledger.parts.has(part)]
        await self.store(record.id, missing)
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

    async def retry(self, run_id: str, record: Record, revision: int, chosen: Chosen | None = None) -> int:
        """Bring back what ended as error or interrupted, and was chosen; how many tasks that are.

        0: nothing did, and nothing was done. Those who have to send some of them again are among the tasks.

        Raises:
            NotEnded: the run is still live.
            DuplicateRun: another run holds its unique key now; nothing was changed.
            EventsExpired: the run's events are gone.
            TaskNotFound: the run has no such task, or none of such a topic.
            SelectionTooLarge: more scattered tasks than the record can keep; nothing was changed.
        """
        if record.state != "final":
            raise NotEnded(run_id)
        ledger = await read_ledger(self._connection, self._names, run_id, record.topic)
        if ledger.counts()[0] != record.counts:
            now = await self._records.get(run_key(run_id), leader=True)
            # Somebody else has retried it meanwhile.
            raise EventsExpired(run_id) if now is None or now.revision == revision else NotEnded(run_id)
        selection = None if chosen is None else select(run_id, ledger.tree, chosen.tasks, chosen.topics)
        back = plan(ledger.tree, await self._reopener.bodies(run_id, ledger), selection)
        if not back:
            return 0
        reopening = msgspec.structs.replace(
            record, state="reopening", round=record.round + 1, claim=None, resent=0, selection=selection
        )
        self._check_room(reopening, ledger)
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
            queued, revision = await self._look_again(reopening, back)
        await self._reopener.store(run_id, parts)
        await self._send(queued, revision, ledger, back)
        return sum(bits.count() for bits in back.values())

    async def finish(self, record: Record, revision: int, ledger: Ledger) -> None:
        """All steps after `queued`, as far as they are not done. `ledger` has folded all that is stored of the run."""
        back = await self._reopener.reopen(record, ledger)
        await self._send(record, revision, ledger, back)

    def _check_room(self, reopening: Record, ledger: Ledger) -> None:
        """SelectionTooLarge if the record, which goes on growing, does not fit into a message with its selection."""
        most = self._connection.max_payload
        if reopening.selection is not None and len(encode(reopening)) > most - min(RESERVE, most // 16) // 2:
            selected = reopening.selection.within(ended_badly(ledger.tree))
            raise SelectionTooLarge(reopening.id, sum(bits.count() for bits in selected.values()))

    # --- messages ----------------------------------------------------------------------------------

    async def _send(self, record: Record, revision: int, ledger: Ledger, back: Back) -> None:
        """Publish the messages, and let the run go on. Leaves it to whoever else has written the record meanwhile."""
        left = Tasks(_open(with_messages(ledger.tree, back), record, ledger))
        root = left.take(ROOT)
        if root and record.resent == ALL and await queue_counts(self._connection, self._names, record.id):
            return  # everything waits in the queue, the root too
        sending = Sending(self._publisher.window(), self._records, self._names, record, revision)
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

    async def _send_errors(self, record: Record, ledger: Ledger, left: Tasks, sending: Sending) -> None:
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

    async def _look_again(self, reopening: Record, back: Back) -> tuple[Record, int]:
        """What somebody else has made of the record, if that is the step that was refused."""
        entry = await self._records.get(run_key(reopening.id), leader=True)
        if entry is not None and await self._is_same(decode_record(entry.value), reopening, back):
            return decode_record(entry.value), entry.revision
        raise Unconfirmed(f"the retry of run {reopening.id} took so long that it was undone; retry it again")

    async def _is_same(self, record: Record, reopening: Record, back: Back) -> bool:
        """Whether a record is of this very retry, and not of one that came after it was undone."""
        if record.round != reopening.round or record.state == "reopening":
            return False
        if record.state == "queued":
            return record.selection == reopening.selection
        ledger = await read_ledger(self._connection, self._names, record.id, record.topic)
        return ledger.round == record.round and brought_back(ledger) == back


def _queued(reopening: Record, ledger: Ledger) -> Record:
    """The record of a run that is brought back. If some of it stays interrupted, so does who ordered that."""
    queued = msgspec.structs.replace(
        counted(reopening, ledger, {}, root_running=False), state="queued", finished_at=None, receipt=None, status=""
    )
    if queued.counts.interrupted:
        return queued
    return msgspec.structs.replace(queued, interrupted_by=None, interrupt_reason=None)


def _open(back: Back, record: Record, ledger: Ledger) -> Back:
    """What of it has not ended since."""
    if ledger.round < record.round:
        return back
    return {batch: bits.minus(ledger.tree.batches[batch].ended) for batch, bits in back.items()}
