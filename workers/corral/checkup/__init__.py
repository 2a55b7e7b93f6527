"""Looks at everything that can keep runs from moving, and changes nothing: the facts for `corral.doctor`.

It takes about a second: the queue is looked at twice, so that what moves is told from what stands still, and the
workers are listened to in between. What this user may not see, or what does not answer, is noted, and all else is
looked at.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from corral.checkup.runs import RunLook, read_record
from corral.doctor.facts import (
    Account,
    Bookkeeper,
    ConsumerFacts,
    Facts,
    Kind,
    Look,
    OddMessage,
    StreamFacts,
    Unseen,
    WorkerFacts,
)
from corral.errors import ApiError, CorralError, NoResponder, NoServer, PermissionDenied, RunNotFound, Unconfirmed
from corral.jetstream import survey
from corral.jetstream.connection import Message
from corral.jetstream.direct import Stored
from corral.jetstream.topology import first_task, queue_counts
from corral.messages import decode_task
from corral.operations import Operations
from corral.questions import ASK, PATIENCE, ROLL_CALL
from corral.runs import Beat, Record, decode_beat, decode_record
from corral.subjects import LEADER_KEY, check_run_id

T = TypeVar("T")

LISTEN = 0.25
"""Seconds that workers are listened to, beyond the time between two heartbeats."""
FEW = 20
"""Topics of which messages are looked at."""
FIRST = 10
"""Messages of a topic that are looked at."""
_NO_JETSTREAM = (10008, 10023, 10039, 10076)  # it starts, lacks resources, is off for the account, is off


class Known(NamedTuple):
    """What somebody knows already who follows records and heartbeats."""

    records: Sequence[Record] | None
    """Those that are kept; a few others are looked up where that matters. None: all are to be read."""
    workers: Sequence[WorkerFacts]


async def examine(
    operations: Operations, *, version: str, run_id: str | None = None, known: Known | None = None
) -> Facts:
    """The facts, of all or about one run. `version` is what workers are compared with.

    Raises:
        NoServer: it cannot be reached.
        PermissionDenied: this user may not even see the streams.
        RunNotFound: there is no run `run_id`.
    """
    return await _Checkup(operations, version, run_id, known).facts()


class _Checkup:
    def __init__(self, operations: Operations, version: str, run_id: str | None, known: Known | None) -> None:
        self._version = version
        self._operations = operations
        self._connection, self._names = operations.connection, operations.names
        self._run_id = None if run_id is None else check_run_id(run_id)
        self._known = known
        self._unseen: list[Unseen] = []
        self._ahead: float | None = None

    async def facts(self) -> Facts:
        facts = Facts(
            at=time.time(),
            namespace=self._operations.settings.namespace,
            server=", ".join(self._connection.addresses),
            version=self._version,
            run=self._run_id,
            death=self._operations.settings.death,
        )
        try:
            streams, missing = await self._streams()
        except Unconfirmed as error:
            return msgspec.structs.replace(facts, jetstream=error.what, slow=True)
        except (ApiError, NoResponder) as error:
            if isinstance(error, ApiError) and error.code not in _NO_JETSTREAM:
                raise
            why = "it is switched off" if isinstance(error, NoResponder) else str(error)
            return msgspec.structs.replace(facts, jetstream=why)
        facts = msgspec.structs.replace(
            facts,
            streams=streams,
            missing=missing,
            server_ahead=self._ahead,
            account=await self._try("the limit of the account", self._account()),
        )
        if missing:
            return msgspec.structs.replace(facts, unseen=self._unseen)
        return await self._rest(facts)

    async def _rest(self, facts: Facts) -> Facts:
        keeper = await self._try("the bookkeeper's lease", self._keeper())
        before, floors = await self._look()
        odd = await self._try("what lies in the queue", self._odd(before, floors))
        records = await self._try("the records of runs", self._records()) or []
        workers = await self._try("the workers", self._workers())
        if self._known is not None:
            await asyncio.sleep(1.0)  # between the two looks
        after, floors = await self._look()
        if odd:
            # A message that is just being acknowledged is gone by now.
            again = await self._try("what lies in the queue", self._odd(after, floors)) or []
            odd = [message for message in odd if message in again]
        if keeper is not None and (keeper.pool is None or keeper.answers is False):
            keeper = await self._try("the bookkeeper's lease", self._keeper())
        looking = RunLook(self._operations, only=self._run_id, ahead=self._ahead or 0.0)
        return msgspec.structs.replace(
            facts,
            at=time.time(),
            bookkeeper=keeper,
            workers=workers,
            before=before,
            after=after,
            runs=await self._try("the runs", looking.runs(records, before, after)) or [],
            ended={} if self._run_id else await self._try("the records of runs", self._ended(records, after)) or {},
            odd=odd or [],
            unseen=self._unseen,
        )

    async def _try(self, what: str, looking: Awaitable[T]) -> T | None:
        """What is seen; None if it cannot be, which is noted."""
        try:
            return await looking
        except (NoServer, RunNotFound):
            raise
        except PermissionDenied:
            why = "this user may not"
        except CorralError as error:
            why = str(error)
        if all(each.what != what for each in self._unseen):
            self._unseen.append(Unseen(what, why))
        return None

    # --- the server --------------------------------------------------------------------------------

    async def _streams(self) -> tuple[list[StreamFacts], list[str]]:
        names = self._names
        wanted: tuple[tuple[str, Kind], ...] = (
            (names.tasks_stream, "tasks"),
            (names.events_stream, "events"),
            (names.bucket_stream, "runs"),
        )
        found: list[StreamFacts] = []
        missing: list[str] = []
        for name, which in wanted:
            seen = await survey.look_at_stream(self._connection, name, which)
            if seen is None:
                missing.append(name)
                continue
            found.append(seen.stream)
            if seen.ahead is not None and (self._ahead is None or abs(seen.ahead) < abs(self._ahead)):
                self._ahead = seen.ahead
        return found, missing

    async def _account(self) -> Account:
        return await survey.look_at_account(self._connection)

    async def _keeper(self) -> Bookkeeper:
        entry = await self._operations.records.get(LEADER_KEY, leader=True)
        if entry is None:
            return Bookkeeper(pool=None)
        pool, asked = entry.value.decode(errors="replace"), time.monotonic()
        try:
            await self._connection.request(self._names.control(ASK), b"[]", timeout=2 * PATIENCE)
        except PermissionDenied:
            self._unseen.append(Unseen("whether the bookkeeper answers", "this user may not ask it"))
            return Bookkeeper(pool=pool)
        except (NoResponder, Unconfirmed):
            return Bookkeeper(pool=pool, answers=False)
        return Bookkeeper(pool=pool, answers=True, seconds=time.monotonic() - asked)

    # --- the queue ---------------------------------------------------------------------------------

    async def _look(self) -> tuple[Look, dict[str, int]]:
        queued = await self._try("the queue", queue_counts(self._connection, self._names))
        found: tuple[dict[str, ConsumerFacts], dict[str, int]] | None = await self._try(
            "the consumers", survey.look_at_consumers(self._connection, self._names)
        )
        consumers, floors = found or ({}, {})
        return Look(queued=queued or {}, consumers=consumers, listed=found is not None), floors

    async def _odd(self, look: Look, floors: Mapping[str, int]) -> list[OddMessage]:
        found: list[OddMessage] = []
        for topic in sorted({topic for _, topic in look.queued})[:FEW]:
            start = 1
            for _ in range(FIRST):
                stored = await first_task(self._connection, self._names, topic, start)
                if stored is None:
                    break
                found += self._judged(stored, floors.get(topic, 0))
                start = stored.sequence + 1
        return found

    def _judged(self, stored: Stored, floor: int) -> list[OddMessage]:
        run, topic = self._names.split_task(stored.subject)
        try:
            decode_task(stored.data)
        except msgspec.DecodeError:
            return [OddMessage(kind="poison", run=run, topic=topic, sequence=stored.sequence)]
        if stored.sequence <= floor:
            return [OddMessage(kind="stranded", run=run, topic=topic, sequence=stored.sequence)]
        return []

    # --- the workers -------------------------------------------------------------------------------

    async def _workers(self) -> list[WorkerFacts]:
        if self._known is not None:
            return list(self._known.workers)
        heard: dict[str, WorkerFacts] = {}

        def on_beat(message: Message) -> None:
            try:
                beat = decode_beat(message.data)
            except msgspec.DecodeError:
                return  # not one of ours
            if message.subject != self._names.beat(beat.id):
                return  # in another's name
            heard.pop(beat.id, None)
            if not beat.leaving:
                heard[beat.id] = heard_now(beat)

        subscription = await self._connection.subscribe(self._names.all_beats, on_beat)
        try:
            await self._connection.publish(self._names.control(ROLL_CALL))
            await asyncio.sleep(self._operations.settings.beat + LISTEN)
        finally:
            await subscription.close()
        return sorted(heard.values(), key=lambda worker: worker.beat.started_at)

    # --- the runs ----------------------------------------------------------------------------------

    async def _records(self) -> list[Record]:
        if self._run_id is not None:
            record = await read_record(self._operations, self._run_id)
            if record is None:
                raise RunNotFound(self._run_id)
            return [record]
        if self._known is not None and self._known.records is not None:
            return list(self._known.records)
        records = []
        for entry in await self._operations.records.entries("run"):
            try:
                records.append(decode_record(entry.value))
            except msgspec.DecodeError:
                continue  # of another version, or not one of ours
        return records

    async def _ended(self, records: Sequence[Record], look: Look) -> dict[str, bool]:
        """The runs that have messages in the queue and do not live, and whether there is a record of each."""
        live: dict[str, bool | None] = {record.id: record.live for record in records}
        unknown = [run for run in {run for run, _ in look.queued} if run not in live]
        if self._known is not None and self._known.records is not None:
            for run in unknown[FEW:]:
                live[run] = True  # not known: nothing is said of it
            for run in unknown[:FEW]:
                record = await read_record(self._operations, run)
                live[run] = None if record is None else record.live
        return {run: live.get(run) is not None for run, _ in look.queued if not live.get(run)}


def heard_now(beat: Beat) -> WorkerFacts:
    """A heartbeat that comes in at this moment."""
    return WorkerFacts(beat=beat, ahead=beat.at - time.time() if beat.at else None)
