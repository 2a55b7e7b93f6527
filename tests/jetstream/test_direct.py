"""Reading without a consumer, and what the server may say instead of a message."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from corral.errors import ApiError, NoResponder, PermissionDenied
from corral.jetstream import direct, streams
from corral.jetstream.connection import Connection
from corral.jetstream.publisher import Publisher
from corral.settings import Settings
from corral.subjects import Names
from tests.jetstream.test_publisher import publishing
from tests.servers import ServerProcess


async def test_a_message_is_read_by_its_sequence(connection: Connection, publisher: Publisher, names: Names) -> None:
    subject = names.event("r", "x")
    await publisher.store(subject, b"1")
    await publisher.store(subject, b"2", headers={"Other": "header"})
    stream = names.events_stream
    second = await direct.at(connection, stream, 2)
    assert second is not None
    assert (second.subject, second.sequence, second.data, second.operation) == (subject, 2, b"2", None)
    assert await direct.at(connection, stream, 3) is None
    assert second == await direct.last(connection, stream, subject)
    assert second == await direct.leader_last(connection, stream, subject)


async def test_empty_bodies_are_messages_too(connection: Connection, publisher: Publisher, names: Names) -> None:
    subject = names.event("r", "x")
    for _ in range(3):
        await publisher.store(subject, b"")
    assert [each.data for each in await direct.all_on(connection, names.events_stream, subject)] == [b""] * 3
    for read in (direct.last, direct.leader_last):
        stored = await read(connection, names.events_stream, subject)
        assert stored is not None
        assert (stored.sequence, stored.data) == (3, b"")


async def test_the_last_message_of_each_subject_up_to_a_sequence(
    connection: Connection, publisher: Publisher, names: Names
) -> None:
    kinds = ["a", "b", "a", "c", "a"]
    stored = [await publisher.store(names.event("r", kind), kind.encode()) for kind in kinds]
    other = await publisher.store(names.event("other", "a"), b"")

    async def found(*subjects: str, up_to: int) -> list[int] | None:
        each = await direct.last_of_each(connection, names.events_stream, subjects, up_to)
        return None if each is None else sorted(message.sequence for message in each)

    assert await found(names.run_events("r"), up_to=other) == [stored[1], stored[3], stored[4]]
    assert await found(names.run_events("r"), names.run_events("other"), up_to=stored[3]) == stored[1:4]
    assert await found(names.run_events("nobody"), up_to=other) == []


async def test_more_last_messages_than_the_server_gives_at_once(
    connection: Connection, publisher: Publisher, names: Names
) -> None:
    window = publisher.window()
    for number in range(1_025):
        await window.add(names.event("r", f"kind{number}"), b"")
    await window.settle()
    stream, all_events = names.events_stream, [names.all_events]
    assert await direct.last_of_each(connection, stream, all_events, 1_025) is None
    assert len(await direct.last_of_each(connection, stream, all_events, 1_024) or []) == 1_024


@pytest.mark.parametrize("read", [direct.last, direct.all_on])
async def test_a_stream_that_is_not_there_does_not_answer(
    connection: Connection, namespace: str, read: Callable[..., object]
) -> None:
    with pytest.raises(NoResponder):
        await read(connection, f"{namespace}_NONE", "x")  # type: ignore[misc]
    with pytest.raises(ApiError):
        await direct.leader_last(connection, f"{namespace}_NONE", "x")


async def test_no_permission_is_said_at_once(server_process: Callable[..., ServerProcess]) -> None:
    server = server_process(
        extra='authorization { users: [ { user: u, password: p, permissions: { publish: "x" } } ] }'
    )
    async with publishing(f"nats://u:p@127.0.0.1:{server.port}") as (connection, _):
        with pytest.raises(PermissionDenied, match=r"DIRECT\.GET\.Some'"):
            await direct.all_on(connection, "Some", "x", timeout=60)


async def test_reading_in_batches_outlives_an_outage(server_process: Callable[..., ServerProcess]) -> None:
    server = server_process()
    async with publishing(server.url) as (connection, publisher):
        names = Names("n")
        await streams.ensure(connection, names, Settings())
        for _ in range(3):
            await publisher.store(names.event("r", "x"), b"x")
        server.freeze()
        reading = asyncio.create_task(direct.all_on(connection, names.events_stream, names.all_events, timeout=60))
        await asyncio.sleep(0)
        server.kill()
        server.start()
        assert len(await reading) == 3


def test_times_are_read_to_the_nanosecond_that_a_float_holds() -> None:
    assert direct.parse_time("1970-01-01T00:00:01Z") == 1.0
    assert direct.parse_time("2026-11-24T10:00:00.123456789Z") == pytest.approx(1795514400.123456789, abs=1e-6)
