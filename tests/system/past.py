"""Runs that have ended, stored as their workers would have left them: so that a test can have large ones at once."""

from __future__ import annotations

import time
from collections.abc import Iterable

import msgspec

from corral import Client, events
from corral.events import DispatcherEnd, Ended, Ends, Failed, Opened, RunEnded, Sent, encode_event, kind, ranges
from corral.history import read_ledger
from corral.operations import Run
from corral.resume import Digest
from corral.runs import Record, counted, encode, outcome
from corral.subjects import run_key


class Past:
    """A run whose root, of topic `many`, has sent so many tasks of topic `leaf`, with their numbers as bodies."""

    def __init__(self, client: Client, run_id: str, count: int) -> None:
        self.client = client
        self.id = run_id
        self.count = count
        self.batch = 0
        self.round = 0
        self._number = 0
        self._names = client.operations.names

    async def store(self, event: events.Event, subject: str = "") -> int:
        """Store an event of this run."""
        subject = subject or self._names.event(self.id, kind(event))
        return await self.client.operations.publisher.store(subject, encode_event(event))

    async def send(self, window: int) -> None:
        """The root sends all, a window at a time."""
        log = self._names.dispatch_log(self.id, 0, 0)
        self.batch = await self.store(Opened((0, 0), "n"), log)
        for first in range(0, self.count, window):
            last = min(first + window, self.count)
            digest = Digest()
            for i in range(first, last):
                digest.add("leaf", b"%d" % i)
            await self.store(Sent(self.batch, first, last, ["leaf"], digest=digest.text()), log)

    async def end(self, ordinals: Iterable[int], result: events.Outcome) -> None:
        """These end; errors with their bodies."""
        ordinals = list(ordinals)
        if result == "error":
            window = self.client.operations.publisher.window()
            for i in ordinals:
                body = msgspec.Raw(b"%d" % i)
                failed = Failed("leaf", (self.batch, i), "ValueError", "m", "t", 1, "w", body, round=self.round)
                await window.add(self._names.event(self.id, kind(failed)), encode_event(failed))
            await window.settle()
        for start in range(0, len(ordinals), 4_000):
            self._number += 1
            ends = Ends("leaf", self.batch, self.round, result, ranges(ordinals[start : start + 4_000]))
            await self.store(Ended("w", self._number, [ends]))

    async def end_root(self) -> None:
        """The root ends well."""
        self._number += 1
        end = DispatcherEnd("many", (0, 0), self.round, "success", [(self.batch, self.count)])
        await self.store(Ended("w", self._number, dispatchers=[end]))

    async def over(self, *, interrupted: bool = False) -> Run:
        """The run is over, and has its final record."""
        await self.store(RunEnded(self.round, interrupted=interrupted, status="failed"))
        operations = self.client.operations
        ledger = await read_ledger(self.client.connection, self._names, self.id, "many")
        assert ledger.over
        record = Record(
            id=self.id,
            topic="many",
            body=msgspec.Raw(b"%d" % self.count),
            state="final",
            created_at=time.time(),
            round=self.round,
        )
        record = counted(record, ledger, {}, root_running=False)
        record = msgspec.structs.replace(record, status=outcome(record.counts), finished_at=time.time())
        await operations.records.create(run_key(self.id), encode(record))
        return Run(self.id, operations)


async def failed_run(client: Client, run_id: str, count: int, *, every: int = 2) -> Run:
    """A run of `count` tasks of which one in `every` has failed."""
    past = Past(client, run_id, count)
    await past.send(client.operations.settings.window)
    await past.end((i for i in range(count) if i % every), "success")
    await past.end(range(0, count, every), "error")
    await past.end_root()
    return await past.over()


async def interrupted_run(client: Client, run_id: str, count: int, *, every: int = 2) -> Run:
    """A run of `count` tasks of which one in `every` was removed from the queue."""
    past = Past(client, run_id, count)
    await past.send(client.operations.settings.window)
    await past.end((i for i in range(count) if i % every), "success")
    await past.end_root()
    await past.store(events.Interrupted())
    return await past.over(interrupted=True)
