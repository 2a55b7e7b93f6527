"""Where there is no room for days of history, the oldest runs are forgotten: never one that lives or has just ended."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import msgspec
import pytest

from corral import StorageFull, headroom, trimming
from corral.election import stand
from corral.headroom import Headroom
from corral.jetstream.connection import Connection
from corral.jetstream.publisher import Publisher
from corral.jetstream.records import Records
from corral.jetstream.streams import ensure
from corral.jetstream.topology import destroy, purge_key, room, subject_events
from corral.runs import Record, State, encode
from corral.settings import Settings
from corral.subjects import Names
from corral.trimming import Trimming
from tests.system.stage import within

LIMIT = 1_000_000
ALL = "run"


class Archive:
    """The records and events of a namespace with little room."""

    def __init__(self, connection: Connection, names: Names) -> None:
        self.connection = connection
        self.names = names
        self.publisher = Publisher(connection)
        self.records = Records(connection, self.publisher, names)
        self.forgotten: list[str] = []
        self.trimming = Trimming(connection, names, self.forgotten.append)

    async def add(self, count: int, state: State, *, size: int = 1_000) -> list[str]:
        """So many runs in a state, each with an event."""
        first = len(await self.records.entries(ALL))
        ids = [f"r{first + number:05}" for number in range(count)]
        for id in ids:
            body = msgspec.Raw(b'"' + b"x" * size + b'"')
            await self.records.create(
                f"run.{id}", encode(Record(id=id, topic="t", body=body, state=state, created_at=1))
            )
            await self.records.create(f"interrupt.{id}", b"{}")
            await self.publisher.store(self.names.event(id, "ended"), b"{}")
        return ids

    async def pad(self) -> None:
        """Until not even an empty value fits."""
        try:
            for number in itertools.count():
                await self.records.create(f"padding.{number}", b"")
        except StorageFull:
            return

    async def left(self) -> list[str]:
        return [entry.key.partition(".")[2] for entry in await self.records.entries(ALL)]

    async def events(self, id: str) -> int:
        return len(await subject_events(self.connection, self.names.events_stream, self.names.event(id, ">")))

    async def fullness(self) -> float:
        used, limit = (await room(self.connection, self.names))[self.names.bucket_stream]
        return used / limit


@pytest.fixture
async def archive(nats_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Archive]:
    monkeypatch.setattr(trimming, "KEPT", 0.0)
    connection = await Connection.open([nats_url], name="test")
    names = Names(namespace)
    await ensure(connection, names, Settings(runs_max_bytes=LIMIT, events_max_bytes=LIMIT))
    yield Archive(connection, names)
    await destroy(connection, names)
    await connection.close()


async def test_the_oldest_ended_runs_make_room_and_their_events_go_too(archive: Archive) -> None:
    live = await archive.add(100, "running")
    ended = await archive.add(600, "final")
    assert await archive.fullness() > trimming.BEGIN
    gone = await archive.trimming.look()
    assert gone > 0
    assert await archive.fullness() <= trimming.END
    assert await archive.left() == [*live, *ended[gone:]]
    assert sorted(archive.forgotten) == ended[:gone]
    assert len(await archive.records.entries("interrupt")) == 700 - gone
    assert [await archive.events(id) for id in (live[0], ended[0], ended[gone - 1], ended[gone])] == [1, 0, 0, 1]
    assert await archive.trimming.look() == 0


async def test_nothing_is_forgotten_while_there_is_room(archive: Archive) -> None:
    await archive.add(300, "final")
    assert await archive.trimming.look() == 0
    assert len(await archive.left()) == 300


async def test_runs_that_live_are_kept_however_full_it_is(archive: Archive) -> None:
    await archive.add(700, "queued")
    assert await archive.fullness() > trimming.BEGIN
    assert await archive.trimming.look() == 0
    assert len(await archive.left()) == 700


async def test_a_run_that_a_retry_brings_back_meanwhile_is_kept(archive: Archive) -> None:
    (id,) = await archive.add(1, "final")
    entry = await archive.records.get(f"run.{id}", leader=True)
    assert entry is not None
    await archive.records.update(entry.key, entry.value, entry.revision)
    assert not await purge_key(archive.connection, archive.names, entry.key, entry.revision)
    assert (await archive.left(), await archive.events(id)) == ([id], 1)


async def test_what_has_just_ended_is_kept(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trimming, "KEPT", 3_600.0)
    await archive.add(700, "final")
    assert await archive.trimming.look() == 0


async def test_full_events_are_made_room_for_too(archive: Archive) -> None:
    (old,) = await archive.add(1, "final", size=1)
    for _ in range(85):
        await archive.publisher.store(archive.names.event(old, "failed"), b"x" * 10_000)
    assert await archive.trimming.look() == 1
    assert (await archive.events(old), await archive.left()) == (0, [])


async def test_also_a_bucket_without_room_for_tombstones_is_made_emptier(archive: Archive) -> None:
    with pytest.raises(StorageFull):
        await archive.add(2_000, "final", size=900)
    before = len(await archive.left())
    gone = await archive.trimming.look()
    assert 0 < gone < before
    assert len(await archive.left()) == before - gone
    assert await archive.fullness() <= trimming.END


async def test_room_is_kept_for_the_records_of_what_is_queued(archive: Archive) -> None:
    await archive.add(300, "final")
    for n in range(600):
        await archive.publisher.store(archive.names.task(f"q{n}", "t"), b"x")
    assert await archive.fullness() > trimming.BEGIN
    assert await archive.trimming.look() > 0
    async with Headroom(archive.connection, archive.names).taken(100):
        pass
    for n in range(600, 900):
        await archive.publisher.store(archive.names.task(f"q{n}", "t"), b"x")
    with pytest.raises(StorageFull):
        async with Headroom(archive.connection, archive.names).taken(100):
            pass


async def test_room_is_kept_for_starts_that_are_under_way(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each look would give away again what was taken, and is not stored yet."""
    monkeypatch.setattr(headroom, "LOOK_AGAIN", -1.0)
    room = Headroom(archive.connection, archive.names)

    async def all_at_once() -> None:
        async with AsyncExitStack() as starts:
            for _ in range(10_000):
                await starts.enter_async_context(room.taken(10_000))

    with pytest.raises(StorageFull):
        await all_at_once()
    async with room.taken(10_000):
        pass


async def test_a_bookkeeper_is_elected_although_its_lease_finds_no_room_at_first(archive: Archive) -> None:
    with pytest.raises(StorageFull):
        await archive.add(2_000, "final", size=900)
    await archive.pad()
    elected = asyncio.Event()

    async def lead() -> None:
        elected.set()
        await asyncio.Future()

    make_room = archive.trimming.try_to_look
    standing = asyncio.ensure_future(stand(archive.records, "me", 1.0, lead, make_room=make_room, write_anew=make_room))
    await within(elected.wait(), "the election")
    standing.cancel()
    await asyncio.wait({standing})
