"""Thousands of messages together: all stored at the end, whatever happens on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from corral.errors import ApiError, NoResponder, PermissionDenied, TooLarge
from corral.jetstream import streams, topology, window
from corral.jetstream.connection import Connection, Message
from corral.jetstream.publisher import Publisher
from corral.settings import Settings
from corral.subjects import Names
from tests.jetstream.test_connection import break_for_good
from tests.jetstream.test_publisher import API_ONLY, publishing
from tests.servers import ServerProcess


async def bodies(connection: Connection, names: Names, subject: str) -> list[bytes]:
    stored = await topology.subject_events(connection, names.tasks_stream, subject)
    return [message.data for message in stored]


async def test_everything_is_stored_in_order(connection: Connection, publisher: Publisher, names: Names) -> None:
    subject = names.task("r", "t")
    window = publisher.window()
    await window.settle()  # empty: nothing to wait for
    for number in range(5_000):
        await window.add(subject, b"%d" % number)
        if window.count == 2_000:
            await window.settle()
            assert window.count == 0
    await window.settle()
    assert await bodies(connection, names, subject) == [b"%d" % number for number in range(5_000)]
    assert not publisher._acks.waiting


async def test_windows_side_by_side_do_not_mix(connection: Connection, publisher: Publisher, names: Names) -> None:
    async def fill(topic: str) -> None:
        window = publisher.window()
        for number in range(300):
            await window.add(names.task("r", topic), b"%d" % number)
            await asyncio.sleep(0)
        await window.settle()

    await asyncio.gather(*(fill(f"t{number}") for number in range(5)))
    assert await topology.queue_counts(connection, names) == {("r", f"t{number}"): 300 for number in range(5)}


async def test_too_large_leaves_the_window_as_it_was(
    connection: Connection, publisher: Publisher, names: Names
) -> None:
    subject = names.task("r", "t")
    window = publisher.window()
    await window.add(subject, b"1")
    with pytest.raises(TooLarge):
        await window.add(subject, b"x" * (connection.max_payload + 1))
    await window.add(subject, b"2")
    assert window.count == 2
    await window.settle()
    assert await bodies(connection, names, subject) == [b"1", b"2"]


async def test_a_crash_of_the_server_delays_a_window_and_loses_nothing(
    server_process: Callable[..., ServerProcess],
) -> None:
    server = server_process()
    async with publishing(server.url) as (connection, publisher):
        names = Names("n")
        subject = names.task("r", "t")
        await streams.ensure(connection, names, Settings())
        window = publisher.window()
        for number in range(1_000):
            await window.add(subject, b"%d" % number)
        server.kill()
        settling = asyncio.create_task(window.settle())
        await connection._link.lost
        assert not settling.done()
        server.start()
        await settling
        assert set(await bodies(connection, names, subject)) == {b"%d" % number for number in range(1_000)}
        assert not publisher._acks.waiting


async def test_a_window_is_filled_across_an_outage(server_process: Callable[..., ServerProcess]) -> None:
    server = server_process()
    async with publishing(server.url) as (connection, publisher):
        names = Names("n")
        subject = names.task("r", "t")
        await streams.ensure(connection, names, Settings())
        window = publisher.window()
        await window.add(subject, b"before")
        server.freeze()  # takes nothing of what follows
        await window.add(subject, b"lost")
        server.kill()
        await connection._link.lost
        adding = asyncio.create_task(window.add(subject, b"after"))
        server.start()
        await adding
        await window.settle()
        assert set(await bodies(connection, names, subject)) == {b"before", b"lost", b"after"}


async def test_a_replaced_client_settles_a_window(server_process: Callable[..., ServerProcess]) -> None:
    server = server_process()
    async with publishing(server.url) as (connection, publisher):
        names = Names("n")
        subject = names.task("r", "t")
        await streams.ensure(connection, names, Settings())
        window = publisher.window()
        await window.add(subject, b"1")
        await break_for_good(connection)
        await window.add(subject, b"2")
        await window.settle()
        assert set(await bodies(connection, names, subject)) == {b"1", b"2"}


async def test_a_lost_acknowledgement_makes_a_window_send_again(connection: Connection, names: Names) -> None:
    publisher = Publisher(connection, timeout=0.2)
    subject = names.task("r", "t")
    await publisher.store(names.task("r", "other"), b"")  # subscribes
    acks = publisher._acks
    received: list[Message] = []

    def lose_the_first(message: Message) -> None:
        received.append(message)
        if len(received) > 1:
            acks._on_ack(message)

    assert acks._subscription is not None
    acks._subscription.redirect(lose_the_first)
    window = publisher.window()
    await window.add(subject, b"1")
    await window.settle()
    assert await bodies(connection, names, subject) == [b"1", b"1"]
    await publisher.close()


async def test_a_full_stream_makes_a_window_wait_and_say_so(
    connection: Connection, publisher: Publisher, namespace: str
) -> None:
    names = Names(namespace)
    await streams.ensure(connection, names, Settings(tasks_max_bytes=200_000))
    for _ in range(150):
        await publisher.store(names.task("old", "t"), b"x" * 1_000)
    reasons: list[str] = []
    full = asyncio.Event()

    def on_full(reason: str) -> None:
        reasons.append(reason)
        full.set()

    window = publisher.window(on_full)
    for number in range(100):
        await window.add(names.task("new", "t"), b"%d" % number + b"x" * 1_000)
    settling = asyncio.create_task(window.settle())
    async with asyncio.timeout(30):
        await full.wait()
        assert not settling.done()
        assert "maximum bytes" in reasons[0]
        await topology.purge(
            connection, names, "old", "t", await topology.last_sequence(connection, names.tasks_stream)
        )
        await settling
    assert len(set(await bodies(connection, names, names.task("new", "t")))) == 100
    await topology.destroy(connection, names)


async def test_no_permission_fails_a_window(server_process: Callable[..., ServerProcess]) -> None:
    server = server_process(extra=API_ONLY)
    async with publishing(f"nats://u:p@127.0.0.1:{server.port}") as (connection, publisher):
        names = Names("N")
        await streams.ensure(connection, names, Settings())
        window = publisher.window()
        await window.add(names.task("Run", "t"), b"x")
        with pytest.raises(PermissionDenied) as caught:
            await window.settle()
        assert caught.value.subject == "N.task.Run.t"
        assert not publisher._acks.waiting
        await window.settle()  # given up, and empty again


async def test_a_missing_stream_fails_a_window(
    publisher: Publisher, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window, "ABSENT_GRACE", 0.2)
    many = publisher.window()
    for _ in range(10):
        await many.add(f"{namespace}.nowhere", b"x")
    with pytest.raises(NoResponder):
        await many.settle()


async def test_a_refusal_for_good_fails_a_window(connection: Connection, publisher: Publisher, namespace: str) -> None:
    stream = {"name": namespace, "subjects": [namespace], "max_msg_size": 10}
    await connection.api(f"STREAM.CREATE.{namespace}", stream)
    window = publisher.window()
    await window.add(namespace, b"x")
    await window.add(namespace, b"x" * 100)
    with pytest.raises(ApiError) as caught:
        await window.settle()
    assert caught.value.code == 10054
    await connection.api(f"STREAM.DELETE.{namespace}")


async def test_a_cancelled_settle_leaves_nothing_behind(server_process: Callable[..., ServerProcess]) -> None:
    server = server_process()
    async with publishing(server.url) as (connection, publisher):
        names = Names("n")
        await streams.ensure(connection, names, Settings())
        window = publisher.window()
        await window.add(names.task("r", "t"), b"x")
        server.freeze()
        await window.add(names.task("r", "t"), b"x")
        settling = asyncio.create_task(window.settle())
        await asyncio.sleep(0)
        settling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await settling
        assert not publisher._acks.waiting
