"""One run for each key, from its start until its last task has stopped."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import pytest

from corral import Client
from corral.errors import DuplicateRun, RunExists, RunNotFound
from corral.operations import Run
from corral.runs import Record, encode
from corral.subjects import interrupt_key, run_key, unique_key
from tests.system.apps.unique import Entity, Named, Priced, hashed, named, plain, priced, reindex, tidy
from tests.system.pools import System
from tests.system.stage import within

SEVEN = Entity("Product", 7)


async def test_fifty_starts_at_once_of_one_key_make_one_run(system: System) -> None:
    await system.pool("unique")
    client = await system.client()
    async with Client(system.url, settings=system.settings) as other:
        starts = [(client, other)[n % 2].start(reindex, SEVEN) for n in range(50)]
        outcomes = await asyncio.gather(*starts, return_exceptions=True)
    (run,) = [client.run(outcome.id) for outcome in outcomes if isinstance(outcome, Run)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, DuplicateRun)]
    assert len(refused) == 49
    assert {(error.key, error.run_id) for error in refused} == {("Product/7", run.id)}
    assert [status.id for status in await client.runs()] == [run.id]
    (await system.stage.arrival("reindexing")).answer()
    assert (await system.audit(run)).status.unique == "Product/7"
    assert system.truth()["reindex Product 7"] == 1


async def test_a_key_is_free_again_as_soon_as_its_run_has_ended(system: System) -> None:
    await system.pool("unique")
    client = await system.client()
    system.stage.open("reindexing")
    for _ in range(5):
        run = await client.start(reindex, SEVEN)
        assert (await system.audit(run)).status.status == "success"
        assert await client.holder("Product/7") is None
    assert system.truth()["reindex Product 7"] == 5


@pytest.mark.parametrize("policy", ["queue", "joni"])
async def test_an_unknown_policy_is_refused_before_anything_is_stored(system: System, policy: Any) -> None:
    client = await system.client()
    with pytest.raises(ValueError, match="reject, join or replace"):
        await client.start(reindex, SEVEN, on_duplicate=policy)
    assert await client.runs() == []


async def test_other_keys_are_not_held(system: System) -> None:
    client = await system.client()
    runs = [await client.start(reindex, Entity(kind, n)) for kind in ("Product", "Shop") for n in range(3)]
    assert len({run.id for run in runs}) == 6
    assert await client.holder("Shop/2") == runs[5].id


async def test_a_callable_computes_the_key(system: System) -> None:
    client = await system.client()
    run = await client.start(hashed, Entity("a", 13))
    with pytest.raises(DuplicateRun) as caught:
        await client.start(hashed, Entity("b", 23))
    assert (caught.value.key, caught.value.run_id) == ("hash 3", run.id)
    await client.start(hashed, Entity("b", 24))


async def test_a_key_does_not_depend_on_how_the_json_is_written(system: System) -> None:
    await system.pool("unique")
    client = await system.client()
    run = await client.start_raw("priced", b'{"price":7}')
    assert (await run.status()).unique == "corner 7.0"
    for body in (b'{"price":7.0,"shop":"corner"}', b'{"price":70e-1}'):
        with pytest.raises(DuplicateRun) as caught:
            await client.start_raw("priced", body)
        assert (caught.value.key, caught.value.run_id) == ("corner 7.0", run.id)
    with pytest.raises(DuplicateRun):
        await client.start(priced, Priced(7))
    (await system.stage.arrival("priced")).answer()
    await system.audit(run)


async def test_a_key_that_only_the_message_tells_is_refused_by_the_worker(system: System) -> None:
    await system.pool("unique")
    client = await system.client()
    run = await client.start(named, Named("A"))
    refused = await client.start_raw("named", b'{"name":"a"}')
    assert (await system.audit(refused)).status.status == "failed"
    (error,) = [error async for error in client.errors(refused.id)]
    assert (error.type, run.id in error.message) == ("DuplicateRun", True)
    (await system.stage.arrival("named")).answer()
    await system.audit(run)


async def test_the_caller_gives_a_key_and_overrides_the_processors(system: System) -> None:
    client = await system.client()
    run = await client.start(plain, SEVEN, unique="mine: ärger.*>")
    assert (await run.status()).unique == "mine: ärger.*>"
    with pytest.raises(DuplicateRun) as caught:
        await client.start(reindex, SEVEN, unique="mine: ärger.*>")
    assert caught.value.run_id == run.id
    await client.start(reindex, SEVEN)
    await client.start(plain, SEVEN)
    await client.start(plain, SEVEN)


async def test_join_gives_the_run_that_holds_the_key(system: System) -> None:
    await system.pool("unique")
    client = await system.client()
    run = await client.start(reindex, SEVEN, on_duplicate="join")
    joined = await asyncio.gather(*[client.start(reindex, SEVEN, on_duplicate="join") for _ in range(20)])
    assert {each.id for each in joined} == {run.id}
    (await system.stage.arrival("reindexing")).answer()
    assert {(await system.end(each)).status for each in joined} == {"success"}
    assert system.truth()["reindex Product 7"] == 1


async def test_a_key_is_held_while_any_task_of_the_run_is_left(system: System) -> None:
    await system.pool("unique")
    client = await system.client()
    run = await client.start(reindex, Entity("Product", 7, ids=[1, 2]))
    (await system.stage.arrival("reindexing")).answer()
    first, second = await system.stage.arrivals("entity", 2)
    await system.reached(run, lambda status: status.root == "success", "the end of the root")
    first.answer()
    await system.reached(run, lambda status: status.success == 1, "the end of the first task")
    with pytest.raises(DuplicateRun):
        await client.start(reindex, SEVEN)
    second.answer()
    await system.audit(run)
    await client.start(reindex, SEVEN)


async def test_a_key_is_held_while_an_interrupted_task_still_tidies_up(system: System) -> None:
    await system.pool("unique")
    client = await system.client()
    run = await client.start(tidy, SEVEN)
    await system.stage.arrival("working")
    await run.interrupt("enough")
    tidying = await system.stage.arrival("tidying")
    assert (await system.reached(run, lambda now: now.status == "interrupting", "the interrupt")).interrupted == 0
    # Every worker has said which marker it has seen, and this one that it is not done.
    await system.until(lambda: any(run.id in beat.stopping for beat in system.beats.values()), "its worker's word")
    for _ in range(3):
        with pytest.raises(DuplicateRun) as caught:
            await client.start(tidy, SEVEN)
        assert caught.value.run_id == run.id
    assert system.truth()[f"tidied {run.id}"] == 0
    tidying.answer()
    status = (await system.audit(run)).status
    assert (status.status, status.interrupt_reason) == ("interrupted", "enough")
    assert system.truth()[f"tidied {run.id}"] == 1
    again = await client.start(tidy, SEVEN)
    system.stage.open("tidying")
    (await system.stage.arrival("working")).answer()
    assert (await system.audit(again)).status.status == "success"


async def test_replace_stops_the_holder_and_waits_until_it_has_stopped(system: System) -> None:
    await system.pool("unique")
    client = await system.client()
    run = await client.start(tidy, SEVEN)
    await system.stage.arrival("working")
    replacing = asyncio.create_task(client.start(tidy, SEVEN, on_duplicate="replace"))
    (await system.stage.arrival("tidying")).answer()
    second = await replacing
    assert second.id != run.id
    assert (await system.audit(run)).status.status == "interrupted"
    assert (await system.stage.arrival("working")).facts == {"run": second.id}
    assert system.truth()[f"tidied {run.id}"] == 1


async def test_a_start_with_the_same_id_is_the_same_run(system: System) -> None:
    await system.pool("unique")
    client = await system.client()
    runs = await asyncio.gather(*[client.start(reindex, SEVEN, id="mine") for _ in range(10)])
    assert {run.id for run in runs} == {"mine"}
    with pytest.raises(RunExists):
        await client.start(reindex, Entity("Product", 8), id="mine")
    (await system.stage.arrival("reindexing")).answer()
    await system.audit(runs[0])
    assert (await client.start(reindex, SEVEN, id="mine")).id == "mine"
    assert (await system.audit(runs[0])).status.total == 1
    assert system.truth()["reindex Product 7"] == 1


async def test_an_unknown_run_is_not_found_at_the_first_await(system: System) -> None:
    client = await system.client()
    run = client.run("nobody")
    with pytest.raises(RunNotFound):
        await run.status()
    with pytest.raises(RunNotFound):
        await run.interrupt()
    with pytest.raises(RunNotFound):
        await run.wait()


async def test_replacing_a_start_that_is_undone_meanwhile_goes_on(system: System) -> None:
    client = await system.client()
    records = client.operations.records
    half = Record(id="half", topic="t", body=msgspec.Raw(b"1"), state="starting", created_at=time.time(), unique="k")
    revision = await records.create(run_key("half"), encode(half))
    await records.create(unique_key("k"), b"half")
    replacing = asyncio.create_task(client.start("t", 2, unique="k", on_duplicate="replace"))
    ordered = records.watch(interrupt_key("half"))
    await within(anext(ordered), "the order to stop what is half-made")
    await ordered.close()
    await records.update(run_key("half"), encode(msgspec.structs.replace(half, state="aborted")), revision)
    run = await within(replacing, "the start")
    assert await client.holder("k") == run.id
