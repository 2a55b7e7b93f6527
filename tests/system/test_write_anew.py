"""Somebody erases the bucket: who keeps the books writes anew what it knows of live runs, whatever fails meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from corral import topic_keys
from corral import write_anew as module
from corral.book import Book
from corral.election import stand
from corral.errors import Unconfirmed
from corral.jetstream.connection import Connection
from corral.jetstream.publisher import Publisher
from corral.jetstream.records import Records
from corral.jetstream.streams import ensure
from corral.jetstream.topology import destroy
from corral.runs import Marker, Record
from corral.settings import Settings
from corral.subjects import LEADER_KEY, Names, interrupt_key, run_key, unique_key
from corral.write_anew import write_anew
from tests.system.stage import within


class Failing(Records):
    """A bucket where the first writes of some keys fail."""

    def __init__(self, connection: Connection, names: Names) -> None:
        self.publisher = Publisher(connection)
        super().__init__(connection, self.publisher, names)
        self.failing: list[str] = []
        self.names = names

    async def create(self, key: str, value: bytes, *, ttl: float | None = None) -> int:
        if key in self.failing:
            self.failing.remove(key)
            raise Unconfirmed(key)
        return await super().create(key, value, ttl=ttl)

    async def erase(self) -> None:
        """All but one key."""
        await self.publisher.store(self.names.key("topic.x"), b"new", headers={"Nats-Rollup": "all"})


@pytest.fixture
async def records(nats_url: str, namespace: str) -> AsyncIterator[Failing]:
    connection = await Connection.open([nats_url], name="test")
    names = Names(namespace)
    await ensure(connection, names, Settings())
    records = Failing(connection, names)
    yield records
    await records.publisher.close()
    await destroy(connection, names)
    await connection.close()


async def test_a_write_that_fails_is_made_again_and_costs_no_other_run(
    records: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RUNS_AT_ONCE", 2)
    monkeypatch.setattr(module, "PAUSE", 0.0)
    books = [Book(f"r{number}") for number in range(5)] + [Book("unknown"), Book("over")]
    for book in [*books[:5], books[-1]]:
        book.record = Record(
            id=book.run_id, topic="t", body=msgspec.Raw(b"1"), state="running", created_at=0.0, unique=book.run_id
        )
        book.marker = Marker(kind="stop", round=0, by="me", reason=None, at=0.0)
    books[-1].closed = True
    for each in ("r0", "r3"):
        records.failing += [unique_key(each), interrupt_key(each), run_key(each), run_key(each)]
    await write_anew(records, books)
    assert records.failing == []
    wanted = {key(f"r{number}") for number in range(5) for key in (unique_key, interrupt_key, run_key)}
    assert {entry.key for entry in await records.entries("")} == wanted


async def test_who_keeps_the_books_has_the_lease_again_before_it_writes(records: Failing) -> None:
    """Else somebody would be elected who knows nothing of the runs; and it writes also if that happens."""
    elected, written = asyncio.Event(), asyncio.Event()
    holders: list[bytes] = []

    async def lead() -> None:
        elected.set()
        await asyncio.Future()

    async def note() -> None:
        entry = await records.get(LEADER_KEY, leader=True)
        holders.append(entry.value if entry is not None else b"")
        written.set()

    standing = asyncio.ensure_future(stand(records, "me", 2.0, lead, make_room=note, write_anew=note))
    for failing, holder in ([], b"me"), ([LEADER_KEY], b""):
        await within(elected.wait(), "the election")
        elected.clear()
        written.clear()
        records.failing += failing
        await records.erase()
        await within(written.wait(), "the writing")
        assert holders.pop() == holder
        if not failing:
            elected.set()  # it goes on
    standing.cancel()
    await asyncio.wait({standing})


async def test_the_lease_is_kept_however_long_the_writing_takes(records: Failing) -> None:
    elected, writing, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def lead() -> None:
        elected.set()
        await asyncio.Future()

    async def write() -> None:
        writing.set()
        await done.wait()

    standing = asyncio.ensure_future(stand(records, "me", 1.0, lead, make_room=write, write_anew=write))
    await within(elected.wait(), "the election")
    await records.erase()
    await within(writing.wait(), "the writing")

    async def renewals() -> None:
        seen = set()
        async for batch in records.watch(LEADER_KEY):
            seen |= {stored.sequence for stored in batch if stored.operation is None}
            if len(seen) > 3:
                return

    await within(renewals(), "three renewals of the lease")
    done.set()
    standing.cancel()
    await asyncio.wait({standing})


async def test_what_a_pool_says_of_its_topics_is_there_again_and_what_others_say_stays(
    records: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_keys, "LOOK", 0.0)
    values = {"topic.x": b"old", "topic.a": b"said"}
    for key, value in values.items():
        await topic_keys.publish(records, key, value)
    await records.erase()
    records.failing.append("topic.a")
    keeping = asyncio.ensure_future(topic_keys.keep_published(records, values))

    async def said() -> bytes:
        async for batch in records.watch("topic.a"):
            if batch:
                return batch[0].data
        raise AssertionError

    assert await within(said(), "what is said of the topic") == b"said"
    entries = await records.entries("topic")
    assert {entry.key: entry.value for entry in entries} == {"topic.x": b"new", "topic.a": b"said"}
    keeping.cancel()
    await asyncio.wait({keeping})
