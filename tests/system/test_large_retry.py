"""A retry of more than fits into one message, and what becomes of it when who retries dies on the way."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from corral import sending
from corral.events import Ended, Ends, Failed
from corral.jetstream.topology import queue_counts
from corral.operations import Run
from tests.system.left import Killed, Mortal, finish, parts_of
from tests.system.past import Past, failed_run, interrupted_run
from tests.system.pools import System


def _end_of(batch: int, ordinal: int) -> Ended:
    return Ended("v", 1, [Ends("leaf", batch, 0, "error", [(ordinal, ordinal + 1)])])


@pytest.mark.usefixtures("small_parts")
async def test_scattered_errors_come_back_in_several_parts(system: System) -> None:
    client = await system.client()
    run = await failed_run(client, "scattered", 30_000)
    assert await run.retry() == 15_000
    parts = await parts_of(client, run)
    assert len(parts) > 3
    assert {(part.round, part.parts) for part in parts} == {(1, len(parts))}
    assert [error async for error in client.errors(run.id)] == []
    assert await queue_counts(client.connection, client.operations.names, run.id) == {("scattered", "leaf"): 15_000}
    await system.pool("again", workers=2, slots=500)
    after = (await system.audit(run)).status
    assert (after.status, after.success) == ("success", 30_000)


async def test_scattered_interrupted_tasks_come_back_by_a_dispatcher_that_asks_page_by_page(system: System) -> None:
    client = await system.client()
    run = await interrupted_run(client, "removed", 40_000)
    assert await run.retry() == 20_001
    assert len(await parts_of(client, run)) == 1
    await system.pool("again", workers=2, slots=500)
    after = (await system.audit(run)).status
    assert (after.status, after.success) == ("success", 40_000)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.usefixtures("small_parts")
async def test_a_retry_whose_producer_dies_at_any_step_is_finished(system: System, after: bool) -> None:
    system.set(publish_timeout=1.0)
    client = await system.client()
    killed: list[Run] = []
    while True:
        run = await failed_run(client, f"killed-{len(killed)}", 40)
        try:
            with Mortal(client, len(killed) + 1, after=after):
                await run.retry()
        except Killed:
            killed.append(run)
        else:
            break
    assert len(killed) > 8
    if not after:
        assert (await killed[0].status()).status == "failed"  # nothing had been done yet
        assert await killed[0].retry() == 20
    await system.pool("again")
    for each in [run, *killed]:
        status = (await system.audit(each)).status
        assert (each.id, status.status, status.success) == (each.id, "success", 40)


@pytest.mark.usefixtures("small_parts")
async def test_who_finishes_a_retry_goes_on_from_the_parts_and_messages_that_are_stored(system: System) -> None:
    client = await system.client()
    first = await failed_run(client, "parts", 400)
    with pytest.raises(Killed), Mortal(client, 4, after=True):  # two records, two parts
        await first.retry()
    assert len(await parts_of(client, first)) == 2
    await finish(client, first)
    parts = await parts_of(client, first)
    assert sorted(part.part for part in parts) == list(range(parts[0].parts))
    second = await failed_run(client, "messages", 400)
    with pytest.raises(Killed), Mortal(client, 2 + len(parts) + 4, after=True):  # and three windows
        await second.retry()
    await finish(client, second)
    waiting = await queue_counts(client.connection, client.operations.names)
    assert waiting == {("parts", "leaf"): 200, ("messages", "leaf"): 200}
    await system.pool("again")
    for run in (first, second):
        assert (await system.audit(run)).status.success == 400


@pytest.mark.usefixtures("small_parts")
async def test_of_two_who_finish_a_retry_at_once_one_leaves(system: System) -> None:
    client = await system.client()
    run = await failed_run(client, "both", 400)
    with pytest.raises(Killed), Mortal(client, 3, after=True):
        await run.retry()
    await asyncio.gather(finish(client, run), finish(client, run), finish(client, run))
    waiting = await queue_counts(client.connection, client.operations.names)
    assert 200 <= waiting["both", "leaf"] <= 200 + 2 * sending.WINDOW
    await system.pool("again")
    assert (await system.audit(run)).status.success == 400


async def test_a_root_that_waits_for_a_worker_is_not_published_again_and_again(system: System) -> None:
    client = await system.client()
    run = await interrupted_run(client, "waits", 10)
    assert await run.retry() == 6
    for _ in range(3):
        await finish(client, run)
    assert await queue_counts(client.connection, client.operations.names) == {("waits", "many"): 1}
    await system.pool("again")
    assert (await system.audit(run)).status.success == 10


async def test_an_error_that_cannot_be_read_comes_back_by_its_dispatcher(system: System) -> None:
    client = await system.client()
    past = Past(client, "unreadable", 30)
    await past.send(client.operations.settings.window)
    await past.end(range(30), "error")
    names = client.operations.names
    await client.operations.publisher.store(names.event(past.id, "failed"), b"no JSON at all")
    await past.end_root()
    run = await past.over()
    # One more error, whose body nobody can read any more.
    worse = Past(client, "worse", 30)
    await worse.send(client.operations.settings.window)
    await worse.end(range(29), "error")
    failed = Failed("leaf", (worse.batch, 29), "E", "", "", 1, "w", msgspec.Raw(b"29"))
    broken = msgspec.json.encode(failed).replace(b'"task":[', b'"task":[-')
    await client.operations.publisher.store(names.event(worse.id, "failed"), broken)
    await worse.store(_end_of(worse.batch, 29))
    await worse.end_root()
    other = await worse.over()
    assert await run.retry() == 30
    assert await other.retry() == 31
    await system.pool("again")
    for each in (run, other):
        assert (await system.audit(each)).status.success == 30


@pytest.mark.usefixtures("small_parts")
async def test_an_order_to_stop_between_two_parts_of_a_retry_ends_the_round(system: System) -> None:
    client = await system.client()
    run = await failed_run(client, "stopped", 400)
    with pytest.raises(Killed), Mortal(client, 4, after=True):
        await run.retry()
    await run.interrupt("enough")
    await system.pool("again")
    before = (await system.audit(run)).status
    assert (before.status, before.success, before.interrupted) == ("interrupted", 200, 200)
    assert (before.interrupted_by, before.interrupt_reason) != (None, None)
    receipt = await client.receipt(run.id)
    assert receipt is not None
    assert receipt.removed == 200
    assert await run.retry() == 201
    assert (await system.audit(run)).status.success == 400
