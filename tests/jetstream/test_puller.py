"""Pulling: what was asked for and no more, and asked for again whenever it cannot come."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

import pytest

from corral.errors import CorralError, PermissionDenied
from corral.jetstream import streams, topology
from corral.jetstream.connection import Connection
from corral.jetstream.publisher import Publisher
from corral.jetstream.puller import Delivery, Puller
from corral.settings import Settings
from corral.subjects import Names
from tests.jetstream.test_connection import break_for_good
from tests.jetstream.test_publisher import publishing
from tests.servers import ServerProcess

DEADLINE = 30.0
TOPIC = "a.b"


class Desk:
    """A puller and what has come of it."""

    def __init__(self, connection: Connection, names: Names, *, heartbeat: float = 5.0, topic: str = TOPIC) -> None:
        self.deliveries: list[Delivery] = []
        self.rooms = 0
        self.missing = 0
        self.errors: list[CorralError] = []
        self._changed = asyncio.Event()
        self.puller = Puller(
            connection,
            names.tasks_stream,
            names.consumer(topic),
            on_delivery=self._on_delivery,
            on_room=self._on_room,
            on_missing=self._on_missing,
            on_error=self._on_error,
            heartbeat=heartbeat,
        )

    def _on_delivery(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        self._changed.set()

    def _on_room(self) -> None:
        self.rooms += 1
        self._changed.set()

    def _on_missing(self) -> None:
        self.missing += 1
        self._changed.set()

    def _on_error(self, error: CorralError) -> None:
        self.errors.append(error)
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def take(self, count: int) -> list[Delivery]:
        """Wait for `count` deliveries and take them."""
        await self.until(lambda: len(self.deliveries) >= count)
        taken, self.deliveries = self.deliveries[:count], self.deliveries[count:]
        return taken


@pytest.fixture
async def desk(connection: Connection, names: Names) -> AsyncIterator[Desk]:
    await streams.ensure_consumer(connection, names, TOPIC, Settings())
    desk = Desk(connection, names)
    yield desk
    await desk.puller.stop()


@contextlib.asynccontextmanager
async def working(
    server: ServerProcess, settings: Settings
) -> AsyncIterator[tuple[Connection, Publisher, Names, Desk]]:
    """A desk on a server of the test's own."""
    async with publishing(server.url) as (connection, publisher):
        names = Names("n")
        await streams.ensure(connection, names, settings)
        await streams.ensure_consumer(connection, names, TOPIC, settings)
        desk = Desk(connection, names)
        yield connection, publisher, names, desk
        await desk.puller.stop()


async def fill(publisher: Publisher, names: Names, count: int) -> None:
    window = publisher.window()
    for number in range(count):
        await window.add(names.task("r", TOPIC), b"%d" % number)
    await window.settle()


async def becomes(connection: Connection, names: Names, pending: int, unacknowledged: int) -> None:
    """Wait until so many messages are not yet delivered, and so many delivered and not acknowledged."""
    async with asyncio.timeout(DEADLINE):
        while (await topology.consumers(connection, names))[TOPIC][:2] != (pending, unacknowledged):
            await connection.flush()


# --- what is asked for


async def test_exactly_what_was_asked_for_is_delivered(
    connection: Connection, publisher: Publisher, names: Names, desk: Desk
) -> None:
    await fill(publisher, names, 10)
    await desk.puller.request(3)
    assert [delivery.data for delivery in await desk.take(3)] == [b"0", b"1", b"2"]
    assert desk.puller.outstanding == 0
    await becomes(connection, names, 7, 3)
    await desk.puller.request(0)
    assert desk.deliveries == []


async def test_a_delivery_knows_what_it_is(publisher: Publisher, names: Names, desk: Desk) -> None:
    before = time.time_ns()
    await fill(publisher, names, 3)
    await desk.puller.request(2)
    first, second = await desk.take(2)
    assert first.subject == names.task("r", TOPIC)
    assert (first.delivered, first.sequence, first.backlog) == (1, 1, 2)
    assert (second.delivered, second.sequence, second.backlog) == (1, 2, 1)
    assert before - 60e9 < first.timestamp < time.time_ns() + 60e9
    assert desk.puller.backlog == 1


def test_the_longer_form_of_an_ack_subject_is_read_too(connection: Connection) -> None:
    delivery = Delivery(
        connection, "s", b"", "$JS.ACK.domain.account.stream.consumer.3.17.5.1795509372811241400.42.random"
    )
    assert (delivery.delivered, delivery.sequence, delivery.backlog) == (3, 17, 42)
    assert delivery.timestamp == 1795509372811241400


