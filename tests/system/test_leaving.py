"""Workers and pools that an operator tells to leave: they do, nobody takes their place, and nothing is lost."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from corral.errors import WorkerNotFound
from corral.leaving import Leave, encode_leave
from corral.subjects import Names
from tests.system.attacker import Attacker
from tests.system.commands import Corral
from tests.system.pools import System

APP = """
from corral import App

app = App()


@app.processor("good")
async def good(message: object) -> None: ...
"""


async def test_a_drained_worker_finishes_what_it_has_and_is_not_replaced(system: System) -> None:
    pool = await system.pool("crashes", workers=2, slots=2)
    client = await system.client()
    first = await client.start("crowd", 4)
    working = await system.stage.arrivals("working", 4)
    leaving = next(beat for beat in system.beats.values() if beat.pid == working[0].pid)
    (told,) = await client.drain(leaving.id)
    assert (told.id, told.pool, told.gone) == (leaving.id, pool.id, False)
    # Everybody hears who gave the order, not only the one who did.
    await system.until(lambda: bool(system.beats[leaving.id].leaves_by), "the name of who told it")
    (seen,) = [each for each in await client.workers() if each.id == leaving.id]
    assert seen.leaves == "drain"
    assert seen.leaves_by.endswith(f"@{socket.gethostname()}")
    assert [each.workers for each in await client.topics() if each.topic == "works"] == [1]
    # What comes now is the other one's, which has to be done with something first.
    later = await client.start("works", 99)
    for arrival in working:
        if arrival.pid != leaving.pid:
            arrival.answer()
    last = await system.stage.arrival("working")
    assert last.pid != leaving.pid
    last.answer()
    for arrival in working:
        arrival.answer()
    assert (await system.audit(first)).status.success == 4
    assert (await system.audit(later)).status.success == 1
    await system.until(lambda: leaving.id not in system.beats, "the last word of the one that leaves")
    assert max(system.truth().values()) == 1
    (other,) = await client.workers()
    assert (await client.drain(other.id, wait=True))[0].gone
    assert await pool.ended() == 0
    assert "is replaced" not in pool.log.read_text()


async def test_a_stopped_worker_hands_back_at_once_and_spends_no_attempt(system: System) -> None:
    """Also one that drains already and takes its time."""
    await system.pool("crashes", slots=5)
    client = await system.client()
    run = await client.start("works", 1)
    before = await system.stage.arrival("working")
    (worker,) = await client.workers()
    await client.drain(worker.pool)
    (told,) = await client.stop(worker.id, wait=True)
    assert told.gone
    await before.gone()
    await system.pool("crashes")
    again = await system.stage.arrival("working")
    assert again.facts["attempt"] == 1
    again.answer()
    assert (await system.audit(run)).status.success == 1
    assert "crashed" not in [each.event.__struct_config__.tag async for each in client.events(run.id)]


async def test_the_first_signal_to_a_pool_that_was_told_to_drain_ends_no_task(system: System) -> None:
    """The second one would: an order is no signal."""
    system.set(drain_timeout=600.0)
    pool = await system.pool("crashes")
    client = await system.client()
    run = await client.start("works", 1)
    working = await system.stage.arrival("working")
    await client.drain(pool.id)
    pool.drain()
    await system.until(lambda: "draining workers=" in pool.log.read_text(), "the pool's answer to the signal")
    working.answer()
    assert await pool.ended() == 0
    await system.pool("crashes")
    assert (await system.audit(run)).status.success == 1
    assert system.truth() == {"works 1": 1}


async def test_a_stopped_pool_starts_nobody_any_more(system: System) -> None:
    pool = await system.pool("crashes", workers=2)
    client = await system.client()
    told = await client.stop(pool.id[:4], wait=True)
    assert sorted(each.id for each in told) == [f"{pool.id}-1", f"{pool.id}-2"]
    assert await pool.ended() == 0


async def test_a_worker_whose_loop_is_blocked_is_killed_when_it_is_told_to_stop(system: System) -> None:
    system.set(kill_grace=0.1)
    pool = await system.pool("crashes", workers=1)
    client = await system.client()
    run = await client.start("blocks", 1)
    blocking = await system.stage.arrival("blocking")
    assert (await client.stop(pool.id, wait=True))[0].gone
    await blocking.gone()
    assert await pool.ended() == 0
    await system.pool("crashes")
    (await system.stage.arrival("blocking")).answer()
    assert (await system.audit(run)).status.success == 1


async def test_a_name_that_fits_none_or_several_tells_nobody(system: System) -> None:
    pool = await system.pool("crashes", workers=2)
    client = await system.client()
    for name in ("nobody", "", f"{pool.id}-"):
        with pytest.raises(WorkerNotFound):
            await client.stop(f"{pool.id}-1", name)
    assert not any(each.leaves for each in await client.workers())


def test_the_commands_tell_workers_to_leave_and_say_who_confirmed_it(
    nats_url: str, namespace: str, tmp_path: Path
) -> None:
    corral = Corral(tmp_path, {"NATS_URL": nats_url, "CORRAL_NAMESPACE": namespace})
    (tmp_path / "app.py").write_text(APP)
    with corral.running("pool", "app.py", "-p", "2") as pool:
        pool.wait_for("at work", on="err")
        first, second = sorted(each["id"] for each in corral("workers", "--json").json)
        refused = corral("stop", "7f3k")
        assert (refused.code, refused.out) == (2, "")
        assert "no worker and no pool '7f3k' is heard" in refused.err
        assert "Runs are stopped by `corral interrupt`" in refused.err
        (told,) = corral("drain", first, "--wait", "--json").json
        assert list(told) == ["id", "pool", "host", "running", "confirmed", "gone"]
        assert (told["id"], told["running"], told["gone"]) == (first, 0, True)
        assert told["confirmed"] >= 0
        done = corral("stop", first.partition("-")[0][:4], "--wait", "--timeout", "50")
        assert done.code == 0
        assert done.out.startswith(f"{second} on ")
        assert ": gone; it was told while it executed 0 tasks, and confirmed it after " in done.out
        assert pool.done().code == 0


async def test_what_is_no_order_ends_nobody(system: System) -> None:
    pool = await system.pool("crashes")
    client = await system.client()
    (worker,) = await client.workers()
    names = Names(system.settings.namespace)
    order = encode_leave(Leave("stop", [worker.id], [pool.id], "somebody"))
    async with Attacker(system.url) as attacker:
        for payload in (b"", b"[]", b"\xff", b"[" * 9_000, b'{"how": "die"}', order.replace(b"stop", b"halt")):
            attacker.publish(names.control("leave"), payload)
        # As the server answers a question whose reply subject is this one.
        attacker.publish(names.control("leave"), order, headers=b"NATS/1.0\r\nNats-Stream: s\r\n\r\n")
        attacker.publish(names.control("leave.more"), order)
        attacker.publish(names.control("leave"), encode_leave(Leave("stop", ["another"], ["*", ">", ""], "somebody")))
        await attacker.done()
    run = await client.start("works", 1)
    (await system.stage.arrival("working")).answer()
    assert (await system.audit(run)).status.success == 1
    assert [each.id for each in await client.workers()] == [worker.id]
