"""One order stops a run, what is queued of it and what runs; the receipt accounts for every task."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from corral import Client
from corral.events import Ended, Interrupted, Receipt
from corral.jetstream.topology import queue_counts
from corral.operations import Run
from tests.system.apps.pressure import Spread
from tests.system.apps.stopping import Crowd
from tests.system.pools import Audit, System
from tests.system.stage import Arrival, standing_still, within


async def interrupt(run: Run, reason: str | None = None) -> Receipt:
    receipt = await within(run.interrupt(reason, wait=True), "the receipt")
    assert receipt is not None
    return receipt


async def stopped(system: System, run: Run, receipt: Receipt) -> Audit:
    """The audited run, whose receipt must account for all that had not ended when the order was stored."""
    audit = await system.audit(run)
    (order,) = [stored.seq for stored in audit.events if isinstance(stored.event, Interrupted)]
    ended_before: set[tuple[int, int]] = set()
    for stored in audit.events:
        if isinstance(stored.event, Ended) and stored.seq < order:
            ended_before |= {
                (ends.batch, n) for ends in stored.event.tasks for span in ends.ranges for n in range(*span)
            }
            ended_before |= {end.task for end in stored.event.dispatchers}
    # A root that has ended well is not counted, but it may have been open then.
    everything = audit.status.total + (audit.status.root == "success" and "root" not in _counted(audit))
    accounted = receipt.removed + receipt.stopped + receipt.killed + receipt.finished_first
    assert accounted == everything - len(ended_before)
    assert receipt.seconds >= 0
    assert audit.recounted.receipt == Receipt(
        removed=receipt.removed, stopped=receipt.stopped, killed=receipt.killed, finished_first=receipt.finished_first
    )
    assert await (await system.client()).receipt(run.id) == receipt
    return audit


def _counted(audit: Audit) -> set[str]:
    """Whether the root is one of what is counted: it is where nothing was sent."""
    return {"root"} if audit.status.topics.keys() == {audit.status.topic} else set()


def numbers(receipt: Receipt) -> tuple[int, int, int, int]:
    return receipt.removed, receipt.stopped, receipt.killed, receipt.finished_first


async def test_what_is_queued_is_removed_and_what_runs_is_cancelled(system: System) -> None:
    await system.pool("stopping", workers=2, slots=5)
    run = await (await system.client()).start("crowd", Crowd(300))
    running = await system.stage.arrivals("member", 10)
    await system.reached(run, lambda status: status.root == "success", "the end of the root")
    receipt = await interrupt(run, "by mistake")
    assert numbers(receipt) == (290, 10, 0, 0)
    for arrival in running:
        await arrival.gone()
    status = (await stopped(system, run, receipt)).status
    assert (status.status, status.root, status.total, status.interrupted) == ("interrupted", "success", 300, 300)
    assert status.interrupt_reason == "by mistake"
    assert "@" in (status.interrupted_by or "")
    assert sum(system.truth()[f"member {i}"] for i in range(300)) == 10


async def test_what_has_ended_before_keeps_its_outcome(system: System) -> None:
    await system.pool("stopping", slots=5)
    run = await (await system.client()).start("crowd", Crowd(100))
    for _ in range(30):
        (await system.stage.arrival("member")).answer()
    await system.reached(run, lambda status: status.success == 30 and status.root == "success", "30 ends")
    receipt = await interrupt(run)
    assert numbers(receipt) == (65, 5, 0, 0)
    status = (await stopped(system, run, receipt)).status
    assert (status.total, status.success, status.interrupted) == (100, 30, 70)


@pytest.mark.parametrize("topic", ["crowd", "crowd.thread"])
async def test_a_dispatcher_stops_in_the_middle_of_its_fan_out(system: System, topic: str) -> None:
    system.set(window=100)
    await system.pool("stopping", slots=5)
    client = await system.client()
    run = await client.start(topic, Crowd(1000, hold=450))
    await system.stage.arrivals("member", 4)
    dispatcher = await system.stage.arrival("holding")
    await system.reached(run, lambda status: status.total == 450, "450 that were sent")
    ordered = asyncio.create_task(interrupt(run))
    await system.until(
        lambda: any(run.id in beat.stopping for beat in system.beats.values()) or ordered.done(), "a word"
    )
    dispatcher.answer()  # the thread: it learns of the interrupt when it sends
    receipt = await ordered
    assert numbers(receipt) == (446, 5, 0, 0)
    status = (await stopped(system, run, receipt)).status
    assert (status.status, status.root, status.total, status.interrupted) == ("interrupted", "interrupted", 451, 451)
    assert system.truth()["sent 1000"] == 0


async def test_a_dispatcher_stops_while_it_sends_as_fast_as_it_can(system: System) -> None:
    await system.pool("stopping", slots=20)
    run = await (await system.client()).start("crowd", Crowd(10_000_000, topic="quick"))
    await system.reached(run, lambda status: status.success > 1000, "a thousand ends")
    receipt = await interrupt(run)
    status = (await stopped(system, run, receipt)).status
    assert (status.status, status.root) == ("interrupted", "interrupted")
    assert status.total < 10_000_000
    assert receipt.removed > 0


async def test_dispatchers_on_every_level_stop(system: System) -> None:
    await system.pool("stopping", topics="nested,crowd", workers=2, slots=10)
    await system.pool("stopping", topics="member", workers=2, slots=10)  # else these may take the others' slots
    run = await (await system.client()).start("nested", Crowd(8, hold=5))
    await system.stage.arrivals("holding", 8)
    await system.reached(run, lambda status: status.root == "success" and status.total == 8 + 40, "all that was sent")
    receipt = await interrupt(run)
    assert sum(numbers(receipt)) == 48
    assert receipt.stopped >= 8
    status = (await stopped(system, run, receipt)).status
    assert status.topics["crowd"].interrupted == 8
    assert status.topics["member"].interrupted == 40


async def test_a_processor_that_hangs_is_ended(system: System) -> None:
    await system.pool("stopping", slots=1)
    client = await system.client()
    run = await client.start("hang", 1)
    (await system.stage.arrival("about to hang")).answer()
    receipt = await interrupt(run)
    assert numbers(receipt) == (0, 1, 0, 0)
    assert (await stopped(system, run, receipt)).status.interrupted == 1
    assert (await system.audit(await client.start("quick", 1))).status.success == 1  # its slot is free


async def test_a_thread_stops_when_it_checks(system: System) -> None:
    await system.pool("stopping")
    run = await (await system.client()).start("thread", 1)
    thread = await system.stage.arrival("thread")
    ordered = asyncio.create_task(interrupt(run))
    await system.until(lambda: any(run.id in beat.stopping for beat in system.beats.values()), "its worker's word")
    await system.reached(run, lambda status: status.status == "interrupting", "the interrupt")
    thread.answer()
    receipt = await ordered
    assert numbers(receipt) == (0, 1, 0, 0)
    assert (await stopped(system, run, receipt)).status.status == "interrupted"
    assert system.truth()["checked"] == 0


async def test_a_thread_that_never_looks_is_waited_for_and_has_finished_first(system: System) -> None:
    await system.pool("stopping")
    run = await (await system.client()).start("thread", 1)
    (await system.stage.arrival("thread")).answer()
    thread = await system.stage.arrival("thread goes on")
    ordered = asyncio.create_task(interrupt(run))
    await system.until(lambda: any(run.id in beat.stopping for beat in system.beats.values()), "its worker's word")
    thread.answer()
    receipt = await ordered
    assert numbers(receipt) == (0, 0, 0, 1)
    status = (await stopped(system, run, receipt)).status
    assert (status.status, status.success) == ("success", 1)
    assert system.truth()["the thread has returned"] == 1


async def test_a_task_that_returns_although_it_is_cancelled_has_finished_first(system: System) -> None:
    await system.pool("stopping", slots=2)
    run = await (await system.client()).start("crowd", Crowd(10, topic="deaf"))
    await system.stage.arrivals("deaf", 2)
    await system.reached(run, lambda status: status.root == "success", "the end of the root")
    receipt = await interrupt(run)
    assert numbers(receipt) == (8, 0, 0, 2)
    status = (await stopped(system, run, receipt)).status
    assert (status.status, status.success, status.interrupted) == ("interrupted", 2, 8)


async def test_a_task_that_fails_while_it_is_cancelled_is_an_error(system: System) -> None:
    await system.pool("stopping")
    client = await system.client()
    run = await client.start("fails", 1)
    await system.stage.arrival("fails")
    receipt = await interrupt(run)
    assert numbers(receipt) == (0, 0, 0, 1)
    status = (await stopped(system, run, receipt)).status
    assert (status.status, status.error) == ("failed", 1)
    (error,) = [error async for error in client.errors(run.id)]
    assert error.message == "the clean-up failed"


async def test_a_task_that_waits_for_its_next_attempt_is_removed(system: System) -> None:
    await system.pool("stopping")
    run = await (await system.client()).start("crowd", Crowd(20, topic="backs.off"))
    await system.reached(run, lambda status: status.retrying == 20, "20 that wait")
    receipt = await interrupt(run)
    assert numbers(receipt) == (20, 0, 0, 0)
    status = (await stopped(system, run, receipt)).status
    assert (status.interrupted, status.retrying) == (20, 0)


async def test_a_run_that_nobody_has_begun_is_removed_whole(system: System) -> None:
    await system.pool("stopping", topics="quick")
    run = await (await system.client()).start("member", 1)
    receipt = await interrupt(run)
    assert numbers(receipt) == (1, 0, 0, 0)
    status = (await stopped(system, run, receipt)).status
    assert (status.status, status.root, status.total, status.started_at) == ("interrupted", "interrupted", 1, None)


async def test_an_interrupt_without_any_pool_is_carried_out_when_one_comes(system: System) -> None:
    client = await system.client()
    run = await client.start("member", 1)
    assert await run.interrupt() is None
    assert await queue_counts(client.connection, client.operations.names) == {}
    await system.pool("stopping")
    assert (await system.audit(run)).status.status == "interrupted"
    assert system.truth()["member 1"] == 0


async def test_other_runs_are_left_alone(system: System) -> None:
    await system.pool("stopping", slots=20)
    client = await system.client()
    doomed, other = [await client.start("crowd", Crowd(30)) for _ in range(2)]
    (await system.stage.arrival("member")).answer()
    await stopped(system, doomed, await interrupt(doomed))
    system.stage.open("member")
    status = (await system.audit(other)).status
    assert (status.status, status.success) == ("success", 30)


async def test_an_interrupt_costs_other_runs_no_task_that_waits(system: System) -> None:
    await system.pool("stopping")
    client = await system.client()
    waits = await client.start("asks", 0)
    (await system.stage.arrival("asks")).answer("fail")
    await system.reached(waits, lambda status: status.retrying == 1, "its retry")
    doomed = await client.start("crowd", Crowd(100, topic="asks"))
    arrivals = await system.stage.arrivals("asks", 8)
    # The purge of messages that are in flight makes the server forget what was delivered before and is to come again.
    await doomed.interrupt()
    for arrival in arrivals:
        arrival.answer()
    assert (await system.audit(doomed)).status.status == "interrupted"
    other = await client.start("asks", 1)
    again = [await system.stage.arrival("asks")]
    if again[0].facts["run"] == waits.id:  # the purge came late
        again.append(await system.stage.arrival("asks"))
    for arrival in again:
        arrival.answer()
    assert (await system.audit(other)).status.success == 1
    system.stage.open("asks")
    assert (await system.audit(waits)).status.status == "success"


async def test_a_task_that_the_server_forgot_goes_on_with_its_next_attempt(system: System) -> None:
    pool = await system.pool("pressure", slots=100)
    client = await system.client()
    for _ in range(5):  # a purge at this moment makes the server forget nearly always
        await purged_during_a_back_off(system, client)
        if "a task is sent again that the server forgot" in pool.log.read_text():
            return
    pytest.fail("the server has forgotten nothing")


async def purged_during_a_back_off(system: System, client: Client) -> None:
    """A task waits for its second attempt while many others are purged; it gets it."""
    waits, doomed, other = [await client.start("spread", Spread(n, "item.waits")) for n in (1, 80, 1)]
    arrivals: dict[str, Arrival] = {}
    for arrival in await system.stage.arrivals("item", 82):
        arrivals[arrival.facts["run"]] = arrival
    arrivals[waits.id].answer("fail")
    await system.reached(waits, lambda status: status.retrying == 1, "its retry")
    # So many messages are purged at once while a worker has them, which is what makes the server forget.
    worker = arrivals[waits.id].pid
    os.kill(worker, signal.SIGSTOP)
    try:
        await within(standing_still(worker), "the worker's standstill")
        await doomed.interrupt()
    finally:
        os.kill(worker, signal.SIGCONT)
    await system.audit(doomed)
    arrivals[other.id].answer()
    await system.audit(other)
    again = await system.stage.arrival("item")
    assert (again.facts["run"], again.facts["attempt"]) == (waits.id, 2)
    again.answer()
    assert (await system.audit(waits)).status.status == "success"


async def test_several_orders_are_one(system: System) -> None:
    await system.pool("stopping", slots=5)
    client = await system.client()
    run = await client.start("crowd", Crowd(50))
    await system.stage.arrivals("member", 5)
    await system.reached(run, lambda status: status.root == "success", "the end of the root")
    async with Client(system.url, settings=system.settings) as other:
        orders = [(client, other)[n % 2].interrupt(run.id, reason=str(n), wait=True) for n in range(10)]
        receipts = await within(asyncio.gather(*orders), "ten receipts")
    (receipt,) = set(receipts)
    assert receipt is not None
    assert numbers(receipt) == (45, 5, 0, 0)
    assert (await system.audit(run)).status.interrupted == 50


async def test_a_run_that_has_ended_is_left_as_it_is(system: System) -> None:
    await system.pool("stopping")
    run = await (await system.client()).start("crowd", Crowd(10, topic="quick"))
    before = await system.audit(run)
    assert numbers(await interrupt(run)) == (0, 0, 0, 0)
    assert await system.audit(run) == before


async def test_a_thread_that_does_not_stop_ends_with_its_worker_and_the_others_run_elsewhere(system: System) -> None:
    await system.pool("stopping", slots=5)
    client = await system.client()
    other = await client.start("crowd", Crowd(1))
    await system.stage.arrival("member")
    run = await client.start("thread", 1)
    thread = await system.stage.arrival("thread")
    receipt = await within(run.interrupt(wait=True, kill_after=0.1), "the receipt")
    assert receipt is not None
    assert numbers(receipt) == (0, 0, 1, 0)
    await thread.gone()
    (await system.stage.arrival("member")).answer()
    assert (await system.audit(other)).status.status == "success"
    assert "checked" not in system.truth()


async def test_a_task_that_blocks_the_loop_ends_with_its_worker_and_the_others_run_elsewhere(system: System) -> None:
    await system.pool("stopping", slots=5)
    client = await system.client()
    other = await client.start("crowd", Crowd(1))
    await system.stage.arrival("member")
    run = await client.start("blocks", 1)
    blocking = await system.stage.arrival("blocks")
    receipt = await within(run.interrupt(wait=True, kill_after=0.1), "the receipt")
    assert receipt is not None
    assert numbers(receipt) == (0, 0, 1, 0)
    await blocking.gone()
    (await system.stage.arrival("member")).answer()
    assert (await system.audit(other)).status.status == "success"
    assert (await system.audit(run)).status.status == "interrupted"
    assert "the loop was let go" not in system.truth()


async def test_a_dispatcher_that_is_killed_has_sent_what_it_has_sent(system: System) -> None:
    await system.pool("stopping", slots=5)
    client = await system.client()
    run = await client.start("crowd.thread", Crowd(10, topic="quick", hold=6))
    dispatcher = await system.stage.arrival("holding")
    await system.reached(run, lambda status: status.success == 6, "the ends of what it has sent")
    receipt = await within(run.interrupt(wait=True, kill_after=0.1), "the receipt")
    assert receipt is not None
    assert numbers(receipt) == (0, 0, 1, 0)
    await dispatcher.gone()
    status = (await system.audit(run)).status
    assert (status.total, status.success, status.interrupted, status.root) == (7, 6, 1, "interrupted")


async def test_a_worker_says_at_once_that_it_has_stopped_whatever_still_arrived(system: System) -> None:
    # Without the regular heartbeat only those that an interrupt causes can end a run.
    system.set(beat=600.0, death=1_200.0)
    await system.pool("stopping", workers=2, slots=50)
    client = await system.client()
    for _ in range(8):
        run = await client.start("crowd", Crowd(20_000, topic="quick"))
        await system.reached(run, lambda status: status.success > 0, "a first success")
        await within(run.interrupt(wait=True), "the receipt")
        assert (await run.status()).status == "interrupted"
