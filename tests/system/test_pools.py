"""Pools that come and go, and tasks in processes of their own."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from tests.system.apps.fanout import DISPATCH, Many
from tests.system.apps.outcomes import Typed
from tests.system.pools import System
from tests.system.stage import within


@pytest.mark.parametrize("topic", ["works", "alone"])
async def test_a_drained_pool_hands_its_tasks_back_without_spending_an_attempt(system: System, topic: str) -> None:
    system.set(drain_timeout=0.2)
    first = await system.pool("crashes")
    client = await system.client()
    run = await client.start(topic, 0)
    cue = {"works": "working", "alone": "alone"}[topic]
    before = await system.stage.arrival(cue)
    first.drain()
    await before.gone()
    assert await first.ended() == 0
    assert not (await run.status()).ended
    await system.pool("crashes")
    again = await system.stage.arrival(cue)
    assert again.facts["attempt"] == 1
    again.answer()
    assert (await system.audit(run)).status.success == 1


async def test_a_draining_pool_takes_nothing_new_and_lets_tasks_finish(system: System) -> None:
    system.set(drain_timeout=600.0)
    first = await system.pool("crashes")
    client = await system.client()
    run = await client.start("crowd", 5)
    working = await system.stage.arrivals("working", 5)
    first.drain()
    await system.pool("crashes")
    later = await client.start("works", 99)
    (await system.stage.arrival("working")).answer()
    assert (await system.audit(later)).status.success == 1
    for arrival in working:
        arrival.answer()
    assert await first.ended() == 0
    assert (await system.audit(run)).status.success == 5
    assert [system.truth()[f"works {i}"] for i in range(5)] == [1] * 5


async def test_a_drained_dispatcher_goes_on_elsewhere(system: System) -> None:
    system.set(drain_timeout=0.2, window=50)
    first = await system.pool("stopping", topics="crowd,crowd.thread")
    await system.pool("stopping", topics="quick")
    client = await system.client()
    run = await client.start("crowd", {"n": 400, "topic": "quick", "hold": 220})
    await system.stage.arrival("holding")
    await system.reached(run, lambda status: status.total == 220, "what it has sent")
    first.drain()
    assert await first.ended() == 0
    await system.pool("stopping", topics="crowd,crowd.thread")
    (await system.stage.arrival("holding")).answer()
    status = (await system.audit(run)).status
    assert (status.root, status.total, status.success) == ("success", 400, 400)
    assert [system.truth()[f"quick {i}"] for i in range(400)] == [1] * 400


async def test_a_second_signal_stops_a_pool_at_once(system: System) -> None:
    system.set(ack_wait=1.5)
    pool = await system.pool("crashes")
    client = await system.client()
    run = await client.start("thread", 1)
    thread = await system.stage.arrival("thread")
    pool.drain()
    await system.until(lambda: _draining(pool.log.read_text()), "its word that it drains")
    pool.drain()
    await pool.ended()
    await thread.gone()
    await system.pool("crashes")
    (await system.stage.arrival("thread")).answer()
    assert (await system.audit(run)).status.success == 1
    assert system.truth()["thread, attempt 1"] == 2


def _draining(log: str) -> bool:
    return "draining" in log


async def test_a_dead_worker_is_replaced(system: System) -> None:
    await system.pool("crashes", workers=2)
    dead = next(iter(system.beats.values()))
    os.kill(dead.pid, signal.SIGKILL)
    await system.until(lambda: len({beat.pid for beat in system.beats.values()} - {dead.pid}) == 2, "another worker")
    client = await system.client()

    async def two() -> list[int]:
        while dead.pid in (pids := [worker.pid for worker in await client.workers()]):
            pass
        return pids

    assert len(await within(two(), "a list without the dead one")) == 2


async def test_work_starts_on_what_waited_before_the_first_pool(system: System) -> None:
    client = await system.client()
    runs = [await client.start("typed", Typed(n)) for n in range(20)]
    assert {status.status for status in await client.runs()} == {"queued"}
    await system.pool("outcomes")
    for run in runs:
        assert (await system.audit(run)).status.status == "success"


async def test_all_slots_fill_while_tasks_take_long(system: System) -> None:
    await system.pool("crashes", slots=30)
    run = await (await system.client()).start("crowd", 100)
    working = await system.stage.arrivals("working", 30)
    shown = await system.reached(run, lambda status: status.running == 30, "thirty that run")
    assert (shown.total, shown.pending) == (100, 70)
    for arrival in working:
        arrival.answer()
    system.stage.open("working")
    assert (await system.audit(run)).status.success == 100


async def test_an_isolated_task_runs_in_a_process_of_its_own_and_sends_from_there(system: System) -> None:
    await system.pool("crashes")
    run = await (await system.client()).start("alone", 20)
    arrival = await system.stage.arrival("alone")
    assert arrival.pid not in {beat.pid for beat in system.beats.values()}
    arrival.answer()
    system.stage.open("working")
    status = (await system.audit(run)).status
    assert (status.root, status.total, status.success) == ("success", 20, 20)


async def test_the_death_of_an_isolated_process_is_a_failed_attempt(system: System) -> None:
    await system.pool("crashes")
    client = await system.client()
    run = await client.start("alone", 0)
    for attempt in (1, 2):
        arrival = await system.stage.arrival("alone")
        assert arrival.facts["attempt"] == attempt
        os.kill(arrival.pid, signal.SIGKILL)
    assert (await system.audit(run)).status.error == 1
    (error,) = [error async for error in client.errors(run.id)]
    assert (error.type, error.attempt) == ("Killed", 2)
    assert "died of SIGKILL" in error.message


async def test_an_isolated_process_does_not_outlive_its_worker(system: System) -> None:
    await system.pool("crashes")
    await (await system.client()).start("alone.thread", 0)
    arrival = await system.stage.arrival("alone in a thread")
    (worker,) = system.beats.values()
    os.kill(worker.pid, signal.SIGKILL)
    await arrival.gone()


async def test_an_isolated_task_that_does_not_stop_is_killed_by_an_interrupt(system: System) -> None:
    system.set(kill_grace=0.3)
    await system.pool("crashes")
    run = await (await system.client()).start("alone.thread", 0)
    arrival = await system.stage.arrival("alone in a thread")
    receipt = await within(run.interrupt(wait=True), "the receipt")
    assert receipt is not None
    assert (receipt.removed, receipt.stopped, receipt.killed, receipt.finished_first) == (0, 0, 1, 0)
    await arrival.gone()
    assert (await system.audit(run)).status.interrupted == 1


async def test_two_pools_share_the_work(system: System) -> None:
    for _ in range(2):
        await system.pool("crashes", slots=5)
    run = await (await system.client()).start("crowd", 30)
    working = await system.stage.arrivals("working", 10)
    assert len({arrival.pid for arrival in working}) == 2
    system.stage.open("working")
    for arrival in working:
        arrival.answer()
    assert (await system.audit(run)).status.success == 30
    assert await asyncio.wait_for((await system.client()).workers(), 10)


async def test_a_pool_that_follows_one_that_was_drained_ends_runs_at_once(system: System) -> None:
    """It need not wait for workers that it has not heard: the queue says that nobody holds anything."""
    system.set(death=300.0)
    client = await system.client()
    first = await system.pool("fanout")
    await system.audit(await client.start(DISPATCH, Many(10)))
    first.drain()
    assert await first.ended() == 0
    await system.pool("fanout")
    assert (await system.audit(await client.start(DISPATCH, Many(10)))).status.success == 10
