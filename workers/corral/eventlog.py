"""The stored events of runs, for those who look: a run's own, its errors, and all of them as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from typing import Any, NamedTuple

import msgspec

from corral.bitmap import EMPTY, Bitmap
from corral.errors import EventsExpired
from corral.events import AnyEvent, Failed, Reopened, RunEnded, decode_event
from corral.history import Tasks
from corral.jetstream.reader import Behind, Reader, Since, Stored
from corral.jetstream.topology import subject_events
from corral.messages import task_text
from corral.operations import Operations
from corral.parts import Parts, named
from corral.runs import TaskError, moment

FAILED = str(Failed.__struct_config__.tag)
REOPENED = str(Reopened.__struct_config__.tag)


class StoredEvent(NamedTuple):
    """An event, and where and when it was stored."""

    run_id: str
    seq: int
    at: float
    """Seconds since the epoch."""
    event: AnyEvent


class EventLog:
    """Reads what was stored; changes nothing."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._names = operations.names
        self._connection = operations.connection

    async def errors(self, run_id: str) -> AsyncIterator[TaskError]:
        """See `Client.errors`."""
        record = await self._operations.record(run_id)
        subject = self._names.event(run_id, REOPENED)
        reopenings = await subject_events(self._connection, self._names.events_stream, subject)
        back = _brought_back(found.event for found in self._decode(reopenings))
        seen: dict[int, Tasks] = {}
        reader = self._reader(self._names.event(run_id, FAILED), 1)
        try:
            async with aclosing(reader.to_end()) as batches:
                async for batch in batches:
                    for found in self._decode(batch):
                        failed = found.event
                        if not isinstance(failed, Failed) or _is_back(failed, back):
                            continue
                        if seen.setdefault(failed.round, Tasks()).add(failed.task):
                            yield _task_error(failed, found.at)
        finally:
            await reader.close()
        if record.counts.error and not seen and (await self._operations.record(run_id)).round == record.round:
            raise EventsExpired(run_id)  # and it is not that a retry has brought them back meanwhile

    async def events(self, run_id: str, *, follow: bool = False) -> AsyncIterator[StoredEvent]:
        """See `Client.events`."""
        record = await self._operations.record(run_id, leader=follow)
        if follow and record.live:
            async for stored in self._events_to_come(run_id):
                yield stored
            return
        found = ended = False
        reader = self._reader(self._names.run_events(run_id), 1)
        try:
            for stored in self._decode(await reader.read_all()):
                found, ended = True, ended or _ends(stored.event, record.round)
                yield stored
        finally:
            await reader.close()
        if (record.seq and not found) or (follow and not ended):
            raise EventsExpired(run_id)

    async def _events_to_come(self, run_id: str) -> AsyncIterator[StoredEvent]:
        """All events of a live run, the last one the `RunEnded` after which its record became final."""
        reader = self._reader(self._names.run_events(run_id), 1)
        try:
            async for batch in reader:
                for stored in self._decode(batch):
                    yield stored
                    if isinstance(stored.event, RunEnded) and await self._over(run_id, stored.event.round):
                        return
        finally:
            await reader.close()

    async def _over(self, run_id: str, round: int) -> bool:
        """Whether the run is over with the end of this round, once that is known."""
        async with aclosing(self._operations.watch_record(run_id)) as records:
            async for record in records:
                # A retry that is refused its unique key leaves the run as it had ended.
                if record.round > round and record.state != "reopening":
                    return False
        return True

    async def read(
        self,
        *,
        since: float | None = None,
        behind: tuple[int, float] | None = None,
        run_id: str | None = None,
    ) -> AsyncIterator[list[StoredEvent]]:
        """See `Client.read_events`."""
        wanted = self._names.all_events if run_id is None else self._names.run_events(run_id)
        start = Behind(*behind) if behind is not None else 1 if since is None else Since(since)
        reader = self._reader(wanted, start)
        try:
            async for batch in marked_batches(reader):
                yield self._decode(batch)
        finally:
            await reader.close()

    def _reader(self, subject: str, start: int | Since | Behind) -> Reader:
        return Reader(self._connection, self._names.events_stream, [subject], start=start)

    def _decode(self, batch: list[Any]) -> list[StoredEvent]:
        out = []
        for stored in batch:
            try:
                out.append(
                    StoredEvent(
                        self._names.run_of_event(stored.subject),
                        stored.sequence,
                        stored.time,
                        decode_event(stored.data, stored.subject),
                    )
                )
            except msgspec.DecodeError:
                continue  # of a newer version, or not one of ours
        return out


def _ends(event: AnyEvent, round: int) -> bool:
    return isinstance(event, RunEnded) and event.round == round


_Back = dict[int, dict[int, Bitmap]]
"""Round -> batch -> the ordinals that the retry has brought back."""


def _brought_back(stored: Iterable[AnyEvent]) -> _Back:
    """What the retries of a run have brought back, as far as they were said in full."""
    back: _Back = {}
    said: dict[int, Parts] = {}
    for event in stored:
        if isinstance(event, Reopened) and (parts := said.setdefault(event.round, Parts()).add(event)):
            into = back.setdefault(event.round, {})
            for batch, bits in (each for part in parts for each in named(part)):
                into[batch] = into.get(batch, EMPTY).plus(bits)
    return back


def _is_back(failed: Failed, back: _Back) -> bool:
    """Whether a later retry has brought the task back."""
    batch, ordinal = failed.task
    return any(round > failed.round and ordinal in batches.get(batch, EMPTY) for round, batches in back.items())


def _task_error(failed: Failed, at: float) -> TaskError:
    """The stored failure as users see it."""
    return TaskError(
        task=task_text(failed.task),
        topic=failed.topic,
        type=failed.error,
        message=failed.message,
        traceback=failed.traceback,
        attempt=failed.attempt,
        at=moment(at),
        worker=failed.worker,
        body=failed.body,
        fingerprint=failed.fingerprint,
    )


async def marked_batches(reader: Reader) -> AsyncIterator[list[Stored]]:
    """The reader's batches, and one empty batch when all that was there at the start has been handed out."""
    coming = asyncio.ensure_future(anext(reader))
    caught_up = asyncio.ensure_future(reader.caught_up.wait())
    try:
        while not caught_up.done():
            await asyncio.wait({coming, caught_up}, return_when=asyncio.FIRST_COMPLETED)
            if coming.done():
                yield coming.result()
                coming = asyncio.ensure_future(anext(reader))
        yield []
        while True:
            yield await coming
            coming = asyncio.ensure_future(anext(reader))
    finally:
        coming.cancel()
        caught_up.cancel()
