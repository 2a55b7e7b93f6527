"""The details of runs: orders to stop, tasks in back-off, deaths of workers."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from corral.doctor.facts import Look, RunFacts
from corral.events import Crashed, Failed, Retrying, decode_event
from corral.jetstream import survey
from corral.jetstream.direct import Stored
from corral.jetstream.topology import subject_counts, subject_events
from corral.operations import Operations
from corral.runs import Marker, Record, decode_marker, decode_record
from corral.subjects import interrupt_key, run_key

FEW = 20
"""Runs of which details are read."""
EVENTS = 2_000
"""Events of one run that are read."""
CRASHED, FAILED, RETRYING = (str(each.__struct_config__.tag) for each in (Crashed, Failed, Retrying))


class RunLook:
    """Reads what is stored of runs. `only` is the one that was asked about; `ahead` is the server's clock."""

    def __init__(self, operations: Operations, *, only: str | None, ahead: float) -> None:
        self._operations = operations
        self._connection, self._names = operations.connection, operations.names
        self._only = only
        self._ahead = ahead

    async def runs(self, records: Sequence[Record], before: Look, after: Look) -> list[RunFacts]:
        """The live ones, and the one that was asked about."""
        markers = await self._markers()
        deaths = await self._deaths(records)
        earlier, later = _by_run(before), _by_run(after)
        found = []
        again = 0
        for record in records:
            run = RunFacts(record=record)
            if not record.live:
                if record.id == self._only:
                    found.append(await self._refused(run))
                continue
            marker = markers.get(record.id)
            run = RunFacts(
                record=record,
                marker=marker[0] if marker else None,
                marker_revision=marker[1] if marker else 0,
                moved=earlier.get(record.id) != later.get(record.id),
                queued=max(sum(look.get(record.id, {}).values()) for look in (earlier, later)),
            )
            if not run.moved and again < FEW and record.state != "queued":
                again += 1
                now = await read_record(self._operations, record.id)
                if now is None or not now.live:
                    continue  # it has ended meanwhile
                run = msgspec.structs.replace(run, record=now, moved=now.seq != record.seq or now.state != record.state)
            if record.counts.retrying and len(found) < FEW:
                run = await self._attempts(run)
            if record.id in deaths:
                run = await self._death(run, deaths[record.id])
            found.append(run)
        return found

    async def _markers(self) -> dict[str, tuple[Marker, int]]:
        if self._only is not None:
            entry = await self._operations.records.get(interrupt_key(self._only), leader=True)
            entries = [entry] if entry is not None else []
        else:
            entries = await self._operations.records.entries("interrupt")
        found = {}
        for entry in entries:
            try:
                found[entry.key.partition(".")[2]] = (decode_marker(entry.value), entry.revision)
            except msgspec.DecodeError:
                continue
        return found

    async def _deaths(self, records: Sequence[Record]) -> dict[str, int]:
        """How often workers have died with something of each live run, of a few runs."""
        subject = self._names.event(self._only or "*", CRASHED)
        counts = await subject_counts(self._connection, self._names.events_stream, subject)
        by_run = {self._names.run_of_event(subject): count for subject, count in counts.items()}
        live = [record.id for record in records if record.live and record.id in by_run]
        return {run_id: by_run[run_id] for run_id in live[:FEW]}

    async def _death(self, run: RunFacts, count: int) -> RunFacts:
        stored = await self._last(run.record.id, CRASHED)
        event = _decoded(stored)
        if stored is None or not isinstance(event, Crashed):
            return run
        return msgspec.structs.replace(
            run, deaths=count, death=f"{event.worker}: {event.reason}", death_at=self._mine(stored.time)
        )

    async def _refused(self, run: RunFacts) -> RunFacts:
        """Whether a run that has ended was refused its key."""
        event = _decoded(await self._last(run.record.id, FAILED))
        if isinstance(event, Failed) and event.error == "DuplicateRun":
            return msgspec.structs.replace(run, refusal=event.message)
        return run

    async def _attempts(self, run: RunFacts) -> RunFacts:
        """When tasks that are in back-off are due."""
        subject, stream = self._names.event(run.record.id, RETRYING), self._names.events_stream
        counts = await subject_counts(self._connection, stream, subject)
        last = await self._last(run.record.id, RETRYING)
        event = _decoded(last)
        if last is None or not isinstance(event, Retrying):
            return run
        run = msgspec.structs.replace(run, last_attempt=self._mine(last.time) + event.delay)
        if sum(counts.values()) > EVENTS:
            return run
        due: dict[tuple[int, int], float] = {}
        for stored in await subject_events(self._connection, stream, subject):
            event = _decoded(stored)
            if isinstance(event, Retrying):
                due[event.task] = self._mine(stored.time) + event.delay
        # Those that are past have been tried, and may have ended.
        coming = [at for at in due.values() if at > time.time()]
        return msgspec.structs.replace(run, next_attempt=min(coming, default=None))

    async def _last(self, run_id: str, which: str) -> Stored | None:
        return await survey.last_event(self._connection, self._names.events_stream, self._names.event(run_id, which))

    def _mine(self, at: float) -> float:
        """A time of the server's clock by this machine's."""
        return at - self._ahead


async def read_record(operations: Operations, run_id: str) -> Record | None:
    """The run's record, in whatever state; None if there is none that can be read."""
    entry = await operations.records.get(run_key(run_id), leader=True)
    try:
        return None if entry is None else decode_record(entry.value)
    except msgspec.DecodeError:
        return None  # of another version, or not one of ours


def _by_run(look: Look) -> dict[str, dict[str, int]]:
    """Messages by topic, of each run."""
    found: dict[str, dict[str, int]] = {}
    for (run_id, topic), count in look.queued.items():
        found.setdefault(run_id, {})[topic] = count
    return found


def _decoded(stored: Stored | None) -> object:
    if stored is None:
        return None
    try:
        return decode_event(stored.data, stored.subject)
    except msgspec.DecodeError:
        return None  # of a newer version, or not one of ours
