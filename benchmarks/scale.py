"""What the bookkeeper needs for a run of a million tasks, and for ten thousand runs at once; and how fast they are.

And how long it takes until another one goes on when it is killed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from functools import partial

from benchmarks.app import NOTHING, SPREAD, Spread
from benchmarks.child import DEADLINE
from benchmarks.figures import Figure
from benchmarks.measuring import Benchmark, Bring
from benchmarks.stage import Stage, memory_of, stage
from benchmarks.tasks import rate
from corral.checkpoint_reading import decode_anchor
from corral.subjects import LEDGER_ANCHOR_KEY

SMALL, LARGE = 50_000, 1_000_000
SLOTS = 500
FLIGHT = 200


async def measure(large: int, repeat: int, bring: Bring) -> None:
    """A small run, then a large one, through one worker; the pool that fills the queue is the bookkeeper."""
    async with stage(SPREAD) as here:
        for _ in range(repeat):
            small, _ = await _cost(here, SMALL)
            cost, grown = await _cost(here, large)
            bring(
                [
                    Figure(f"a task in a run of {large:,}", cost, "us", f"in a run of {SMALL:,}", small),
                    Figure(f"the bookkeeper grows for {large:,} by", grown, "MB"),
                ]
            )


async def _cost(here: Stage, count: int) -> tuple[float, float]:
    """Microseconds a task, and megabytes by which the bookkeeper has grown at most."""
    before = most = memory_of(here.bookkeeper)
    run = await here.filled(NOTHING, count)
    async with here.pool(NOTHING, slots=SLOTS):
        waiting = asyncio.create_task(run.wait())
        while not waiting.done():
            most = max(most, memory_of(here.bookkeeper))
            await asyncio.wait({waiting}, timeout=0.2)
    return 1e6 / await rate(here, run), most - before


async def measure_many(count: int, repeat: int, bring: Bring) -> None:
    """Many runs at once: each has sent one task that nobody serves yet; then somebody does."""
    async with stage(SPREAD, slots=SLOTS) as here:
        for _ in range(repeat):
            before = memory_of(here.bookkeeper)
            began = time.perf_counter()
            running = await _started(here, count)
            begun = count / (time.perf_counter() - began)
            grown = memory_of(here.bookkeeper) - before
            began = time.perf_counter()
            async with here.pool(NOTHING, slots=SLOTS):
                await _until(here, running, "final")
            ended = count / (time.perf_counter() - began)
            what = f"{count:,} runs at once"
            bring(
                [
                    Figure(f"{what}: started and under way", begun, "/s"),
                    Figure(f"{what}: their end, each with a last task", ended, "/s"),
                    Figure(f"{what}: the bookkeeper grows by", grown, "MB"),
                ]
            )


async def measure_failover(count: int, repeat: int, bring: Bring) -> None:
    """The bookkeeper is killed with so many runs live, and with none."""
    for _ in range(repeat):
        alone, _ = await _failover(0)
        crowded, held = await _failover(count)
        what = f"the bookkeeper is killed with {count:,} runs live"
        bring(
            [
                Figure(f"{what}: until a new run has ended", crowded, "ms", "with none live", alone),
                Figure(f"{what}: its successor holds at most", held, "MB"),
            ]
        )


async def _failover(count: int) -> tuple[float, float]:
    """Milliseconds until a run that is started then has ended, and megabytes of who takes over."""
    async with stage(SPREAD, slots=SLOTS) as here:
        if count:
            await _started(here, count)
        await _folded(here)
        async with here.pool(SPREAD) as successor:
            os.kill(here.bookkeeper, signal.SIGKILL)
            began = time.perf_counter()
            run = await here.client.start(SPREAD, Spread(NOTHING.name, 0))
            ended, held = asyncio.ensure_future(run.wait()), 0.0
            while not ended.done():
                held = max(held, memory_of(successor))
                await asyncio.wait({ended}, timeout=0.1)
            if ended.result().status != "success":
                raise RuntimeError(f"it has ended otherwise: {ended.result()}")
            return 1e3 * (time.perf_counter() - began), held


async def _folded(here: Stage) -> None:
    """Return when a checkpoint holds what is stored now."""
    run = await here.client.start(SPREAD, Spread(NOTHING.name, 0))
    end = (await run.wait()).seq
    async with asyncio.timeout(DEADLINE):
        async for batch in here.client.operations.records.watch(LEDGER_ANCHOR_KEY):
            if decode_anchor(batch[-1].data).sequence >= end:
                return


async def _started(here: Stage, count: int) -> set[str]:
    """Runs whose root has ended, and whose one task waits."""
    started: set[str] = set()
    numbers = iter(range(count))

    async def start_some() -> None:
        for _ in numbers:
            started.add((await here.client.start(SPREAD, Spread(NOTHING.name, 1))).id)

    async with asyncio.TaskGroup() as group:
        for _ in range(FLIGHT):
            group.create_task(start_some())
    await _until(here, started, "running")
    return started


async def _until(here: Stage, runs: set[str], state: str) -> None:
    """Return when all these runs have records in this state, with a root that has ended well."""
    missing = set(runs)
    async with asyncio.timeout(DEADLINE):
        async for batch in here.client.read_records():
            for id, record in batch:
                if record is not None and record.state == state and record.root == "success":
                    missing.discard(id)
            if not missing:
                return


BENCHMARKS = [
    Benchmark("scale", 1, partial(measure, LARGE), partial(measure, LARGE // 5), long=True),
    Benchmark("runs-10k", 1, partial(measure_many, 10_000), partial(measure_many, 500), long=True),
    Benchmark("failover", 1, partial(measure_failover, 20_000), partial(measure_failover, 500), long=True),
]
