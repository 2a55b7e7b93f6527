"""Runs of a single task, many at once, from their start to their final record."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from benchmarks.app import NOTHING, Item
from benchmarks.child import DEADLINE
from benchmarks.figures import Figure
from benchmarks.measuring import Benchmark, Bring
from benchmarks.stage import Stage, stage

FLIGHT = 200
"""Starts that are under way at once."""


async def measure(count: int, repeat: int, bring: Bring) -> None:
    """Start runs as fast as it goes, and watch until all have ended."""
    async with stage(NOTHING, slots=500) as here:
        for _ in range(repeat):
            ours = await _rate(here, count)
            raw = await here.raw("store", count, FLIGHT)
            bring(
                [Figure("single-task runs, start to final record", ours, "/s", f"raw stores, {FLIGHT} in flight", raw)]
            )


async def _rate(here: Stage, count: int) -> float:
    started: set[str] = set()
    ended: set[str] = set()
    numbers = iter(range(count))

    async def start_some() -> None:
        for number in numbers:
            started.add((await here.client.start(NOTHING, Item(number))).id)

    async def watch() -> None:
        async for batch in here.client.read_records():
            ended.update(id for id, record in batch if record is not None and record.state == "final")
            if len(started) == count and started <= ended:
                return

    began = time.perf_counter()
    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
        group.create_task(watch())
        for _ in range(FLIGHT):
            group.create_task(start_some())
    return count / (time.perf_counter() - began)


BENCHMARKS = [Benchmark("runs", 3, partial(measure, 4_000), partial(measure, 1_000))]
