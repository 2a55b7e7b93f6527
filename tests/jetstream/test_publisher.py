"""Storing one message: its sequence, or exactly why not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from corral.errors import ApiError, NoResponder, PermissionDenied, StorageFull, TooLarge, Unconfirmed, WrongLastSequence
from corral.jetstream import publisher as publisher_module
from corral.jetstream import streams, topology
from corral.jetstream.connection import Connection
from corral.jetstream.publisher import Publisher
from corral.settings import Settings
from corral.subjects import Names
from tests.servers import ServerProcess

DEADLINE = 30.0
API_ONLY = 'authorization { users: [ { user: u, password: p, permissions: { publish: "$JS.API.>" } } ] }'


@contextlib.asynccontextmanager
async def publishing(url: str, *, timeout: float = 10.0) -> AsyncIterator[tuple[Connection, Publisher]]:
    connection = await Connection.open([url], name="test")
    try:
        async with asyncio.timeout(DEADLINE):
            yield connection, Publisher(connection, timeout=timeout)
    finally:
        await connection.close()


async def fill(publisher: Publisher, subject: str, body: bytes) -> None:
    for _ in range(200):
        await publisher.store(subject, body)


async def test_storing_returns_the_sequence(publisher: Publisher, names: Names) -> None:
    subject = names.event("r", "ended")
    assert [await publisher.store(subject, b"x") for _ in range(3)] == [1, 2, 3]


async def test_many_at_once_get_each_its_own_sequence(publisher: Publisher, names: Names) -> None:
    subject = names.event("r", "ended")
    sequences = await asyncio.gather(*(publisher.store(subject, b"x") for _ in range(500)))
    assert sorted(sequences) == list(range(1, 501))


async def test_an_append_needs_the_expected_last_sequence(publisher: Publisher, names: Names) -> None:
    subject = names.event("r", "ended")
    await publisher.store(names.event("r", "other"), b"x")
    first = await publisher.store(subject, b"1", expect=0)
    second = await publisher.store(subject, b"2", expect=first)
    for wrong in (0, first, second + 1):
        with pytest.raises(WrongLastSequence, match="ended"):
            await publisher.store(subject, b"3", expect=wrong)
    await publisher.store(subject, b"3", expect=second)


async def test_of_many_appends_with_one_expectation_one_wins(publisher: Publisher, names: Names) -> None:
    subject = names.event("r", "ended")
    results = await asyncio.gather(
        *(publisher.store(subject, b"x", expect=0) for _ in range(20)), return_exceptions=True
    )
    assert sum(isinstance(result, int) for result in results) == 1
    assert sum(isinstance(result, WrongLastSequence) for result in results) == 19


async def test_the_same_message_id_stores_once(publisher: Publisher, names: Names) -> None:
    subject = names.event("r", "ended")
    assert await publisher.store(subject, b"x", message_id="m") == 1
    assert await publisher.store(subject, b"x", message_id="m") == 1
    assert await publisher.store(subject, b"x", message_id="n") == 2


async def test_a_refusal_carries_its_code(publisher: Publisher, names: Names) -> None:
    with pytest.raises(ApiError) as caught:  # events take no time to live
        await publisher.store(names.event("r", "ended"), b"x", ttl=5.0)
    assert caught.value.code == 10166


async def test_a_subject_of_no_stream_says_so(
    publisher: Publisher, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "ABSENT_GRACE", 0.1)
    with pytest.raises(NoResponder, match=namespace):
        await publisher.store(f"{namespace}.nowhere", b"x")


async def test_a_stream_that_appears_within_the_grace_takes_the_message(
    connection: Connection, publisher: Publisher, namespace: str
) -> None:
    names = Names(namespace)
    async with asyncio.TaskGroup() as group:
        storing = group.create_task(publisher.store(names.event("r", "ended"), b"x"))
        await asyncio.sleep(0)
        await streams.ensure(connection, names, Settings())
    assert await storing == 1
    await topology.destroy(connection, names)


async def test_too_large_is_refused_here(connection: Connection, publisher: Publisher, names: Names) -> None:
    with pytest.raises(TooLarge):
        await publisher.store(names.event("r", "ended"), b"x" * (connection.max_payload + 1))
    assert await publisher.store(names.event("r", "ended"), b"x") == 1


async def test_no_answer_is_unconfirmed(server_process: Callable[..., ServerProcess]) -> None:
    server = server_process()
    async with publishing(server.url, timeout=0.3) as (connection, publisher):
        names = Names("n")
        await streams.ensure(connection, names, Settings())
        await publisher.store(names.event("r", "ended"), b"x")
        server.freeze()
        with pytest.raises(Unconfirmed, match="ended"):
            await publisher.store(names.event("r", "ended"), b"x")
        server.kill()
        await connection._link.lost
        with pytest.raises(Unconfirmed):
            await publisher.store(names.event("r", "ended"), b"x")


async def test_storing_waits_out_an_outage_within_its_timeout(server_process: Callable[..., ServerProcess]) -> None:
    server = server_process()
    async with publishing(server.url) as (connection, publisher):
        names = Names("n")
        await streams.ensure(connection, names, Settings())
        assert await publisher.store(names.event("r", "ended"), b"x") == 1
        server.stop()
        await connection._link.lost
        storing = asyncio.create_task(publisher.store(names.event("r", "ended"), b"x"))
        server.start()
        assert await storing == 2


async def test_no_permission_is_said_at_once_and_names_the_subject(
    server_process: Callable[..., ServerProcess],
) -> None:
    server = server_process(extra=API_ONLY)
    url = f"nats://u:p@127.0.0.1:{server.port}"
    async with publishing(url, timeout=DEADLINE * 2) as (connection, publisher):
        names = Names("N")
        await streams.ensure(connection, names, Settings())
        with pytest.raises(PermissionDenied) as caught:
            await publisher.store(names.event("Run", "ended"), b"x")
        assert caught.value.subject == "N.event.Run.ended"


async def test_a_full_stream_says_so(connection: Connection, publisher: Publisher, namespace: str) -> None:
    names = Names(namespace)
    await streams.ensure(connection, names, Settings(events_max_bytes=100_000))
    with pytest.raises(StorageFull) as caught:
        await fill(publisher, names.event("r", "ended"), b"x" * 1_000)
    assert caught.value.stream == names.events_stream
    assert "maximum bytes" in caught.value.description
    await topology.destroy(connection, names)


async def test_a_full_server_says_so(server_process: Callable[..., ServerProcess]) -> None:
    server = server_process(max_file="40MB")
    async with publishing(server.url) as (connection, publisher):
        await connection.api("STREAM.CREATE.S", {"name": "S", "subjects": ["s"], "storage": "file"})
        with pytest.raises(StorageFull):
            await fill(publisher, "s", b"x" * 1_000_000)
