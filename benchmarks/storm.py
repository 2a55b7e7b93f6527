"""A million tasks that all fail; a hundred thousand runs, some hundreds at once: what everybody holds, and the disk."""

from __future__ import annotations

import asyncio
import sys
import time
from functools import partial

from benchmarks.app import FAILING, NOTHING, SPREAD, Item
from benchmarks.child import DEADLINE
from benchmarks.dashboard import terminal
from benchmarks.figures import Figure
from benchmarks.measuring import Benchmark, Bring
from benchmarks.stage import Held, Stage, stage
from corral.jetstream.topology import room

ERRORS, RUNS = 1_000_000, 100_000
SLOTS = 200
LIVE = 500
"""Runs that are live at once."""
FLIGHT = 100
"""Starts that are under way at once."""
WORKERS = 2
LOOK = 1.0
"""Seconds between two looks at what the processes hold."""


async def measure_errors(count: int, repeat: int, bring: Bring) -> None:
    """A run of tasks of which each ends as error, with a dashboard that is open on it."""
    async with stage(SPREAD) as here:
        for _ in range(repeat):
            run = await here.filled(FAILING, count)
            before = (await room(here.client.connection, here.client.operations.names))["corral_EVENTS"][0]
            async with here.pool(FAILING, slots=SLOTS, workers=WORKERS) as pool:
                environment = {"NATS_URL": here.url}
                with terminal(
                    sys.executable, "-m", "corral", "tui", "--run", run.id, environment=environment
                ) as screen:
                    held = await _held(here, FAILING.name, pool, screen.program.pid)
                    async with held.watched(LOOK):
                        began = time.perf_counter()
                        ended = await run.wait()
                        took = time.perf_counter() - began
            stored = (await room(here.client.connection, here.client.operations.names))["corral_EVENTS"][0] - before
            if (ended.total, ended.error) != (count, count):
                raise RuntimeError(f"not all have failed: {ended}")
            bring(
                [
                    Figure(f"{count:,} tasks that fail", count / took, "/s"),
                    Figure("their events take", stored / 1e6, "MB"),
                    *held.figures(2, "half"),
                ]
            )


async def measure_runs(count: int, repeat: int, bring: Bring) -> None:
    """Runs of one task each, `LIVE` of them at once, with a dashboard that shows them."""
    async with stage(SPREAD) as here, here.pool(NOTHING, slots=SLOTS, workers=WORKERS) as pool:
        for _ in range(repeat):
            with terminal(sys.executable, "-m", "corral", "tui", environment={"NATS_URL": here.url}) as screen:
                held = await _held(here, NOTHING.name, pool, screen.program.pid)
                async with held.watched(LOOK):
                    began = time.perf_counter()
                    await _run_all(here, count)
                    took = time.perf_counter() - began
            bring([Figure(f"{count:,} runs of one task", count / took, "/s"), *held.figures(2, "half")])


async def _held(here: Stage, topic: str, pool: int, dashboard: int) -> Held:
    workers = [worker.pid for worker in await here.client.workers() if topic in worker.topics]
    return Held(
        {
            "the bookkeeper": here.bookkeeper,
            "the server": here.server,
            **{f"worker {number}": pid for number, pid in enumerate(workers, 1)},
            "the pool": pool,
            "the dashboard": dashboard,
        }
    )


async def _run_all(here: Stage, count: int) -> None:
    """Start so many runs, each when one of those before has ended, and return when all have."""
    started: set[str] = set()
    ended: set[str] = set()
    numbers = iter(range(count))
    places = asyncio.Semaphore(LIVE)

    async def start_some() -> None:
        for number in numbers:
            await places.acquire()
            started.add((await here.client.start(NOTHING, Item(number))).id)

    async def follow() -> None:
        async for batch in here.client.read_records():
            for id, record in batch:
                if record is not None and record.state == "final" and id not in ended:
                    ended.add(id)
                    places.release()
            if len(started) == count and started <= ended:
                return

    async with asyncio.timeout(DEADLINE + count / 100), asyncio.TaskGroup() as group:
        group.create_task(follow())
        for _ in range(FLIGHT):
            group.create_task(start_some())


BENCHMARKS = [
    Benchmark("storm", 1, partial(measure_errors, ERRORS), partial(measure_errors, 5_000), long=True),
    Benchmark("runs-100k", 1, partial(measure_runs, RUNS), partial(measure_runs, 500), long=True),
]