async def test_acknowledged_messages_leave_the_queue(
    connection: Connection, publisher: Publisher, names: Names, desk: Desk
) -> None:
    await fill(publisher, names, 5_000)
    await desk.puller.request(5_000)
    for delivery in await desk.take(5_000):
        await delivery.ack()
    await becomes(connection, names, 0, 0)
    assert await topology.queue_counts(connection, names) == {}


async def test_a_message_handed_back_comes_again(publisher: Publisher, names: Names, desk: Desk) -> None:
    await fill(publisher, names, 1)
    await desk.puller.request(1)
    (delivery,) = await desk.take(1)
    await delivery.nak()
    await desk.puller.request(1)
    (again,) = await desk.take(1)
    assert (again.delivered, again.sequence) == (2, 1)
    started = time.monotonic()
    await again.nak(delay=0.3)
    await desk.puller.request(1)
    (late,) = await desk.take(1)
    assert late.delivered == 3
    assert time.monotonic() - started >= 0.29


async def test_progress_holds_off_the_redelivery(connection: Connection, publisher: Publisher, names: Names) -> None:
    await streams.ensure_consumer(connection, names, TOPIC, Settings(ack_wait=0.5))
    desk = Desk(connection, names)
    await fill(publisher, names, 2)
    await desk.puller.request(3)
    held, dropped = await desk.take(2)

    async def hold() -> None:
        while True:
            await held.progress()
            await asyncio.sleep(0.1)

    holding = asyncio.create_task(hold())
    (again,) = await desk.take(1)
    holding.cancel()
    assert again.sequence == dropped.sequence
    await desk.puller.stop()


async def test_tasks_that_are_stored_later_come_too(publisher: Publisher, names: Names, desk: Desk) -> None:
    await desk.puller.request(5)
    assert desk.puller.outstanding == 5
    await fill(publisher, names, 2)
    await desk.take(2)
    assert desk.puller.outstanding == 3


# --- what will not come


async def test_an_expired_pull_makes_room(publisher: Publisher, names: Names, desk: Desk) -> None:
    await fill(publisher, names, 2)
    await desk.puller.request(5, expires=0.1)
    await desk.take(2)
    await desk.until(lambda: desk.rooms > 0)
    assert desk.puller.outstanding == 0


async def test_pulls_expire_each_by_itself(desk: Desk) -> None:
    await desk.puller.request(5, expires=0.1)
    await desk.puller.request(7)
    await desk.until(lambda: desk.rooms > 0)
    assert desk.puller.outstanding == 7


async def test_missed_heartbeats_make_room(connection: Connection, publisher: Publisher, names: Names) -> None:
    await streams.ensure_consumer(connection, names, TOPIC, Settings())
    desk = Desk(connection, names, heartbeat=0.1)
    await desk.puller.request(3)
    assert desk.puller._subscription is not None
    desk.puller._subscription.redirect(lambda _: None)
    await desk.until(lambda: desk.rooms > 0)
    assert desk.puller.outstanding == 0
    await desk.puller.request(3)
    await fill(publisher, names, 3)
    await desk.take(3)
    await desk.puller.stop()


async def test_heartbeats_keep_a_quiet_pull(connection: Connection, names: Names) -> None:
    await streams.ensure_consumer(connection, names, TOPIC, Settings())
    desk = Desk(connection, names, heartbeat=0.1)
    await desk.puller.request(3)
    heartbeats = 0
    eight = asyncio.Event()
    look = desk.puller._look

    def counted() -> None:
        nonlocal heartbeats
        heartbeats += 1
        if heartbeats == 8:
            eight.set()
        look()

    desk.puller._look = counted  # type: ignore[method-assign]
    async with asyncio.timeout(DEADLINE):
        await eight.wait()
    assert (desk.puller.outstanding, desk.rooms) == (3, 0)
    await desk.puller.stop()


async def test_what_arrives_after_it_was_given_up_is_not_lost(publisher: Publisher, names: Names, desk: Desk) -> None:
    await desk.puller.request(3)
    desk.puller._give_up("for the test")
    await fill(publisher, names, 2)
    await desk.take(2)
    assert desk.puller.outstanding == 0
    await desk.puller.request(1)
    assert desk.puller.outstanding == 1


async def test_a_missing_consumer_is_reported_and_pulling_goes_on_when_it_is_there(
    connection: Connection, publisher: Publisher, names: Names
) -> None:
    desk = Desk(connection, names)
    await desk.puller.request(3)
    await desk.until(lambda: desk.missing == 1)
    assert desk.puller.outstanding == 0
    await streams.ensure_consumer(connection, names, TOPIC, Settings())
    await desk.puller.request(3)
    await fill(publisher, names, 1)
    await desk.take(1)
    await connection.api(f"CONSUMER.DELETE.{names.tasks_stream}.{names.consumer(TOPIC)}")
    await desk.until(lambda: desk.missing == 2)
    assert desk.puller.outstanding == 0
    await desk.puller.stop()


