"""A fan-out while nothing consumes, beside raw publishing with acknowledgements."""

from __future__ import annotations

from functools import partial

from benchmarks.app import SPREAD, UNSERVED
from benchmarks.figures import Figure
from benchmarks.measuring import Benchmark, Bring
from benchmarks.stage import Stage, growth, stage
from corral import Run
from corral.events import Opened, Sent

MILLION = 1_000_000


async def measure(count: int, repeat: int, bring: Bring) -> None:
    """Send from a processor to a topic that nobody serves, then remove it all; and again."""
    async with stage(SPREAD) as here:
        for _ in range(repeat):
            figures = await _once(here, count)
            bring(figures)


async def _once(here: Stage, count: int) -> list[Figure]:
    (worker,) = await here.client.workers()
    run, grown = await growth(worker.pid, here.filled(UNSERVED, count))
    ours = await _rate(here, run)
    await run.interrupt(wait=True)
    raw = await here.raw("publish", count, here.settings.window)
    sent = f"fan-out of {count:,}"
    figures = [Figure(f"{sent}, nothing consuming", ours, "/s", "raw publish and acknowledge", raw)]
    if count >= MILLION:
        figures.append(Figure(f"{sent}: the worker grows at most by", grown, "MB"))
    return figures


async def _rate(here: Stage, run: Run) -> float:
    """Messages per second from the opening to the last confirmed window, by the times of their storing."""
    times, count = [], 0
    async for stored in here.client.events(run.id):
        if isinstance(stored.event, Opened | Sent):
            times.append(stored.at)
        if isinstance(stored.event, Sent):
            count = stored.event.count
    return count / (times[-1] - times[0])


BENCHMARKS = [
    Benchmark("fan-out", 5, partial(measure, 100_000), partial(measure, 20_000)),
    Benchmark("fan-out-1m", 1, partial(measure, MILLION), partial(measure, MILLION), long=True),
]
