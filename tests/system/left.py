"""Retries that are left half way, and what the bookkeeper does with them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from corral.events import Reopened
from corral.history import read_ledger
from corral.operations import Run
from corral.retrying import Retrier
from corral.runs import Record, decode_record
from corral.subjects import run_key


class Killed(BaseException):
    """This process dies."""


class Mortal:
    """What stores for a client, until it dies: before its `last` step is taken, or after it, and before it knows."""

    def __init__(self, client: Any, last: int, *, after: bool) -> None:
        self.publisher = client.operations.publisher
        self._store = self.publisher.store
        self._left = last
        self._after = after

    async def store(self, *args: Any, **kwargs: Any) -> int:
        self._left -= 1
        if self._left < 0 or (self._left == 0 and not self._after):
            raise Killed
        stored = await self._store(*args, **kwargs)
        if self._left == 0:
            raise Killed
        return int(stored)

    def __enter__(self) -> None:
        self.publisher.store = self.store

    def __exit__(self, *_: object) -> None:
        self.publisher.store = self._store


class Slow:
    """What stores for a client, and is overtaken by others before its `step`."""

    def __init__(self, client: Any, step: int, others: Callable[[], Awaitable[Any]]) -> None:
        self.publisher = client.operations.publisher
        self._store = self.publisher.store
        self._left = step
        self._others = others

    async def store(self, *args: Any, **kwargs: Any) -> int:
        self._left -= 1
        if self._left == 0:
            self.publisher.store = self._store
            await self._others()
        return int(await self._store(*args, **kwargs))

    def __enter__(self) -> None:
        self.publisher.store = self.store

    def __exit__(self, *_: object) -> None:
        self.publisher.store = self._store


def retrier_of(client: Any) -> Retrier:
    operations = client.operations
    return Retrier(
        operations.connection,
        operations.records,
        operations.publisher,
        operations.names,
        operations.starter,
        retention=operations.settings.retention,
    )


async def record_of(client: Any, run: Run) -> tuple[Record, int]:
    """As it is stored now, and its revision."""
    entry = await client.operations.records.get(run_key(run.id), leader=True)
    return decode_record(entry.value), entry.revision


async def finish(client: Any, run: Run) -> None:
    """What the bookkeeper does with a retry that was left."""
    record, revision = await record_of(client, run)
    ledger = await read_ledger(client.connection, client.operations.names, run.id, record.topic)
    await retrier_of(client).finish(record, revision, ledger)


async def parts_of(client: Any, run: Run) -> list[Reopened]:
    return [stored.event async for stored in client.events(run.id) if isinstance(stored.event, Reopened)]
