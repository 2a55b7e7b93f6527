"""What a worker takes in: tasks for which it has a thread, from consumers that may go, with rights that may go too."""

from __future__ import annotations

import time

from corral.jetstream.streams import ensure
from corral.subjects import Names
from tests.system.apps.pressure import Item
from tests.system.pools import System
from tests.system.stage import within


async def test_the_time_of_a_thread_begins_when_there_is_one(system: System) -> None:
    system.set(threads=1)
    await system.pool("pressure")
    client = await system.client()
    slow = await client.start("slow.thread", Item(1))
    occupied = await system.stage.arrival("slow thread")
    quick = await client.start("quick.thread", Item(2))  # it may take a second
    end = time.monotonic() + 2.5
    await system.until(lambda: time.monotonic() > end, "more time than it may take")
    (worker,) = await client.workers()
    assert worker.running == 1
    occupied.answer()
    for run in (slow, quick):
        assert (await system.audit(run)).status.status == "success"
    assert system.truth()[f"{quick.id} 2"] == 1


async def test_a_task_that_waits_for_a_thread_is_interrupted_at_once(system: System) -> None:
    system.set(threads=1)
    await system.pool("pressure")
    client = await system.client()
    slow = await client.start("slow.thread", Item(1))
    occupied = await system.stage.arrival("slow thread")
    quick = await client.start("quick.thread", Item(2))
    receipt = await within(quick.interrupt(wait=True), "the receipt")
    assert receipt is not None
    assert (await system.audit(quick)).status.status == "interrupted"
    assert system.truth()[f"{quick.id} 2"] == 0
    occupied.answer()
    assert (await system.audit(slow)).status.status == "success"


async def test_a_consumer_that_is_deleted_is_made_again(system: System) -> None:
    pool = await system.pool("pressure", topics="item")
    client = await system.client()
    await system.audit(await client.start("item", Item(0)))
    names = Names(system.settings.namespace)
    await client.operations.connection.api(f"CONSUMER.DELETE.{names.tasks_stream}.{names.consumer('item')}")
    assert (await system.audit(await client.start("item", Item(1)))).status.status == "success"
    await system.until(lambda: "is made again" in pool.log.read_text(), "the pool's word")


async def test_work_goes_on_when_a_stream_that_was_deleted_is_there_again(system: System) -> None:
    pool = await system.pool("pressure", topics="item")
    client = await system.client()
    await system.audit(await client.start("item", Item(0)))
    names, connection = Names(system.settings.namespace), client.operations.connection
    await connection.api(f"STREAM.DELETE.{names.tasks_stream}")
    await system.until(lambda: "cannot be made" in pool.log.read_text(), "the pool's word")
    end = time.monotonic() + 2.0
    await system.until(lambda: time.monotonic() > end, "some tries")
    assert pool.log.read_text().count("cannot be made") in (1, 2)
    await ensure(connection, names, system.settings)
    assert (await system.audit(await client.start("item", Item(1)))).status.status == "success"
