"""What a task costs in a run of a million beside one of fifty thousand, and what the bookkeeper needs for it."""

from __future__ import annotations

import asyncio
from functools import partial

from benchmarks.app import NOTHING, SPREAD
from benchmarks.figures import Figure
from benchmarks.measuring import Benchmark, Bring
from benchmarks.stage import Stage, memory_of, stage
from benchmarks.tasks import rate

SMALL, LARGE = 50_000, 1_000_000
SLOTS = 500


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


BENCHMARKS = [Benchmark("scale", 1, partial(measure, LARGE), partial(measure, LARGE // 5), long=True)]
