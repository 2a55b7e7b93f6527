"""The bucket: one writer wins, tombstones count as nothing, and what has a time to live ends."""

from __future__ import annotations

import asyncio

import pytest

from corral.errors import Conflict
from corral.jetstream.connection import Connection
from corral.jetstream.publisher import Publisher
from corral.jetstream.records import Entry, Records
from corral.subjects import Names

DEADLINE = 30.0


@pytest.fixture
def records(connection: Connection, publisher: Publisher, names: Names) -> Records:
    return Records(connection, publisher, names)


async def expired(records: Records, key: str) -> None:
    """Wait until the server has ended a value that has a time to live."""
    reader = records.watch(key)
    async with asyncio.timeout(DEADLINE):
        async for batch in reader:
            if any(stored.operation == "MaxAge" for stored in batch):
                break
    await reader.close()


async def test_a_value_comes_back_with_its_revision(records: Records) -> None:
    revision = await records.create("run.1", b"one")
    for leader in (False, True):
        entry = await records.get("run.1", leader=leader)
        assert entry is not None
        assert (entry.key, entry.value, entry.revision) == ("run.1", b"one", revision)
        assert entry.time > 1_700_000_000
        assert await records.get("run.2", leader=leader) is None


async def test_keys_may_have_dots_and_values_may_be_anything(records: Records) -> None:
    value = bytes(range(256)) + b'"error"\r\n'
    await records.create("topic.a.b", value)
    for leader in (False, True):
        entry = await records.get("topic.a.b", leader=leader)
        assert entry is not None
        assert entry.value == value


async def test_a_key_is_created_once(records: Records) -> None:
    results = await asyncio.gather(*(records.create("k", b"%d" % n) for n in range(10)), return_exceptions=True)
    assert sum(isinstance(result, int) for result in results) == 1
    assert sum(isinstance(result, Conflict) for result in results) == 9


async def test_an_update_needs_the_present_revision(records: Records) -> None:
    first = await records.create("k", b"1")
    second = await records.update("k", b"2", first)
    with pytest.raises(Conflict, match="k"):
        await records.update("k", b"3", first)
    with pytest.raises(Conflict):
        await records.update("other", b"3", second)
    entry = await records.get("k")
    assert entry is not None
    assert (entry.value, entry.revision) == (b"2", second)


async def test_a_delete_needs_the_present_revision(records: Records) -> None:
    first = await records.create("k", b"1")
    second = await records.update("k", b"2", first)
    with pytest.raises(Conflict):
        await records.delete("k", first)
    await records.delete("k", second)
    assert await records.get("k") is None
    assert await records.get("k", leader=True) is None
    with pytest.raises(Conflict):
        await records.update("k", b"3", second)


async def test_a_deleted_key_can_be_created_again(records: Records) -> None:
    for number in range(3):
        revision = await records.create("k", b"%d" % number)
        await records.delete("k", revision)
    await records.create("k", b"last")
    entry = await records.get("k")
    assert entry is not None
    assert entry.value == b"last"


async def test_a_lease_expires_and_can_be_taken_again(records: Records) -> None:
    revision = await records.create("leader", b"one", ttl=0.2)  # rounded up to a second
    with pytest.raises(Conflict):
        await records.create("leader", b"two", ttl=0.2)
    await expired(records, "leader")
    assert await records.get("leader") is None
    with pytest.raises(Conflict):
        await records.update("leader", b"one", revision, ttl=1.0)
    await records.create("leader", b"two", ttl=1.0)


async def test_a_renewed_lease_still_expires(records: Records) -> None:
    revision = await records.create("leader", b"one", ttl=1.0)
    await records.update("leader", b"one", revision, ttl=1.0)
    await expired(records, "leader")
    assert await records.get("leader") is None


async def test_entries_are_the_live_values_under_a_prefix(records: Records) -> None:
    assert await records.entries("run") == []
    for number in range(20):
        await records.create(f"run.{number}", b"%d" % number)
    gone = await records.create("run.gone", b"x")
    await records.delete("run.gone", gone)
    await records.create("runner.1", b"other")
    entries = await records.entries("run.")
    assert [(entry.key, entry.value) for entry in entries] == [(f"run.{n}", b"%d" % n) for n in range(20)]
    assert entries[3] == await records.get("run.3")
    assert len(await records.entries("")) == 21


async def test_ten_thousand_entries_are_read_at_once(records: Records, publisher: Publisher, names: Names) -> None:
    window = publisher.window()
    for number in range(10_000):
        await window.add(names.key(f"run.{number}"), b"x" * 500)
    await window.settle()
    entries = await records.entries("run")
    assert isinstance(entries[0], Entry)
    assert len({entry.key for entry in entries}) == 10_000


async def test_a_watch_shows_what_is_there_and_every_change(records: Records) -> None:
    first = await records.create("run.1", b"1")
    await records.create("run.2", b"2")
    reader = records.watch("run.*")
    seen: list[tuple[str, bytes, str | None]] = []
    async with asyncio.timeout(DEADLINE):
        async for batch in reader:
            seen += [(stored.subject.rpartition(".")[2], stored.data, stored.operation) for stored in batch]
            if len(seen) == 2:
                await records.delete("run.1", await records.update("run.1", b"3", first))
            if len(seen) >= 4 or (len(seen) == 3 and seen[-1][2]):
                break
    await reader.close()
    assert seen[:2] == [("1", b"1", None), ("2", b"2", None)]
    assert seen[-1] == ("1", b"", "DEL")
