"""How a run is retried: a row of steps like a start, each of which may be done again.

    record `reopening` -> unique key -> record `queued` -> `Reopened` -> messages -> record `running`

Until `queued` a retry can be undone, by writing the old record; from then on it is only finished, by whoever comes
by. What is brought back follows from the events alone, so everybody who goes on with it finds the same.
"""

from __future__ import annotations

import logging

import msgspec

from corral import events
from corral.errors import Conflict, DuplicateRun, EventsExpired, NotEnded, TooLarge, Unconfirmed
from corral.events import Failed, Reopened, decode_event
from corral.jetstream.connection import Connection
from corral.jetstream.publisher import Publisher
from corral.jetstream.reader import Reader
from corral.jetstream.records import Records
from corral.ledger import Ledger
from corral.messages import ROOT, TaskId, encode_task
from corral.reopening import messages_of, plan
from corral.runs import Record, counted, decode_record, encode
from corral.starter import Starter
from corral.subjects import Names, run_key

log = logging.getLogger(__name__)


class History:
    """A run as its events tell it: the ledger, the bodies that were stored, the last `Reopened`."""

    def __init__(self, topic: str) -> None:
        self.ledger = Ledger(topic)
        self.bodies: dict[TaskId, bytes] = {}
        self.reopened: Reopened | None = None

    @classmethod
    async def read(cls, connection: Connection, names: Names, record: Record) -> History:
        """Read all events of the run that are still there."""
        history = cls(record.topic)
        reader = Reader(connection, names.events_stream, [names.run_events(record.id)], start=1)
        try:
            for stored in await reader.read_all():
                try:
                    event = decode_event(stored.data, stored.subject)
                except msgspec.DecodeError as error:
                    log.error(
                        "an event that cannot be read is ignored", extra={"seq": stored.sequence, "error": str(error)}
                    )
                else:
                    history.apply(event, stored.sequence, stored.time)
        finally:
            await reader.close()
        return history

    def apply(self, event: events.AnyEvent, sequence: int, at: float) -> None:
        """Take the next event in."""
        self.ledger.apply(event, sequence, at)
        if isinstance(event, Failed) and event.error != "Lost":
            self.bodies[event.task] = bytes(event.body)
        elif isinstance(event, Reopened) and event.round == self.ledger.round:
            self.reopened = event


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

    async def retry(self, run_id: str, record: Record, revision: int) -> int:
        """Bring back what ended as error or interrupted; how many tasks that are. 0: nothing did, and nothing was done.

        Raises:
            NotEnded: the run is still live.
            DuplicateRun: another run holds its unique key now; nothing was changed.
            EventsExpired: the run's events are gone.
            TooLarge: what would come back is scattered so much that it does not fit into one event.
        """
        if record.state != "final":
            raise NotEnded(run_id)
        history = await History.read(self._connection, self._names, record)
        if history.ledger.counts()[0] != record.counts:
            raise EventsExpired(run_id)
        planned = plan(history.ledger, history.bodies)
        if not planned.tasks:
            return 0
        size = len(events.encode_event(Reopened(round=record.round + 1, tasks=planned.tasks)))
        if size > self._connection.max_payload - 1024:
            raise TooLarge(size, self._connection.max_payload - 1024)
        reopening = msgspec.structs.replace(record, state="reopening", round=record.round + 1, claim=None)
        try:
            revision = await self._records.update(run_key(run_id), encode(reopening), revision)
        except Conflict:
            raise NotEnded(run_id) from None
        await self._take_key(record, reopening, revision)
        history.ledger.apply(Reopened(round=reopening.round, tasks=planned.tasks), history.ledger.sequence + 1)
        queued = counted(reopening, history.ledger, {}, root_running=False)
        queued = msgspec.structs.replace(
            queued,
            state="queued",
            finished_at=None,
            receipt=None,
            interrupted_by=None,
            interrupt_reason=None,
            status="",
        )
        try:
            await self._records.update(run_key(run_id), encode(queued), revision)
        except Conflict:
            await self._look_again(run_id, reopening.round)
        await self.finish(queued)
        return planned.size

    async def finish(self, record: Record) -> None:
        """All steps after `queued`, as far as they are not done."""
        history = await History.read(self._connection, self._names, record)
        if history.ledger.round < record.round:
            planned = plan(history.ledger, history.bodies)
            reopened = Reopened(round=record.round, tasks=planned.tasks)
            messages = planned.messages
            subject = self._names.event(record.id, events.kind(reopened))
            await self._publisher.store(subject, events.encode_event(reopened))
        elif history.reopened is not None:
            reopened = history.reopened
            messages = messages_of(reopened.tasks, history.ledger)
        else:
            return
        window = self._publisher.window()
        for topic, task in messages:
            body = bytes(record.body) if task == ROOT else history.bodies[task]
            await window.add(self._names.task(record.id, topic), encode_task(task, record.round, body))
        await window.settle()
        if not any(task == ROOT for _, task in messages):
            await self._run(record)

    async def _run(self, record: Record) -> None:
        """Without a root that claims the run, it runs from here on."""
        while True:
            entry = await self._records.get(run_key(record.id), leader=True)
            if entry is None:
                return
            now = decode_record(entry.value)
            if now.round != record.round or now.state != "queued":
                return
            try:
                await self._records.update(
                    entry.key, encode(msgspec.structs.replace(now, state="running")), entry.revision
                )
            except Conflict:
                continue
            return

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

    async def _look_again(self, run_id: str, round: int) -> None:
        """Whether somebody else has taken the step that was refused."""
        entry = await self._records.get(run_key(run_id), leader=True)
        if entry is None or decode_record(entry.value).round != round:
            raise Unconfirmed(f"the retry of run {run_id} took so long that it was undone; retry it again")
