"""Reading for those who may make no consumer: the same messages, asked for again and again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from corral.errors import PermissionDenied
from corral.jetstream.connection import Connection
from corral.jetstream.publisher import Publisher
from corral.jetstream.reader import LAST_PER_SUBJECT, NEW, Behind, Reader, Since, Stored
from tests.servers import ServerProcess
from tests.system.stage import within

USERS = """
authorization { users: [
    { user: all, password: p }
    { user: looks, password: p, permissions: {
        publish: [ "$JS.API.DIRECT.GET.S", "$JS.API.DIRECT.GET.S.>", "$JS.API.STREAM.INFO.S" ]
    } }
] }
"""
Servers = Callable[..., ServerProcess]


@asynccontextmanager
async def looking(server: ServerProcess) -> AsyncIterator[tuple[Connection, Publisher]]:
    """A connection that may only look, and a publisher of somebody else's."""
    owner = await Connection.open([f"nats://all:p@127.0.0.1:{server.port}"], name="owner")
    await owner.api(
        "STREAM.CREATE.S", {"name": "S", "subjects": ["s.>"], "allow_direct": True, "max_msgs_per_subject": 5_000}
    )
    connection = await Connection.open([f"nats://looks:p@127.0.0.1:{server.port}"], name="looks")
    publisher = Publisher(owner)
    yield connection, publisher
    await publisher.close()
    await connection.close()
    await owner.close()


async def taken(reader: Reader, count: int) -> list[Stored]:
    found: list[Stored] = []
    while len(found) < count:
        found += await within(anext(reader), "a message")
    return found


async def test_everything_is_read_and_then_what_comes(server_process: Servers) -> None:
    async with looking(server_process(extra=USERS)) as (connection, publisher):
        window = publisher.window()
        for number in range(2_500):
            await window.add(f"s.{number % 3}", b"%d" % number)
        await window.settle()
        reader = Reader(connection, "S", ["s.*"])
        found = await taken(reader, 2_500)
        assert [each.data for each in found] == [b"%d" % number for number in range(2_500)]
        assert reader.pending == 0
        for number in range(3):
            sequence = await publisher.store("s.later", b"%d" % number)
            (later,) = await taken(reader, 1)
            assert (later.subject, later.data, later.sequence) == ("s.later", b"%d" % number, sequence)
        assert reader.caught_up.is_set()
        await reader.close()


async def test_reading_may_begin_anywhere(server_process: Servers) -> None:
    async with looking(server_process(extra=USERS)) as (connection, publisher):
        for number in range(3):
            await publisher.store("s.a", b"%d" % number)
        stored = await Reader(connection, "S", ["s.a"]).read_all()
        for start, expected in (
            (2, [b"1", b"2"]),
            (Since(stored[2].time - 1e-4), [b"2"]),
            (Behind(1, stored[0].time), [b"1", b"2"]),
            (LAST_PER_SUBJECT, [b"0", b"1", b"2"]),  # a bucket keeps one of each
        ):
            reader = Reader(connection, "S", ["s.a"], start=start)
            read = [each.data for each in await reader.read_all()]
            assert read[-len(expected) :] == expected
            assert len(read) <= 3
            await reader.close()
        assert await Reader(connection, "S", ["s.none"]).read_all() == []
        new = Reader(connection, "S", start=NEW)
        assert await new.read_all() == []
        await publisher.store("s.b", b"new")
        assert [each.data for each in await taken(new, 1)] == [b"new"]
        await new.close()


async def test_an_outage_is_only_time_that_passes(server_process: Servers) -> None:
    server = server_process(extra=USERS)
    async with looking(server) as (connection, publisher):
        await publisher.store("s.a", b"before")
        reader = Reader(connection, "S")
        assert [each.data for each in await taken(reader, 1)] == [b"before"]
        back = asyncio.Event()
        publisher._connection.on_reconnect(back.set)
        server.restart()
        await within(back.wait(), "the connection")
        await publisher.store("s.a", b"after")
        assert [each.data for each in await taken(reader, 1)] == [b"after"]
        await reader.close()


async def test_who_may_not_even_ask_is_told_what_a_consumer_would_need(server_process: Servers) -> None:
    users = 'authorization { users: [ { user: u, password: p, permissions: { publish: "x" } } ] }'
    server = server_process(extra=users)
    connection = await Connection.open([f"nats://u:p@127.0.0.1:{server.port}"], name="test")
    with pytest.raises(PermissionDenied, match=r"CONSUMER\.CREATE\.S\."):
        await anext(Reader(connection, "S"))
    await connection.close()


async def test_several_filters_let_through_what_one_of_them_does(server_process: Servers) -> None:
    async with looking(server_process(extra=USERS)) as (connection, publisher):
        window = publisher.window()
        for number in range(4_500):  # what fits lies far apart, and the last thousand do not fit
            fits = number % 1_500 == 0
            await window.add("s.run.failed" if fits else "s.run.ended.x", b"%d" % number)
        await window.settle()
        await publisher.store("s.run.later", b"later")
        await publisher.store("s.run", b"short")
        reader = Reader(connection, "S", ["s.run.failed", "s.*.later", "s.run.failed.>"])
        assert [each.data for each in await reader.read_all()] == [b"0", b"1500", b"3000", b"later"]
        await publisher.store("s.run.ended.x", b"no")
        await publisher.store("s.run.failed.at.last", b"yes")
        assert [each.data for each in await taken(reader, 1)] == [b"yes"]
        await reader.close()
