"""A producer that is faster than the workers, for an hour: what all of them hold, and whether everything adds up."""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial

from benchmarks.app import PAUSE, SPREAD, Spread
from benchmarks.figures import Figure
from benchmarks.measuring import Benchmark, Bring
from benchmarks.stage import Held, Stage, stage
from corral import Run, StorageFull
from corral.settings import Settings

HOUR = 3600.0
EACH = 50
"""Tasks that a run sends."""
SLOTS = 10
ROOM = 2_000_000
"""Bytes that the queue may have: some 10,000 messages."""
AGAIN = 0.05
"""Seconds until a start that was refused is tried again."""
LOOK = 5.0
"""Seconds between two looks at what the processes hold."""
DRAINED = 1200.0
"""Seconds within which what is queued must be worked off."""


async def measure(seconds: float, repeat: int, bring: Bring) -> None:
    """Start runs until the queue is full, and go on at once when it is not; at last everything is worked off."""
    async with stage(SPREAD, PAUSE, slots=SLOTS, settings=Settings(tasks_max_bytes=ROOM)) as here:
        for _ in range(repeat):
            bring(await _pressed(here, seconds))


async def _pressed(here: Stage, seconds: float) -> list[Figure]:
    (worker,) = await here.client.workers()
    held = Held(
        {
            "the producer": os.getpid(),
            "the pool with the bookkeeper": here.bookkeeper,
            "the worker": worker.pid,
            "the server": here.server,
        }
    )
    async with held.watched(LOOK):
        began = time.perf_counter()
        started, refused = await _produce(here, seconds)
        pressed = time.perf_counter() - began
        await _drained(here, started)
        drained = time.perf_counter() - began - pressed
    await _adds_up(here, started)
    return [
        Figure("runs started", len(started) / pressed, "/s", "starts refused", refused / pressed),
        Figure("tasks executed", len(started) * (EACH + 1) / (pressed + drained), "/s"),
        *held.figures(10, "tenth"),
        Figure("from the last start to the last end", 1000 * drained, "ms"),
    ]


async def _produce(here: Stage, seconds: float) -> tuple[list[Run], int]:
    """The runs that were started, and how many starts were refused."""
    started: list[Run] = []
    refused = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            started.append(await here.client.start(SPREAD, Spread(PAUSE.name, EACH)))
        except StorageFull:
            refused += 1
            await asyncio.sleep(AGAIN)
    return started, refused


async def _drained(here: Stage, started: list[Run]) -> None:
    """Return when all have ended."""
    missing = {run.id for run in started}
    async with asyncio.timeout(DRAINED):
        async for batch in here.client.read_records():
            missing.difference_update(id for id, record in batch if record is not None and record.state == "final")
            if not missing:
                return


async def _adds_up(here: Stage, started: list[Run]) -> None:
    """Complain of a run that did not do all that it sent, and of a message that is left over."""
    for run in started:
        status = await run.status()
        if (status.total, status.success, status.root) != (EACH, EACH, "success"):
            raise RuntimeError(f"run {run.id} was to execute {EACH} tasks: {status}")
    left = sum(topic.pending + topic.running for topic in await here.client.topics())
    if left:
        raise RuntimeError(f"{left} messages are left over")


BENCHMARKS = [Benchmark("pressure", 1, partial(measure, HOUR), partial(measure, 20.0), long=True)]
