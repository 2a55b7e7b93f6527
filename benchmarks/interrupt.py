"""How long it takes to stop a run of which much is queued and 500 tasks run on two workers."""

from __future__ import annotations

from functools import partial

from benchmarks.app import HOLD, SPREAD
from benchmarks.figures import Figure
from benchmarks.measuring import Benchmark, Bring
from benchmarks.moments import now
from benchmarks.stage import Stage, stage

RUNNING = 500


async def measure(queued: int, repeat: int, bring: Bring) -> None:
    """Fill the queue, let tasks begin, interrupt; again."""
    async with stage(SPREAD) as here:
        for _ in range(repeat):
            last, final = await _once(here, queued)
            raw = await here.raw("purge", queued) * 1000
            what = f"interrupt, {queued:,} queued"
            bring(
                [
                    Figure(f"{what}: last task cancelled", last, "ms", "raw purge of as many", raw),
                    Figure(f"{what}: final record", final, "ms", "raw purge of as many", raw),
                ]
            )


async def _once(here: Stage, queued: int) -> tuple[float, float]:
    """Milliseconds from the order to the last cancelled task, and to the final record."""
    here.moments.clear()
    run = await here.filled(HOLD, queued + RUNNING)
    async with here.pool(HOLD, slots=RUNNING // 2, workers=2):
        await here.moments.reached("begun", RUNNING)
        began = now()
        await run.interrupt(wait=True)
        ended = now()
        stopped = await here.moments.reached("stopped", RUNNING)
    return (max(stopped) - began) / 1e6, (ended - began) / 1e6


BENCHMARKS = [
    Benchmark("interrupt-2k", 3, partial(measure, 2_000), partial(measure, 2_000)),
    Benchmark("interrupt-200k", 2, partial(measure, 200_000), partial(measure, 50_000)),
]
