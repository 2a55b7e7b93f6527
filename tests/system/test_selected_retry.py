"""A retry that is limited to some tasks brings these back, and whoever goes on with it no others."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from corral import BadName, Client, Run, TaskNotFound, Unconfirmed
from corral.errors import NotEnded, SelectionTooLarge
from corral.jetstream.topology import queue_counts
from corral.runs import encode
from corral.subjects import run_key
from tests.system.apps.again import Family, keyed
from tests.system.left import Killed, Mortal, Slow, finish, parts_of, record_of
from tests.system.past import failed_run, interrupted_run
from tests.system.pools import System
from tests.system.stage import within
from tests.system.test_retry import decide


async def errors_of(client: Client, run: Run) -> dict[str, int]:
    """The tasks that ended as error, and the numbers that are their messages."""
    return {error.task: int(bytes(error.body)) async for error in client.errors(run.id)}


async def scattered(client: Client, run: Run, every: int) -> list[str]:
    """One in so many of the tasks that ended as error."""
    return [task for task, i in (await errors_of(client, run)).items() if i % (2 * every) == 0]


# --- what comes back -----------------------------------------------------------------------------------


async def test_the_selected_errors_come_back_and_the_others_stay_as_they_ended(system: System) -> None:
    await system.pool("again", workers=2)
    client = await system.client()
    deciding = asyncio.create_task(decide(system, fails=4))
    run = await client.start("parent", Family(30))
    assert (await system.audit(run)).status.error == 9
    deciding.cancel()
    failed = await errors_of(client, run)
    selected = dict(list(failed.items())[2:5])
    executed = system.truth()
    system.stage.open("child")
    assert await run.retry(tasks=selected) == 3
    after = (await system.audit(run)).status
    assert (after.status, after.total, after.success, after.error) == ("failed", 39, 33, 6)
    assert await errors_of(client, run) == {task: i for task, i in failed.items() if task not in selected}
    assert set(system.truth() - executed) == {f"child {i} go" for i in selected.values()}
    assert (await record_of(client, run))[0].selection is None
    assert await client.retry(run.id) == 6
    assert (await system.audit(run)).status.success == 39


async def test_all_of_a_topic_come_back(system: System) -> None:
    client = await system.client()
    run = await failed_run(client, "topic", 20)
    with pytest.raises(TaskNotFound, match="no task of topic 'child'"):
        await run.retry(topics=["child"])
    assert await run.retry(topics=["many"]) == 0
    assert await run.retry(topics=["many", "leaf"]) == 10
    await system.pool("again")
    assert (await system.audit(run)).status.success == 20


async def test_an_unknown_task_is_refused_and_one_that_succeeded_passed_over(system: System) -> None:
    client = await system.client()
    run = await failed_run(client, "asked", 20)
    before = await record_of(client, run)
    errors = await errors_of(client, run)
    batch = next(iter(errors)).partition("-")[0]
    succeeded = [f"{batch}-1", f"{batch}-3", "0-0"]
    for unknown in (f"{batch}-20", f"{batch}9-0", "0-1"):
        with pytest.raises(TaskNotFound, match=f"run asked has no task {unknown}"):
            await run.retry(tasks=[*errors, unknown])
    for wrong in ("", "7", "x-1", "1-", "1--2", "1-2-3"):
        with pytest.raises(BadName, match="batch-ordinal"):
            await run.retry(tasks=[wrong])
    with pytest.raises(BadName):
        await run.retry(topics=["No Topic"])
    with pytest.raises(TypeError, match="as a list"):
        await run.retry(tasks=f"{batch}-0")
    assert await run.retry(tasks=succeeded) == await run.retry(tasks=[]) == await run.retry(topics=()) == 0
    assert await record_of(client, run) == before
    assert await run.retry(tasks=[*succeeded, f"{batch}-0", f"{batch}-0"]) == 1
    await system.pool("again")
    after = (await system.audit(run)).status
    assert (after.success, after.error) == (11, 9)


async def test_some_of_what_an_interrupt_removed_come_back_by_their_dispatcher(system: System) -> None:
    client = await system.client()
    run = await interrupted_run(client, "removed", 40)
    batch = await anext(stored.seq async for stored in client.events(run.id))
    assert await run.retry(tasks=[f"{batch}-{i}" for i in (0, 2, 38)]) == 4  # with the root, which sends them again
    await system.pool("again")
    after = (await system.audit(run)).status
    assert (after.status, after.root, after.success, after.interrupted) == ("interrupted", "success", 23, 17)
    assert await run.retry() == 18
    assert (await system.audit(run)).status.success == 40


async def test_a_dispatcher_that_was_interrupted_can_come_back_alone(system: System) -> None:
    system.set(window=10)
    await system.pool("again", slots=5)
    client = await system.client()
    run = await client.start("parent", Family(100, hold=50))
    await system.stage.arrival("holding")
    await system.reached(run, lambda status: status.total >= 50, "half of the fan-out")
    await within(run.interrupt("enough", wait=True), "the receipt")
    before = (await system.audit(run)).status
    assert before.root == "interrupted"
    system.stage.open("child")
    system.stage.open("holding")
    assert await run.retry(tasks=["0-0"]) == 1
    after = (await system.audit(run)).status
    # What it had sent stays interrupted; what it had not comes now.
    assert (after.status, after.root, after.success) == ("interrupted", "success", before.success + 50 + 5 * 3)
    assert after.interrupted == before.interrupted - 1
    assert (after.interrupted_by, after.interrupt_reason) == (before.interrupted_by, "enough")
    assert await run.retry() > 0
    whole = (await system.audit(run)).status
    assert (whole.status, whole.success, whole.interrupted_by) == ("success", 130, None)
    assert all(times == 1 for times in system.truth().values())


async def test_a_selection_that_does_not_fit_into_the_record_is_refused(system: System) -> None:
    client = await system.client()
    run = await failed_run(client, "large", 6_000)
    record, revision = await record_of(client, run)
    most = client.connection.max_payload
    large = msgspec.structs.replace(record, body=msgspec.Raw(b'"%b"' % (b"x" * (most - 33_500))))
    await client.operations.records.update(run_key(run.id), encode(large), revision)
    before = await record_of(client, run)
    with pytest.raises(SelectionTooLarge, match=r"1,500 tasks .* retry fewer at once, or all that failed") as caught:
        await run.retry(tasks=await scattered(client, run, 2))
    assert caught.value.tasks == 1_500
    assert await record_of(client, run) == before
    assert await run.retry(tasks=(await scattered(client, run, 2))[:10]) == 10


# --- who goes on with it ---------------------------------------------------------------------------------


async def check_selected(system: System, run: Run, selected: list[str], failed: dict[str, int]) -> None:
    """It has ended, and these came back and no others."""
    after = (await system.audit(run)).status
    count = len(failed)
    assert (run.id, after.status, after.success) == (run.id, "failed", count + len(selected))
    left = await errors_of(await system.client(), run)
    assert left == {task: i for task, i in failed.items() if task not in selected}
    assert (await record_of(await system.client(), run))[0].selection is None


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.usefixtures("small_parts")
async def test_a_selection_whose_producer_dies_at_any_step_comes_back_and_nothing_else(
    system: System, after: bool
) -> None:
    system.set(publish_timeout=1.0)
    client = await system.client()
    killed: list[tuple[Run, list[str], dict[str, int]]] = []
    while True:
        run = await failed_run(client, f"killed-{len(killed)}", 80)
        failed = await errors_of(client, run)
        selected = await scattered(client, run, 2)
        each = (run, selected, failed)
        try:
            with Mortal(client, len(killed) + 1, after=after):
                await run.retry(tasks=selected)
        except Killed:
            killed.append(each)
        else:
            break
    assert len(killed) > 8
    if not after:
        assert (await killed[0][0].status()).status == "failed"  # nothing had been done yet
        assert await killed[0][0].retry(tasks=killed[0][1]) == 20
    await system.pool("again")
    for one in [each, *killed]:
        await check_selected(system, *one)


@pytest.mark.usefixtures("small_parts")
async def test_of_several_who_finish_a_selection_at_once_all_but_one_leave(system: System) -> None:
    client = await system.client()
    run = await failed_run(client, "both", 400)
    failed, selected = await errors_of(client, run), await scattered(client, run, 2)
    with pytest.raises(Killed), Mortal(client, 4, after=True):  # two records, two parts
        await run.retry(tasks=selected)
    assert len(await parts_of(client, run)) == 2
    await asyncio.gather(finish(client, run), finish(client, run), finish(client, run))
    assert 100 <= (await queue_counts(client.connection, client.operations.names))["both", "leaf"] <= 110
    await system.pool("again")
    await check_selected(system, run, selected, failed)


@pytest.mark.usefixtures("small_parts")
async def test_an_order_to_stop_between_two_parts_of_a_selection_stops_no_more_than_that(system: System) -> None:
    client = await system.client()
    run = await failed_run(client, "stopped", 400)
    selected = await scattered(client, run, 2)
    with pytest.raises(Killed), Mortal(client, 4, after=True):
        await run.retry(tasks=selected)
    await run.interrupt("enough")
    await system.pool("again")
    before = (await system.audit(run)).status
    assert (before.status, before.success, before.error, before.interrupted) == ("interrupted", 200, 100, 100)
    assert (await record_of(client, run))[0].selection is None
    receipt = await client.receipt(run.id)
    assert receipt is not None
    assert receipt.removed == 100
    assert await run.retry(tasks=selected[:1]) == 1  # its body is stored with the error of the round before
    after = (await system.audit(run)).status
    assert (after.status, after.success, after.error, after.interrupted) == ("interrupted", 201, 100, 99)
    assert after.interrupt_reason == "enough"


async def test_of_two_selections_at_once_one_comes_back(system: System) -> None:
    client = await system.client()
    run = await failed_run(client, "two", 80)
    failed = await errors_of(client, run)
    one, other = await scattered(client, run, 2), await scattered(client, run, 5)
    answers = await asyncio.gather(run.retry(tasks=one), run.retry(tasks=other), return_exceptions=True)
    (refused,) = [answer for answer in answers if not isinstance(answer, int)]
    assert isinstance(refused, NotEnded)
    await system.pool("again")
    await check_selected(system, run, one if answers[0] == len(one) else other, failed)


async def undone(client: Client, run: Run) -> None:
    """Somebody takes a retry back that has not come far."""
    record, revision = await record_of(client, run)
    assert (record.state, record.round) == ("reopening", 1)
    final = msgspec.structs.replace(record, state="final", round=0, selection=None)
    await client.operations.records.update(run_key(run.id), encode(final), revision)


@pytest.mark.parametrize("goes_on", [False, True])
async def test_who_was_undone_does_not_go_on_with_another_retry(system: System, goes_on: bool) -> None:
    client = await system.client()
    run = await failed_run(client, "undone", 80)
    failed = await errors_of(client, run)
    mine, others = await scattered(client, run, 2), await scattered(client, run, 5)

    async def overtake() -> None:
        await undone(client, run)
        if goes_on:
            assert await run.retry(tasks=others) == len(others)
        else:
            with pytest.raises(Killed), Mortal(client, 3, after=False):  # its record is `queued`
                await run.retry(tasks=others)

    with pytest.raises(Unconfirmed, match="undone"), Slow(client, 2, overtake):
        await run.retry(tasks=mine)
    if not goes_on:
        await finish(client, run)
    await system.pool("again")
    await check_selected(system, run, others, failed)


async def test_who_is_overtaken_by_one_that_finishes_its_own_selection_has_done_it(system: System) -> None:
    client = await system.client()
    run = await failed_run(client, "helped", 80)
    failed, selected = await errors_of(client, run), await scattered(client, run, 2)

    async def help_it() -> None:
        record, revision = await record_of(client, run)
        queued = msgspec.structs.replace(record, state="queued")
        await client.operations.records.update(run_key(run.id), encode(queued), revision)
        await finish(client, run)

    with Slow(client, 2, help_it):
        assert await run.retry(tasks=selected) == len(selected)
    await system.pool("again")
    await check_selected(system, run, selected, failed)


async def test_a_selection_without_its_key_is_undone_and_forgotten(system: System) -> None:
    system.set(publish_timeout=0.5)
    client = await system.client()
    await system.pool("again")
    run = await client.start(keyed, Family(1))
    (await system.stage.arrival("keyed")).answer("fail")
    before = (await system.audit(run)).status
    with pytest.raises(Killed), Mortal(client, 1, after=True):
        await client.retry(run.id, topics=["keyed"])
    await released(client)
    assert (await run.status()).status == before.status
    assert (await record_of(client, run))[0].selection is None


async def released(client: Client) -> None:
    """A record is final again, in its first round."""
    async for batch in client.read_records():
        if any(record is not None and (record.state, record.round) == ("final", 0) for _, record in batch):
            return
