"""How long it takes from a start to the first line of the processor, when nothing else goes on."""

from __future__ import annotations

import statistics
from functools import partial

from benchmarks.app import NOTED, Item
from benchmarks.figures import Figure
from benchmarks.measuring import Benchmark, Bring
from benchmarks.moments import now
from benchmarks.stage import Stage, stage

SUBJECT = "benchmark.heard"


async def measure(count: int, repeat: int, bring: Bring) -> None:
    """Start run after run, and publish message after message."""
    async with stage(NOTED) as here, here.raw_listener(SUBJECT):
        await _starts(here, 10)  # imports, and whatever else happens once
        for _ in range(repeat):
            ours, bare = await _starts(here, count), await _publishes(here, count)
            what, beside = "start to the first line of the processor", "bare publish to callback"
            bring(
                [
                    Figure(f"{what}, {name}", share(ours), "ms", f"{beside}, {name}", share(bare))
                    for name, share in SHARES
                ]
            )


async def _starts(here: Stage, count: int) -> list[float]:
    """Milliseconds of each of `count` starts, one after the other has ended."""
    began = []
    here.moments.clear()
    for number in range(count):
        began.append(now())
        run = await here.client.start(NOTED, Item(number))
        await run.wait()
    return [(there - here) / 1e6 for here, there in zip(began, here.moments.of("begun"), strict=True)]


async def _publishes(here: Stage, count: int) -> list[float]:
    began = []
    here.moments.clear()
    for _ in range(count):
        began.append(now())
        await here.client.connection.publish(SUBJECT, b"{}")
        await here.moments.reached("heard", len(began))
    return [(there - here) / 1e6 for here, there in zip(began, here.moments.of("heard"), strict=True)]


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


SHARES = (("p50", statistics.median), ("p99", _p99))
BENCHMARKS = [Benchmark("start", 3, partial(measure, 200), partial(measure, 50))]
