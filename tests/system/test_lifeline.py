"""A processor that blocks the loop does not cost the other tasks of its worker anything but time."""

from __future__ import annotations

from tests.system.pools import System


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
