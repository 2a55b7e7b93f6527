"""A processor that blocks the loop does not cost the other tasks of its worker anything but time."""

from __future__ import annotations

import asyncio
import time

from corral.credentials import Access
from corral.jetstream.connection import Connection
from corral.jetstream.publisher import Publisher
from corral.jetstream.puller import Delivery, Puller
from corral.jetstream.streams import ensure, ensure_consumer
from corral.jetstream.topology import destroy
from corral.lifeline import Lifeline
from corral.runs import Beat
from corral.settings import Settings
from corral.subjects import Names
from tests.system.pools import System
from tests.system.stage import within


async def test_nothing_is_executed_twice_while_the_loop_is_blocked_beyond_ack_wait(system: System) -> None:
    system.set(ack_wait=1.0, death=2.0)
    await system.pool("alone", slots=5)
    client = await system.client()
    others = [await client.start("bystander", n) for n in range(3)]
    bystanders = await system.stage.arrivals("bystander", 3)
    blocker = await client.start("blocks", 1)
    blocking = await system.stage.arrival("blocks")
    await system.until(
        lambda: any(beat.blocked > 2.5 * system.settings.ack_wait for beat in system.beats.values()), "a long blockage"
    )
    (beat,) = system.beats.values()
    assert beat.blocked_by == f"blocks {blocker.id} 0-0"
    blocking.answer()
    for bystander in bystanders:
        bystander.answer()
    for run in [*others, blocker]:
        assert (await system.audit(run)).status.status == "success"
    assert system.truth()["bystander"] == 3


async def test_a_worker_that_is_blocked_too_long_is_replaced_and_its_tasks_run_again(system: System) -> None:
    system.set(blocked_limit=1.5)
    await system.pool("alone", slots=5)
    client = await system.client()
    other = await client.start("bystander", 1)
    await system.stage.arrival("bystander")
    blocker = await client.start("blocks", 1)
    first = await system.stage.arrival("blocks")
    await first.gone()
    system.stage.open("bystander")
    system.stage.open("blocks")
    for run in (other, blocker):
        assert (await system.audit(run)).status.status == "success"
    assert system.truth()["blocks"] == 2


async def test_a_sign_of_life_does_not_shorten_a_back_off(nats_url: str, namespace: str) -> None:
    """The server would take it for a new beginning of ack_wait, in the place of the delay."""
    names, settings = Names(namespace), Settings(namespace=namespace, ack_wait=0.3)
    connection = await Connection.open([nats_url], name="test")
    await ensure(connection, names, settings)
    await ensure_consumer(connection, names, "a", settings)
    arrived: asyncio.Queue[Delivery] = asyncio.Queue()
    puller = Puller(
        connection,
        names.tasks_stream,
        names.consumer("a"),
        on_delivery=arrived.put_nowait,
        on_room=lambda: None,
    )
    held: list[Delivery] = []
    lifeline = Lifeline(
        Access.of([nats_url]),
        worker_id="w",
        settings=settings,
        describe=lambda: Beat(id="w", pool="p", host="h", pid=1, topics=["a"], slots=1, started_at=0.0, version=""),
        waiting=lambda: held,
        on_keys=lambda _: None,
        on_loaded=lambda _: None,
        doing=lambda _: "",
        stuck=lambda _, __: None,
    )
    await lifeline.start()
    await Publisher(connection).store(names.task("r", "a"), b"x")
    await puller.request(1)
    held.append(await within(arrived.get(), "the first delivery"))
    await held[0].nak(2.0)
    handed_back = time.monotonic()
    await puller.request(1)
    again = await within(arrived.get(), "the second delivery")
    assert again.delivered == 2
    assert time.monotonic() - handed_back > 1.9  # ack_wait is 0.3 s
    await lifeline.stop()
    await puller.stop()
    await destroy(connection, names)
    await connection.close()