async def test_a_refused_pull_makes_room_later(connection: Connection, publisher: Publisher, names: Names) -> None:
    config = {"durable_name": names.consumer(TOPIC), "ack_policy": "explicit", "max_batch": 5}
    body = {"stream_name": names.tasks_stream, "config": config}
    await connection.api(f"CONSUMER.CREATE.{names.tasks_stream}.{names.consumer(TOPIC)}", body)
    desk = Desk(connection, names)
    await desk.puller.request(6)
    await desk.until(lambda: desk.rooms > 0)
    assert desk.puller.outstanding == 0
    await desk.puller.request(5)
    await fill(publisher, names, 5)
    await desk.take(5)
    await desk.puller.stop()


async def test_thousands_of_small_pulls_may_wait(publisher: Publisher, names: Names, desk: Desk) -> None:
    for _ in range(10_000):
        await desk.puller.request(1)
    await fill(publisher, names, 10_000)
    await desk.take(10_000)
    assert desk.puller.outstanding == 0


async def test_no_permission_is_reported(server_process: Callable[..., ServerProcess]) -> None:
    server = server_process(
        extra='authorization { users: [ { user: u, password: p, permissions: { publish: "x" } } ] }'
    )
    async with publishing(f"nats://u:p@127.0.0.1:{server.port}") as (connection, _):
        desk = Desk(connection, Names("N"))
        await desk.puller.request(3)
        await desk.until(lambda: len(desk.errors) == 1)
        error = desk.errors[0]
        assert isinstance(error, PermissionDenied)
        assert error.subject == "$JS.API.CONSUMER.MSG.NEXT.N_TASKS.a+b"
        assert desk.puller.outstanding == 0
        await desk.puller.stop()


# --- outages


async def test_a_crash_of_the_server_makes_room_and_loses_no_task(
    server_process: Callable[..., ServerProcess],
) -> None:
    server = server_process()
    async with working(server, Settings(ack_wait=1.0)) as (connection, publisher, names, desk):
        await fill(publisher, names, 10)
        await desk.puller.request(4)
        for delivery in await desk.take(2):
            await delivery.ack()
        await connection.flush()
        await desk.puller.request(100)
        server.kill()
        server.start()
        await desk.until(lambda: desk.rooms > 0)
        assert desk.puller.outstanding == 0
        await desk.puller.request(100)
        seen: set[int] = set()
        # What was in flight at the crash may come once more, also after it was acknowledged.
        while await topology.queue_counts(connection, names) or not seen >= set(range(3, 11)):
            for delivery in await desk.take(len(desk.deliveries)):
                seen.add(delivery.sequence)
                await delivery.ack()


async def test_a_request_during_an_outage_waits_and_does_not_count_twice(
    server_process: Callable[..., ServerProcess],
) -> None:
    server = server_process()
    async with working(server, Settings()) as (connection, publisher, names, desk):
        await desk.puller.request(1)
        server.stop()
        await connection._link.lost
        requesting = asyncio.create_task(desk.puller.request(5))
        await asyncio.sleep(0)
        server.start()
        await requesting
        await desk.until(lambda: desk.rooms > 0)
        assert desk.puller.outstanding == 0
        await desk.puller.request(2)
        await fill(publisher, names, 10)
        await desk.take(2)
        await becomes(connection, names, 8, 2)


async def test_an_ack_during_an_outage_is_sent_when_it_is_over(
    server_process: Callable[..., ServerProcess],
) -> None:
    server = server_process()
    async with working(server, Settings()) as (connection, publisher, names, desk):
        await fill(publisher, names, 1)
        await desk.puller.request(1)
        (delivery,) = await desk.take(1)
        server.stop()
        await connection._link.lost
        acking = asyncio.create_task(delivery.ack())
        server.start()
        await acking
        await becomes(connection, names, 0, 0)


async def test_a_replaced_client_makes_room(server_process: Callable[..., ServerProcess]) -> None:
    server = server_process()
    async with working(server, Settings()) as (connection, publisher, names, desk):
        await desk.puller.request(3)
        await break_for_good(connection)
        await desk.until(lambda: desk.rooms > 0)
        await desk.puller.request(3)
        await fill(publisher, names, 3)
        await desk.take(3)


# --- the end


async def test_what_was_sent_before_stop_is_delivered(
    connection: Connection, publisher: Publisher, names: Names, desk: Desk
) -> None:
    await fill(publisher, names, 2_000)
    await desk.puller.request(2_000)
    await desk.puller.stop()
    delivered = len(desk.deliveries)
    await becomes(connection, names, 2_000 - delivered, delivered)
    await desk.puller.request(10)
    assert desk.puller.outstanding == 0
    for delivery in desk.deliveries:
        await delivery.nak()
    assert len(desk.deliveries) == delivered
