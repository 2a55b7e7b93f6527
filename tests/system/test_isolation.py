"""Isolated tasks run in processes of their own, which can be killed, and which nothing outlives."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corral.context import Stop, Wiring
from corral.credentials import Access
from corral.executor import Success
from corral.isolation import ChildAssignment, Isolation
from corral.settings import Settings
from tests.system.apps.alone import app
from tests.system.apps.cues import FOLDER
from tests.system.pools import System
from tests.system.stage import within


def pids(system: System, prefix: str) -> set[int]:
    return {int(line.split()[-1]) for line in system.truth() if line.startswith(prefix)}


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("topic", ["alone", "alone.async"])
async def test_an_isolated_task_has_its_own_process_state_and_fan_out(system: System, topic: str) -> None:
    await system.pool("alone")
    client = await system.client()
    audit = await system.audit(await client.start(topic, 3))
    assert (audit.status.status, audit.status.total) == ("success", 3)
    (line,) = [line for line in system.truth() if line.startswith("process")]
    process, state = line.removeprefix("process ").split(", ")
    assert state == f"state of {process}"
    assert int(process) not in {beat.pid for beat in system.beats.values()}
    assert pids(system, "lifespan") == {int(process), *(beat.pid for beat in system.beats.values())}


async def test_a_process_is_used_again(system: System) -> None:
    await system.pool("alone")
    client = await system.client()
    for _ in range(3):
        await system.audit(await client.start("alone", 0))
    assert len({line for line in system.truth() if line.startswith("process")}) == 1


async def test_the_death_of_the_process_is_a_failed_attempt(system: System) -> None:
    await system.pool("alone")
    client = await system.client()
    run = await client.start("dies", 1)
    assert (await system.audit(run)).status.error == 1
    (error,) = [error async for error in client.errors(run.id)]
    assert (error.type, error.attempt) == ("Killed", 2)
    assert "SIGKILL" in error.message
    assert system.truth()["attempt 1"] == system.truth()["attempt 2"] == 1


async def test_a_process_that_died_before_it_had_its_task_does_not_fail_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    assignment = ChildAssignment("tests.system.apps.alone", "worker", Access.of(["nats://127.0.0.1"]), Settings())
    isolation = Isolation(assignment, 1)
    processor = app.processors["alone"]
    try:
        for _ in range(2):
            assert isinstance(await isolation.execute(processor, b"0", _wiring()), Success)
            (child,) = isolation._all
            os.kill(child.process.pid, signal.SIGKILL)  # and no chance to notice it before the next task
    finally:
        await isolation.close()


def _wiring() -> Wiring[Any]:
    async def nothing(*_: Any, **__: Any) -> Any:
        raise AssertionError

    return Wiring(
        run_id="run",
        task=(0, 0),
        topic="alone",
        attempt=1,
        state=None,
        stop=Stop(),
        processors=app.processors,
        limit=1 << 20,
        send=nothing,
        start=nothing,
    )


async def test_a_time_out_ends_a_process_that_does_not_end_by_itself(system: System) -> None:
    system.set(kill_grace=0.2)
    await system.pool("alone")
    client = await system.client()
    run = await client.start("late", 1)
    assert (await system.audit(run)).status.error == 1
    (error,) = [error async for error in client.errors(run.id)]
    assert "longer than 0.2 s" in error.message


async def test_an_interrupt_kills_what_does_not_stop(system: System) -> None:
    system.set(kill_grace=0.2)
    await system.pool("alone")
    run = await (await system.client()).start("stuck", 1)
    await system.stage.arrival("stuck")
    receipt = await within(run.interrupt(wait=True), "the receipt")
    assert receipt is not None
    assert (receipt.killed, receipt.stopped, receipt.removed) == (1, 0, 0)
    (pid,) = pids(system, "stuck in")
    assert gone(pid)


async def test_an_interrupt_lets_an_isolated_coroutine_clean_up(system: System) -> None:
    await system.pool("alone")
    run = await (await system.client()).start("obeys", 1)
    await system.stage.arrival("obeys")
    receipt = await within(run.interrupt(wait=True), "the receipt")
    assert receipt is not None
    assert (receipt.killed, receipt.stopped) == (0, 1)
    assert system.truth()["cleaned up"] == 1


@pytest.mark.parametrize("end", ["kill", "drain"])
async def test_no_process_outlives_its_pool(system: System, end: str) -> None:
    system.set(drain_timeout=0.2, kill_grace=0.2)
    pool = await system.pool("alone")
    await (await system.client()).start("stuck", 1)
    stuck = await system.stage.arrival("stuck")
    actions: dict[str, Callable[[], None]] = {"kill": pool.kill, "drain": pool.drain}
    actions[end]()
    await pool.ended()
    await stuck.gone()
