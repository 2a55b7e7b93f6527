"""Reading in order: no gap and no duplicate, through everything that happens to connections and servers."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from corral.errors import ApiError, CorralError, PermissionDenied
from corral.jetstream import streams, topology
from corral.jetstream.connection import Connection, Message
from corral.jetstream.ephemeral import Ephemeral
from corral.jetstream.publisher import Publisher
from corral.jetstream.reader import LAST_PER_SUBJECT, NEW, Behind, Reader, Since, Stored
from corral.settings import Settings
from corral.subjects import Names
from tests.jetstream.test_connection import break_for_good
from tests.jetstream.test_publisher import publishing
from tests.servers import ServerProcess

DEADLINE = 30.0


async def fill(publisher: Publisher, subject: str, first: int, last: int) -> None:
    """Store the numbers `first` to `last` - 1."""
    window = publisher.window()
    for number in range(first, last):
        await window.add(subject, b"%d" % number)
        if window.count == 5_000:
            await window.settle()
    await window.settle()


@contextlib.asynccontextmanager
async def reading(reader: Reader) -> AsyncIterator[Reader]:
    try:
        async with asyncio.timeout(DEADLINE):
            yield reader
    finally:
        await reader.close()


async def take(reader: Reader, count: int) -> list[Stored]:
    """At least `count` messages."""
    taken: list[Stored] = []
    while len(taken) < count:
        taken += await anext(reader)
    return taken


async def take_to(reader: Reader, last: bytes) -> list[Stored]:
    """All messages up to the one with these data."""
    taken = await take(reader, 1)
    while taken[-1].data != last:
        taken += await take(reader, 1)
    return taken


def numbers(messages: list[Stored]) -> list[int]:
    return [int(message.data) for message in messages]


# --- where reading starts


def consumer_of(reader: Reader) -> Ephemeral:
    """What it reads through just now."""
    assert isinstance(reader._source, Ephemeral)
    return reader._source


async def test_fifty_thousand_messages_in_order(connection: Connection, publisher: Publisher, names: Names) -> None:
    subject = names.event("r", "x")
    await fill(publisher, subject, 0, 50_000)
    async with reading(Reader(connection, names.events_stream)) as reader:
        messages = await reader.read_all()
        assert reader.caught_up.is_set()
        assert reader.position == 50_000
    assert numbers(messages) == list(range(50_000))
    assert [message.sequence for message in messages] == list(range(1, 50_001))
    assert {message.subject for message in messages} == {subject}
    assert abs(messages[-1].time - time.time()) < 60


async def test_reading_goes_on_with_what_is_stored_meanwhile(
    connection: Connection, publisher: Publisher, names: Names
) -> None:
    subject = names.event("r", "x")
    await fill(publisher, subject, 0, 10)
    async with reading(Reader(connection, names.events_stream, [names.all_events])) as reader:
        messages = await take(reader, 10)
        for number in range(10, 15):
            await publisher.store(subject, b"%d" % number)
            messages += await take(reader, 1)
    assert numbers(messages) == list(range(15))


async def test_reading_starts_at_a_sequence(connection: Connection, publisher: Publisher, names: Names) -> None:
    await fill(publisher, names.event("r", "x"), 0, 10)
    async with reading(Reader(connection, names.events_stream, start=8)) as reader:
        assert numbers(await reader.read_all()) == [7, 8, 9]


async def test_reading_starts_at_a_time(connection: Connection, publisher: Publisher, names: Names) -> None:
    subject = names.event("r", "x")
    for number in range(10):
        await publisher.store(subject, b"%d" % number)
    stored = await topology.subject_events(connection, names.events_stream, subject)
    start = Since((stored[5].time + stored[6].time) / 2)
    async with reading(Reader(connection, names.events_stream, start=start)) as reader:
        assert numbers(await reader.read_all()) == [6, 7, 8, 9]


async def test_reading_starts_behind_what_was_read_before(
    connection: Connection, publisher: Publisher, names: Names
) -> None:
    await fill(publisher, names.event("a", "x"), 0, 10)
    async with reading(Reader(connection, names.events_stream)) as reader:
        read = (await take(reader, 10))[6]
    start = Behind(read.sequence, read.time)
    async with reading(Reader(connection, names.events_stream, start=start)) as reader:
        assert numbers(await take(reader, 3)) == [7, 8, 9]
        assert (reader.generation, reader.sure.is_set()) == (0, True)
    async with reading(Reader(connection, names.events_stream, start=Behind(10, 0.0))) as reader:
        assert numbers(await take(reader, 10)) == list(range(10))
        assert reader.generation == 1
    async with reading(Reader(connection, names.events_stream, start=Behind(11, read.time))) as reader:
        assert numbers(await take(reader, 10)) == list(range(10))
        assert reader.generation == 1


async def test_reading_starts_with_what_is_new(connection: Connection, publisher: Publisher, names: Names) -> None:
    subject = names.event("r", "x")
    await fill(publisher, subject, 0, 5)
    async with reading(Reader(connection, names.events_stream, start=NEW)) as reader:
        assert await reader.read_all() == []
        await fill(publisher, subject, 5, 6)
        assert numbers(await take(reader, 1)) == [5]


async def test_filters_choose_subjects(connection: Connection, publisher: Publisher, names: Names) -> None:
    for number, kind in enumerate(["a", "b", "c", "a", "b", "c"]):
        await publisher.store(names.event("r", kind), b"%d" % number)
    chosen = [names.event("r", "a"), names.event("*", "c")]
    async with reading(Reader(connection, names.events_stream, chosen)) as reader:
        assert numbers(await reader.read_all()) == [0, 2, 3, 5]
        await publisher.store(names.event("r", "b"), b"6")
        await publisher.store(names.event("r", "c"), b"7")
        assert numbers(await take(reader, 1)) == [7]


async def test_the_last_of_each_subject_and_then_what_follows(
    connection: Connection, publisher: Publisher, names: Names
) -> None:
    for number in range(300):
        await publisher.store(names.event("r", f"k{number % 3}"), b"%d" % number)
    reader = Reader(connection, names.events_stream, [names.all_events], start=LAST_PER_SUBJECT)
    async with reading(reader):
        assert numbers(await take(reader, 3)) == [297, 298, 299]
        await fill(publisher, names.event("r", "k0"), 300, 303)
        assert numbers(await take(reader, 3)) == [300, 301, 302]


# --- what the reader says about itself


async def test_an_empty_stream_is_caught_up_at_once(connection: Connection, publisher: Publisher, names: Names) -> None:
    async with reading(Reader(connection, names.events_stream, [names.event("r", "x")])) as reader:
        assert await reader.read_all() == []
    await fill(publisher, names.event("other", "x"), 0, 3)
    async with reading(Reader(connection, names.events_stream, [names.event("r", "x")])) as reader:
        first = asyncio.create_task(take(reader, 1))
        await reader.caught_up.wait()
        await fill(publisher, names.event("r", "x"), 0, 1)
        assert numbers(await first) == [0]


async def test_caught_up_is_said_when_the_last_batch_has_been_dealt_with(
    connection: Connection, publisher: Publisher, names: Names
) -> None:
    await fill(publisher, names.event("r", "x"), 0, 5_000)
    async with reading(Reader(connection, names.events_stream)) as reader:
        seen: list[Stored] = []
        while len(seen) < 5_000:
            seen += await anext(reader)
            assert reader.pending == 5_000 - len(seen)
            assert not reader.caught_up.is_set()
        waiting = asyncio.create_task(take(reader, 1))
        await reader.caught_up.wait()
        waiting.cancel()
        await asyncio.wait({waiting})


async def test_closing_ends_an_iteration_and_removes_the_consumer(
    connection: Connection, publisher: Publisher, names: Names
) -> None:
    await fill(publisher, names.event("r", "x"), 0, 1)
    reader = Reader(connection, names.events_stream)
    await anext(reader)
    waiting = asyncio.create_task(anext(reader))
    await reader.caught_up.wait()
    await reader.close()
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(StopAsyncIteration):
            await waiting
    await connection.flush()
    info = await connection.api(f"STREAM.INFO.{names.events_stream}")
    assert info["state"]["consumer_count"] == 0


async def test_a_slow_reader_holds_a_bounded_number(connection: Connection, publisher: Publisher, names: Names) -> None:
    await fill(publisher, names.event("r", "x"), 0, 20_000)
    async with reading(Reader(connection, names.events_stream)) as reader:
        messages = await anext(reader)
        while len(messages) < 20_000:
            await connection.flush()  # what is on its way arrives
            batch = await anext(reader)
            assert len(batch) <= 4_000
            messages += batch
    assert numbers(messages) == list(range(20_000))


async def test_large_messages_come_too(connection: Connection, publisher: Publisher, names: Names) -> None:
    window = publisher.window()
    for number in range(50):
        await window.add(names.event("r", "x"), b"%07d" % number + b"x" * 1_000_000)
    await window.settle()
    async with reading(Reader(connection, names.events_stream)) as reader:
        messages = await reader.read_all()
    assert [int(message.data[:7]) for message in messages] == list(range(50))


# --- what must not make a gap


async def read_through(reader: Reader, disturb: Callable[[], None], count: int) -> list[Stored]:
    """Read `count` messages, and call `disturb` after about a third and two thirds of them."""
    messages: list[Stored] = []
    disturbed = 0
    while len(messages) < count:
        messages += await anext(reader)
        if disturbed < 2 and len(messages) > (disturbed + 1) * count // 3:
            disturbed += 1
            disturb()
    return messages


async def test_restarts_of_the_server_make_no_gap_and_no_duplicate(
    server_process: Callable[..., ServerProcess],
) -> None:
    server = server_process()
    async with publishing(server.url) as (connection, publisher):
        names = Names("n")
        await streams.ensure(connection, names, Settings())
        await fill(publisher, names.event("r", "x"), 0, 30_000)
        async with reading(Reader(connection, names.events_stream)) as reader:
            messages = await read_through(reader, server.restart, 30_000)
            assert numbers(messages) == list(range(30_000))
            server.restart()
            await fill(publisher, names.event("r", "x"), 30_000, 30_010)
            assert sorted(set(numbers(await take(reader, 10)))) == list(range(30_000, 30_010))
            assert reader.generation == 0


async def test_a_replaced_client_makes_no_gap(server_process: Callable[..., ServerProcess]) -> None:
    server = server_process()
    async with publishing(server.url) as (connection, publisher):
        names = Names("n")
        await streams.ensure(connection, names, Settings())
        await fill(publisher, names.event("r", "x"), 0, 10)
        async with reading(Reader(connection, names.events_stream)) as reader:
            messages = await take(reader, 10)
            await break_for_good(connection)
            await fill(publisher, names.event("r", "x"), 10, 20)
            assert numbers(messages + await take(reader, 10)) == list(range(20))


async def test_lost_messages_are_read_again(connection: Connection, publisher: Publisher, names: Names) -> None:
    await fill(publisher, names.event("r", "x"), 0, 10_000)
    async with reading(Reader(connection, names.events_stream)) as reader:
        lost = 0

        def lose_one_of_the_next() -> None:
            subscription, source = consumer_of(reader)._subscription, consumer_of(reader)
            assert subscription is not None

            def losing(message: Message) -> None:
                nonlocal lost
                if message.data.endswith(b"77"):
                    lost += 1
                else:
                    source._on_message(message)

            subscription.redirect(losing)

        messages = await read_through(reader, lose_one_of_the_next, 10_000)
    assert lost > 0
    assert numbers(messages) == list(range(10_000))


async def test_the_last_messages_of_a_burst_may_be_lost_too(
    connection: Connection, publisher: Publisher, names: Names
) -> None:
    await fill(publisher, names.event("r", "x"), 0, 10)
    async with reading(Reader(connection, names.events_stream, heartbeat=0.2)) as reader:
        messages = await take(reader, 10)
        source = consumer_of(reader)
        assert source is not None
        assert source._subscription is not None
        source._subscription.redirect(lambda message: source._on_message(message) if not message.reply else None)
        await fill(publisher, names.event("r", "x"), 10, 20)  # lost, as the next heartbeat tells
        messages += await take(reader, 10)
    assert numbers(messages) == list(range(20))


async def test_missed_heartbeats_make_a_new_consumer(
    connection: Connection, publisher: Publisher, names: Names
) -> None:
    await fill(publisher, names.event("r", "x"), 0, 10)
    async with reading(Reader(connection, names.events_stream, heartbeat=0.2)) as reader:
        messages = await take(reader, 10)
        subscription = consumer_of(reader)._subscription
        assert subscription is not None
        subscription.redirect(lambda _: None)
        await fill(publisher, names.event("r", "x"), 10, 20)
        messages += await take(reader, 10)
    assert numbers(messages) == list(range(20))


async def test_a_cluster_that_misses_a_node_is_asked_for_another_consumer(
    connection: Connection, publisher: Publisher, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence = await publisher.store(names.event("r", "x"), b"1")
    made: list[str] = []
    real = connection.api

    async def api(suffix: str, body: Any = None, *, timeout: float = 5.0) -> dict[str, Any]:
        if suffix.startswith("CONSUMER.CREATE"):
            made.append(suffix)
            if len(made) < 3:
                raise ApiError(10119, "consumer is offline")
        return await real(suffix, body, timeout=timeout)

    monkeypatch.setattr(connection, "api", api)
    reader = Reader(connection, names.events_stream)
    assert [stored.sequence for stored in await reader.read_all()] == [sequence]
    assert len(set(made)) == 3
    await reader.close()


async def test_heartbeats_keep_a_quiet_consumer(connection: Connection, publisher: Publisher, names: Names) -> None:
    async with reading(Reader(connection, names.events_stream, heartbeat=0.1)) as reader:
        first = asyncio.create_task(take(reader, 1))
        await reader.caught_up.wait()
        source = consumer_of(reader)
        assert source is not None
        heartbeats = 0
        four = asyncio.Event()

        def count(message: Message) -> None:
            nonlocal heartbeats
            heartbeats += 1
            source._on_message(message)
            if heartbeats == 4:
                four.set()

        assert source._subscription is not None
        source._subscription.redirect(count)
        await four.wait()
        await fill(publisher, names.event("r", "x"), 0, 1)
        await first
        assert reader._source is source


async def test_a_deleted_consumer_is_made_again(connection: Connection, publisher: Publisher, names: Names) -> None:
    await fill(publisher, names.event("r", "x"), 0, 10)
    async with reading(Reader(connection, names.events_stream)) as reader:
        messages = await take(reader, 10)
        waiting = asyncio.create_task(take(reader, 10))
        await reader.caught_up.wait()
        await connection.api(f"CONSUMER.DELETE.{names.events_stream}.{consumer_of(reader).name}")
        await fill(publisher, names.event("r", "x"), 10, 20)
        assert numbers(messages + await waiting) == list(range(20))


async def test_what_is_new_stays_new_after_an_outage(server_process: Callable[..., ServerProcess]) -> None:
    server = server_process()
    async with publishing(server.url) as (connection, publisher):
        names = Names("n")
        await streams.ensure(connection, names, Settings())
        await fill(publisher, names.event("r", "x"), 0, 10)
        async with reading(Reader(connection, names.events_stream, start=NEW)) as reader:
            first = asyncio.create_task(take(reader, 5))
            await reader.caught_up.wait()
            subscription = consumer_of(reader)._subscription
            assert subscription is not None
            subscription.redirect(lambda _: None)
            await fill(publisher, names.event("r", "x"), 10, 15)  # lost on the way
            server.restart()
            assert numbers(await first) == list(range(10, 15))


# --- a server that has lost something


async def test_a_stream_that_lost_its_tail_is_read_from_the_start(
    server_process: Callable[..., ServerProcess],
) -> None:
    server = server_process()
    async with publishing(server.url) as (connection, publisher):
        names = Names("n")
        subject = names.event("r", "x")
        await streams.ensure(connection, names, Settings())
        await fill(publisher, subject, 0, 10)
        server.stop()
        shutil.copytree(server.folder / "store", server.folder / "earlier")
        server.start()
        await fill(publisher, subject, 10, 20)
        async with reading(Reader(connection, names.events_stream, [names.all_events])) as reader:
            await take(reader, 20)
            server.stop()
            server.wipe()
            shutil.copytree(server.folder / "earlier", server.folder / "store")
            server.start()
            assert numbers(await take(reader, 10)) == list(range(10))
            assert reader.generation == 1
            await fill(publisher, subject, 100, 120)
            assert numbers(await take(reader, 20)) == list(range(100, 120))


async def test_a_stream_that_grew_again_over_its_lost_tail_is_read_from_the_start(
    server_process: Callable[..., ServerProcess],
) -> None:
    server = server_process()
    async with publishing(server.url) as (connection, publisher):
        names = Names("n")
        subject = names.event("r", "x")
        await streams.ensure(connection, names, Settings())
        await fill(publisher, subject, 0, 10)
        server.stop()
        shutil.copytree(server.folder / "store", server.folder / "earlier")
        server.start()
        await fill(publisher, subject, 10, 20)
        reader = Reader(connection, names.events_stream, [names.all_events])
        async with reading(reader):
            await take(reader, 20)
            server.stop()
            server.wipe()
            shutil.copytree(server.folder / "earlier", server.folder / "store")
            server.start()
            await fill(publisher, subject, 100, 130)  # nobody reads meanwhile
            messages = await take(reader, 40)
        assert numbers(messages) == [*range(10), *range(100, 130)]
        assert reader.generation == 1


# --- what is an error


async def test_a_missing_stream_is_an_error(connection: Connection, namespace: str) -> None:
    async with reading(Reader(connection, namespace)) as reader:
        with pytest.raises(ApiError) as caught:
            await anext(reader)
    assert caught.value.code == 10059


async def test_no_permission_is_said_at_once(server_process: Callable[..., ServerProcess]) -> None:
    server = server_process(
        extra='authorization { users: [ { user: u, password: p, permissions: { publish: "x" } } ] }'
    )
    async with publishing(f"nats://u:p@127.0.0.1:{server.port}") as (connection, _):
        reader = Reader(connection, "S", ["a.B"])
        with pytest.raises(PermissionDenied, match=r"CONSUMER\.CREATE\.S\..*\.a\.B"):
            await anext(reader)
        await reader.close()


async def test_no_permission_to_pull_is_said_at_once(server_process: Callable[..., ServerProcess]) -> None:
    allowed = '"$JS.API.CONSUMER.CREATE.>", "$JS.API.STREAM.CREATE.>"'
    users = f"[ {{ user: u, password: p, permissions: {{ publish: [ {allowed} ] }} }} ]"
    server = server_process(extra=f"authorization {{ users: {users} }}")
    async with publishing(f"nats://u:p@127.0.0.1:{server.port}") as (connection, _):
        await connection.api("STREAM.CREATE.Some", {"name": "Some", "subjects": ["some"]})
        reader = Reader(connection, "Some")
        with pytest.raises(PermissionDenied, match=r"CONSUMER\.MSG\.NEXT\.Some"):
            await anext(reader)
        await reader.close()


async def test_a_reader_may_be_closed_in_an_outage(server_process: Callable[..., ServerProcess]) -> None:
    server = server_process()
    async with publishing(server.url) as (connection, _):
        names = Names("n")
        await streams.ensure(connection, names, Settings())
        reader = Reader(connection, names.events_stream)
        waiting = asyncio.create_task(anext(reader))
        await reader.caught_up.wait()
        server.stop()
        await connection._link.lost
        await reader.close()
        server.start()
        with pytest.raises(StopAsyncIteration):
            await waiting


async def test_a_closed_connection_is_an_error(nats_url: str) -> None:
    connection = await Connection.open([nats_url], name="test")
    await connection.close()
    async with reading(Reader(connection, "S")) as reader:
        with pytest.raises(CorralError, match="closed"):
            await anext(reader)


@pytest.mark.parametrize("wild", ["*", ">"])
async def test_a_subject_with_a_wildcard_that_somebody_has_stored_does_not_keep_a_reader_waiting(
    connection: Connection, publisher: Publisher, names: Names, wild: str
) -> None:
    """The server counts it more than once among what waits, and never delivers so many."""
    for number in range(5):
        await publisher.store(names.key(f"run.r{number}"), b"%d" % number)
        await publisher.store(names.key(f"run.{wild}"), b"forged")
    watching = Reader(connection, names.bucket_stream, [names.key("run.*")], start=LAST_PER_SUBJECT, heartbeat=0.2)
    async with reading(watching) as reader:
        reading_on = asyncio.create_task(take_to(reader, b"late"))
        await reader.caught_up.wait()
        await publisher.store(names.key("run.late"), b"late")
        assert [each.data for each in await reading_on if each.data != b"forged"] == [*b"0 1 2 3 4 late".split()]
    once = Reader(connection, names.bucket_stream, [names.key("run.*")], start=LAST_PER_SUBJECT, heartbeat=0.2)
    async with reading(once) as reader:
        assert {each.data for each in await reader.read_all()} >= {*b"0 1 2 3 4 late".split()}
