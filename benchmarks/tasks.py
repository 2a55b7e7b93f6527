"""Tasks that do nothing, through one worker process, beside a raw pull-and-acknowledge loop."""

from __future__ import annotations

from functools import partial

from benchmarks.app import NOTHING, SPREAD
from benchmarks.figures import Figure
from benchmarks.measuring import Benchmark, Bring
from benchmarks.stage import Stage, stage
from corral import Run
from corral.events import Ended

COUNTS = {1: 4_000, 10: 20_000, 100: 40_000, 500: 50_000}
"""Tasks of one run, by slots: a second or so."""


async def measure(slots: int, count: int, repeat: int, bring: Bring) -> None:
    """Fill the queue, run the tasks, run the raw loop; again."""
    async with stage(SPREAD) as here:
        for _ in range(repeat):
            run = await here.filled(NOTHING, count)
            async with here.pool(NOTHING, slots=slots):
                await run.wait()
            ours = await rate(here, run)
            raw = await here.raw("pull", count, slots)
            bring([Figure(f"tasks through one worker, {slots} slots", ours, "/s", "raw pull and acknowledge", raw)])


async def rate(here: Stage, run: Run) -> float:
    """Tasks per second between the first and the last event that tells of ends, by the times of their storing."""
    ends: list[tuple[float, int]] = []
    async for stored in here.client.events(run.id):
        if isinstance(stored.event, Ended):
            count = sum(last - first for end in stored.event.tasks for first, last in end.ranges)
            if count:
                ends.append((stored.at, count))
    return sum(count for _, count in ends[1:]) / (ends[-1][0] - ends[0][0])


BENCHMARKS = [
    Benchmark(f"tasks-{slots}", 5, partial(measure, slots, count), partial(measure, slots, count // 5))
    for slots, count in COUNTS.items()
]
