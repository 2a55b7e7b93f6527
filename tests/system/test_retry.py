"""A retry brings back what ended as error or was interrupted, in the same run, and nothing else."""

from __future__ import annotations

import asyncio

import pytest

from corral import DuplicateRun
from corral.errors import NotEnded
from tests.system.apps.again import Family, keyed
from tests.system.pools import System
from tests.system.stage import within


async def decide(system: System, fails: int) -> None:
    """Let the children that come fail if their number is divisible by `fails`, for ever."""
    while True:
        arrival = await system.stage._queue("child").get()
        i = arrival.facts["i"]
        arrival.answer("fail" if fails and isinstance(i, int) and i % fails == 0 else "go")


async def test_errors_come_back_with_their_bodies_and_what_succeeded_does_not(system: System) -> None:
    await system.pool("again", workers=2)
    client = await system.client()
    deciding = asyncio.create_task(decide(system, fails=4))
    run = await client.start("parent", Family(30))
    before = (await system.audit(run)).status
    deciding.cancel()
    assert (before.status, before.total, before.error) == ("failed", 39, 9)
    failed = {bytes(error.body) async for error in client.errors(run.id)}
    assert len(failed) == 9
    system.stage.open("child")
    assert await run.retry() == 9
    after = (await system.audit(run)).status
    assert (after.status, after.total, after.success) == ("success", 39, 39)
    assert [error async for error in client.errors(run.id)] == []
    truth = system.truth()
    assert {line for line, times in truth.items() if times > 1} == set()
    assert sum(line.endswith("fail") for line in truth) == 9


async def test_what_an_interrupt_removed_comes_back_by_its_dispatchers(system: System) -> None:
    await system.pool("again", workers=2, slots=5)
    client = await system.client()
    run = await client.start("parent", Family(40))
    (await system.stage.arrival("child")).answer()
    await system.reached(run, lambda status: status.root == "success" and status.success > 0, "a first success")
    await within(run.interrupt(wait=True), "the receipt")
    before = (await system.audit(run)).status
    assert before.status == "interrupted"
    system.stage.open("child")
    assert await run.retry() > 0
    after = (await system.audit(run)).status
    assert (after.status, after.total, after.success) == ("success", 52, 52)
    assert {int(line.split()[1]) for line in system.truth()} == {
        *(i for i in range(40) if i % 10),
        *(1000 + 10 * i + k for i in range(0, 40, 10) for k in range(3)),
    }


async def test_a_dispatcher_that_was_interrupted_goes_on_where_it_was(system: System) -> None:
    system.set(window=10)
    await system.pool("again", slots=5)
    client = await system.client()
    run = await client.start("parent", Family(100, hold=50))
    await system.stage.arrival("holding")
    await system.reached(run, lambda status: status.total >= 50, "half of the fan-out")
    await within(run.interrupt(wait=True), "the receipt")
    assert (await system.audit(run)).status.root == "interrupted"
    system.stage.open("child")
    system.stage.open("holding")
    await run.retry()
    audit = await system.audit(run)
    assert (audit.status.status, audit.status.success) == ("success", 130)
    assert all(times == 1 for times in system.truth().values())


async def test_a_dispatcher_with_other_content_cannot_bring_anything_back(system: System) -> None:
    await system.pool("again", slots=3)
    client = await system.client()
    run = await client.start("fickle", 5)
    (await system.stage.arrival("fickle")).answer("go")
    await system.stage.arrival("child")
    await within(run.interrupt(wait=True), "the receipt")
    await run.retry()
    (await system.stage.arrival("fickle")).answer("other")
    after = (await system.audit(run)).status
    assert (after.status, after.root) == ("failed", "error")
    (error,) = [error async for error in client.errors(run.id)]
    assert error.type == "ContentChanged"


async def test_the_key_is_taken_again_and_refused_while_another_run_holds_it(system: System) -> None:
    await system.pool("again")
    client = await system.client()
    first = await client.start(keyed, Family(1))
    (await system.stage.arrival("keyed")).answer("fail")
    assert (await system.audit(first)).status.status == "failed"
    second = await client.start(keyed, Family(1))
    holding = await system.stage.arrival("keyed")
    with pytest.raises(DuplicateRun) as caught:
        await first.retry()
    assert caught.value.run_id == second.id
    assert (await first.status()).status == "failed"
    with pytest.raises(NotEnded):
        await second.retry()
    holding.answer()
    await system.audit(second)
    assert await first.retry() == 1
    assert await client.holder("key 1") == first.id
    (await system.stage.arrival("keyed")).answer()
    assert (await system.audit(first)).status.status == "success"


async def test_nothing_to_retry_is_nothing_done(system: System) -> None:
    await system.pool("again")
    client = await system.client()
    system.stage.open("keyed")
    run = await client.start(keyed, Family(1))
    before = (await system.audit(run)).status
    assert await run.retry() == 0
    assert await run.status() == before
