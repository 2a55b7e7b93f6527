"""Counts stay exact and no task is lost, whoever dies when."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from corral.events import Crashed
from tests.servers import ServerProcess
from tests.system.apps.fanout import BRANCH, DISPATCH, Many, Tree
from tests.system.pools import System
from tests.system.stage import Stage, within


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def items(n: int) -> list[str]:
    """What the truth must show of a fan-out."""
    return sorted(f"{'left' if i % 3 else 'right'} {i}" for i in range(n))


async def test_a_killed_workers_tasks_run_elsewhere_and_counts_stay_exact(system: System) -> None:
    system.set(ack_wait=2.0)
    await system.pool("fanout", workers=2)
    run = await (await system.client()).start(DISPATCH, Many(2000, stop_at=700, bad=50))
    kill((await system.stage.arrival("in the middle")).pid)
    (await system.stage.arrival("in the middle")).answer()
    audit = await system.audit(run)
    assert (audit.status.total, audit.status.success, audit.status.error) == (2000, 1950, 50)
    truth = system.truth()
    assert sorted(truth) == items(2000)
    assert truth["left 700"] == 2
    (crash,) = [stored.event for stored in audit.events if isinstance(stored.event, Crashed)]
    assert crash.reason == "signal SIGKILL"
    assert sum(truth.values()) - 2000 <= len(crash.tasks) + 40  # and what it had finished and not yet said


async def test_a_worker_is_killed_again_and_again(system: System) -> None:
    system.set(ack_wait=2.0)
    await system.pool("fanout", workers=2, slots=5)
    run = await (await system.client()).start(DISPATCH, Many(1500, hold=1400))
    await system.stage.arrival("dispatching")
    killed: set[int] = set()
    for _ in range(3):
        victim = next(beat.pid for beat in system.beats.values() if beat.pid not in killed)
        killed.add(victim)
        kill(victim)
        await system.until(lambda: len({beat.pid for beat in system.beats.values()} - killed) == 2, "another worker")
    system.stage.open("dispatching")
    status = (await system.audit(run)).status
    assert (status.total, status.success) == (1500, 1500)
    assert sorted(system.truth()) == items(1500)


async def test_a_dispatcher_killed_in_the_middle_of_its_fan_out_sends_only_the_rest(system: System) -> None:
    system.set(window=100, ack_wait=2.0)
    await system.pool("fanout", topics="dispatch")
    await system.pool("fanout", topics="left,right")
    run = await (await system.client()).start(DISPATCH, Many(3000, hold=1500))
    dispatcher = await system.stage.arrival("dispatching")
    await system.reached(run, lambda status: status.total == 1500, "what it has sent")
    kill(dispatcher.pid)
    (await system.stage.arrival("dispatching")).answer()
    status = (await system.audit(run)).status
    assert (status.root, status.total, status.success) == ("success", 3000, 3000)
    truth = system.truth()
    assert sorted(truth) == items(3000)
    assert set(truth.values()) == {1}


async def test_a_dispatcher_killed_while_it_sends_leaves_exact_counts(system: System) -> None:
    system.set(window=100, ack_wait=2.0)
    await system.pool("fanout", topics="dispatch")
    await system.pool("fanout", topics="left,right")
    run = await (await system.client()).start(DISPATCH, Many(20_000))
    await system.reached(run, lambda status: status.total > 1000, "a thousand that were sent")
    kill(next(beat.pid for beat in system.beats.values() if beat.topics == ["dispatch"]))
    status = (await system.audit(run)).status
    assert (status.root, status.total, status.success) == ("success", 20_000, 20_000)
    assert sorted(system.truth()) == items(20_000)


async def test_a_dispatcher_among_dispatchers_is_killed_in_the_middle(system: System) -> None:
    system.set(ack_wait=2.0)
    await system.pool("fanout", workers=2)
    run = await (await system.client()).start(BRANCH, Tree(width=4, depth=4, hold="12"))
    kill((await system.stage.arrival("in a branch")).pid)
    (await system.stage.arrival("in a branch")).answer()
    status = (await system.audit(run)).status
    assert (status.status, status.total) == ("success", 4 + 16 + 64 + 256)
    assert len([line for line in system.truth() if line.startswith("leaf")]) == 256


async def test_a_processor_that_ends_its_process_is_found_and_dies_alone(system: System) -> None:
    await system.pool("crashes", workers=1)
    client = await system.client()
    others = await client.start("crowd", 5)
    first = await system.stage.arrivals("working", 5)
    run = await client.start("culprit", 1)
    (await system.stage.arrival("culprit")).answer("die")
    for arrival in first:
        await arrival.gone()
    await system.stage.arrivals("working", 5)
    (await system.stage.arrival("culprit")).answer("die")
    # All six are suspects now, and each is executed in a process of its own.
    system.stage.open("working")
    (await system.stage.arrival("culprit")).answer("die")
    status = (await system.audit(run)).status
    assert (status.status, status.error) == ("failed", 1)
    (error,) = [error async for error in client.errors(run.id)]
    assert (error.type, error.attempt) == ("Killed", 1)
    assert "exited with code 3" in error.message
    assert (await system.audit(others)).status.success == 5
    assert [system.truth()[f"works {i}"] for i in range(5)] == [3] * 5
    assert system.truth()["culprit"] == 3


async def test_another_pool_takes_the_books_over(system: System) -> None:
    system.set(ack_wait=2.0, death=1.5)
    pools = [await system.pool("fanout") for _ in range(2)]
    client = await system.client()
    run = await client.start(DISPATCH, Many(2000, hold=1000))
    await system.stage.arrival("dispatching")
    await system.reached(run, lambda status: status.success > 100, "some ends")
    before = await system.bookkeeper()
    bookkeeper = next(pool for pool in pools if pool.id == before)
    bookkeeper.kill()
    system.stage.open("dispatching")
    status = (await system.audit(run)).status
    assert (status.total, status.success) == (2000, 2000)
    assert sorted(system.truth()) == items(2000)
    assert await system.bookkeeper() != before


async def test_a_killed_pool_takes_its_workers_with_it(system: System) -> None:
    pool = await system.pool("crashes", workers=2)
    workers = await system.stage.arrivals("alive", 2)
    pool.kill()
    for worker in workers:
        await worker.gone()


async def test_a_worker_with_a_blocked_loop_does_not_outlive_its_pool(system: System) -> None:
    pool = await system.pool("crashes")
    worker = await system.stage.arrival("alive")
    await (await system.client()).start("blocks", 1)
    await system.stage.arrival("blocking")
    pool.kill()
    await worker.gone()


async def test_a_blocked_loop_costs_its_worker_no_other_task(system: System) -> None:
    system.set(ack_wait=1.5)
    await system.pool("crashes")
    client = await system.client()
    others = await client.start("crowd", 5)
    working = await system.stage.arrivals("working", 5)
    run = await client.start("blocks", 1)
    blocking = await system.stage.arrival("blocking")
    await system.until(
        lambda: any(beat.blocked > 4 for beat in system.beats.values()), "a beat that says it is blocked"
    )
    (beat,) = system.beats.values()
    assert run.id in beat.blocked_by
    blocking.answer()
    assert (await system.audit(run)).status.success == 1
    for arrival in working:
        arrival.answer()
    assert (await system.audit(others)).status.success == 5
    assert [system.truth()[f"works {i}"] for i in range(5)] == [1] * 5


async def test_a_frozen_worker_that_comes_back_late_changes_no_count(system: System) -> None:
    system.set(ack_wait=1.0, death=1.0)
    await system.pool("crashes", topics="crowd")
    frozen = await system.pool("crashes", topics="works", slots=5)
    client = await system.client()
    run = await client.start("crowd", 5)
    late = await system.stage.arrivals("working", 5)
    pid = next(beat.pid for beat in system.beats.values() if beat.pool == frozen.id)
    os.kill(pid, signal.SIGSTOP)
    await system.pool("crashes", topics="works", slots=5)
    again = await system.stage.arrivals("working", 5)
    assert pid not in {arrival.pid for arrival in again}
    for arrival in again[:3]:
        arrival.answer()
    await system.reached(run, lambda status: status.success == 3, "three ends")
    for arrival in late:
        arrival.answer()
    os.kill(pid, signal.SIGCONT)
    for arrival in late:
        await arrival.gone()
    for arrival in again[3:]:
        arrival.answer()
    status = (await system.audit(run)).status
    assert (status.total, status.success) == (5, 5)


@pytest.fixture
def own_server(server_process: Callable[..., ServerProcess]) -> ServerProcess:
    return server_process()


@pytest.fixture
async def own_system(own_server: ServerProcess, namespace: str, tmp_path: Path, stage: Stage) -> AsyncIterator[System]:
    """A system on a server that the test may stop."""
    async with System(own_server.url, namespace, tmp_path, stage) as system:
        yield system


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a_restart_of_the_server_under_load_loses_nothing(
    own_system: System, own_server: ServerProcess, how: str
) -> None:
    system = own_system
    system.set(ack_wait=2.0, publish_timeout=3.0)
    await system.pool("fanout", workers=2)
    client = await system.client()
    run = await client.start(DISPATCH, Many(5000, bad=10))
    await system.reached(run, lambda status: status.success > 500, "some ends")
    await asyncio.to_thread(getattr(own_server, how))
    await asyncio.to_thread(own_server.start)
    status = (await system.audit(run)).status
    assert (status.root, status.total, status.success, status.error) == ("success", 5000, 4990, 10)
    assert sorted(system.truth()) == items(5000)
    after = await client.start(DISPATCH, Many(10))
    assert (await system.audit(after)).status.success == 10


async def test_an_outage_in_the_middle_of_an_interrupt_delays_it(own_system: System, own_server: ServerProcess) -> None:
    system = own_system
    system.set(ack_wait=2.0)
    await system.pool("crashes")
    client = await system.client()
    run = await client.start("crowd", 50)
    await system.stage.arrivals("working", 20)
    await system.reached(run, lambda status: status.root == "success", "the end of the root")
    ordered = asyncio.create_task(run.interrupt(wait=True))
    await system.until(
        lambda: any(run.id in beat.stopping for beat in system.beats.values()) or ordered.done(), "a word"
    )
    await asyncio.to_thread(own_server.restart)
    receipt = await within(ordered, "the receipt")
    assert receipt is not None
    assert receipt.removed + receipt.stopped == 50
    assert (await system.audit(run)).status.interrupted == 50


async def test_a_pool_that_is_told_to_stop_ends_although_the_server_is_gone(
    own_system: System, own_server: ServerProcess
) -> None:
    own_system.set(drain_timeout=1.0)
    pool = await own_system.pool("crashes")
    run = await (await own_system.client()).start("works", 1)
    await own_system.stage.arrival("working")
    own_server.stop()
    pool.drain()
    assert await pool.ended() == 0
    own_server.start()
    await own_system.pool("crashes")
    (await own_system.stage.arrival("working")).answer()
    assert (await own_system.audit(run)).status.success == 1
