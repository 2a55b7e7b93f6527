"""What happens when the server has no room: who sends waits, who starts is refused, and nothing is lost or stuck."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from corral import Client, StorageFull
from corral.operations import Run
from tests.system.apps.pressure import Spread
from tests.system.commands import Corral
from tests.system.pools import PoolProcess, System
from tests.system.stage import within

KB = 1_000
PADDING = "x" * 400


def small(system: System, tasks: int = 100 * KB, **settings: Any) -> None:
    """A queue that a few hundred messages fill."""
    system.set(tasks_max_bytes=tasks, window=50, **settings)


async def waits(system: System, count: int = 1) -> None:
    """Until so many tasks wait for room."""
    await system.until(lambda: sum(beat.waiting for beat in system.beats.values()) >= count, f"{count} tasks that wait")


async def executed_once(system: System, run: Run, n: int) -> None:
    """The run ends well, with each of its items executed once."""
    status = (await system.audit(run)).status
    assert (status.status, status.total, status.success) == ("success", n, n)
    truth = system.truth()
    assert [truth[f"{run.id} {i}"] for i in range(n)] == [1] * n


async def starts_until_full(client: Client, message: Spread, topic: str = "spread") -> list[Run]:
    """As many runs as the queue takes."""
    runs: list[Run] = []
    while True:
        try:
            runs.append(await client.start(topic, message))
        except StorageFull:
            return runs


async def filled(system: System) -> tuple[PoolProcess, Run]:
    """A dispatcher that has filled the queue, and waits; nobody takes anything out."""
    pool = await system.pool("pressure", topics="spread")
    run = await (await system.client()).start("spread", Spread(1_000, padding=PADDING))
    await waits(system)
    return pool, run


async def test_who_sends_waits_and_who_starts_is_refused_until_there_is_room(system: System) -> None:
    small(system)
    pool, run = await filled(system)
    client = await system.client()
    with pytest.raises(StorageFull):
        await client.start("spread", Spread(1, padding=PADDING))
    (worker,) = await client.workers()
    assert worker.waiting == 1
    await system.until(lambda: "wait for room" in pool.log.read_text(), "the pool's word that it waits")
    await system.pool("pressure", topics="item")
    await executed_once(system, run, 1_000)
    await executed_once(system, await client.start("spread", Spread(3)), 3)


async def test_the_commands_say_that_the_queue_is_full_and_what_helps(system: System) -> None:
    small(system)
    _, run = await filled(system)
    corral = Corral(system.folder, {"NATS_URL": system.url, "CORRAL_NAMESPACE": system.settings.namespace})
    done = corral("start", "spread", '{"n": 1}')
    assert (done.code, done.out) == (4, "")
    assert "full" in done.err
    assert "corral interrupt" in done.err
    assert "CORRAL_TASKS_MAX_BYTES" in done.err
    assert "1 tasks that send wait for room" in corral("workers").err
    assert corral("workers", "--json").json[0]["waiting"] == 1
    assert corral("interrupt", run.id, "--wait").code == 0


async def test_one_slot_is_enough_for_a_dispatcher_and_what_it_sends(system: System) -> None:
    small(system)
    await system.pool("pressure", slots=1)
    run = await (await system.client()).start("spread", Spread(1_000, padding=PADDING))
    await executed_once(system, run, 1_000)


@pytest.mark.parametrize("kind", ["", ".thread", ".alone"])
async def test_dispatchers_in_all_slots_do_not_keep_out_what_makes_room(system: System, kind: str) -> None:
    small(system, threads=2)
    client = await system.client()
    message = Spread(300, topic=f"item{kind}", padding=PADDING)
    runs = [await client.start(f"spread{kind}", message) for _ in range(8)]
    await system.pool("pressure", slots=2)
    for run in runs:
        await executed_once(system, run, 300)


async def test_a_waiting_dispatcher_is_interrupted_at_once(system: System) -> None:
    small(system)
    client = await system.client()
    # These will have nothing in the queue that their interrupt could take away, and so no room.
    topics = ("spread.thread", "spread.alone", "spread")
    runs = [await client.start(topic, Spread(100, padding=PADDING, hold=0)) for topic in topics]
    other = await client.start("spread", Spread(1_000, padding=PADDING))
    await system.pool("pressure", topics="spread")
    await waits(system)
    system.stage.open("spreading")
    await system.pool("pressure", topics="spread.thread,spread.alone")
    await waits(system, 4)
    for run in runs:
        receipt = await within(run.interrupt(wait=True), "the receipt")
        assert receipt is not None
        status = (await system.audit(run)).status
        assert (status.status, status.success) == ("interrupted", 0)
        told = receipt.removed + receipt.stopped + receipt.finished_first
        assert told == status.total + (status.root == "success")
    await system.pool("pressure", topics="item")
    await executed_once(system, other, 1_000)


async def test_a_dispatcher_that_waits_when_its_worker_leaves_goes_on_elsewhere(system: System) -> None:
    small(system)
    pool, run = await filled(system)
    pool.drain()
    assert await pool.ended() == 0
    await system.pool("pressure")
    status = (await system.audit(run)).status
    assert (status.status, status.total, status.success) == ("success", 1_000, 1_000)


async def test_runs_that_fill_the_queue_all_end(system: System) -> None:
    small(system)
    client = await system.client()
    runs = await starts_until_full(client, Spread(20, padding=PADDING))
    await system.pool("pressure", slots=3)
    for run in runs:
        await executed_once(system, run, 20)


async def test_an_interrupted_run_that_waited_comes_back_by_a_retry(system: System) -> None:
    small(system)
    _, run = await filled(system)
    await within(run.interrupt(wait=True), "the receipt")
    await system.pool("pressure", topics="item")
    await run.retry()
    await executed_once(system, run, 1_000)


async def test_a_producer_that_is_faster_than_the_workers_is_held_back_and_all_runs_end(system: System) -> None:
    small(system, tasks=30 * KB)
    await system.pool("pressure", slots=4)
    client = await system.client()
    runs: list[Run] = []
    refused = 0

    async def produce() -> None:
        nonlocal refused
        while len(runs) < 200:
            try:
                runs.append(await client.start("spread", Spread(10, padding=PADDING)))
            except StorageFull:
                refused += 1
                await system.next_beat()

    await within(asyncio.gather(*[produce() for _ in range(20)]), "the last start", 120.0)
    assert refused
    for run in runs:
        await executed_once(system, run, 10)


async def test_what_would_not_fit_into_memory_passes_through_a_small_queue(system: System) -> None:
    small(system, tasks=1_000 * KB)
    await system.pool("pressure")
    most = {beat.id: beat.rss for beat in system.beats.values()}
    run = await (await system.client()).start("spread", Spread(4_000, padding="x" * 25_000))
    ended = asyncio.ensure_future(run.wait())
    while not ended.done():
        await system.next_beat()
        for beat in system.beats.values():
            most[beat.id] = max(most[beat.id], beat.rss)
    (beat,) = system.beats.values()
    print(f"{4_000 * 25_000:,} bytes in all, {most[beat.id]:,} of memory at most")  # noqa: T201  # to be looked at
    assert most[beat.id] < 90_000_000  # a worker that does nothing has about 40
    await executed_once(system, run, 4_000)
