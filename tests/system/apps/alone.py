"""Processors that need a process of their own, or should have one."""

# ruff: noqa: ARG001  # a processor has a message, whether it looks at it or not

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from corral import App, Context, SyncContext
from tests.system.apps.cues import blocking_cue, cue, note


@asynccontextmanager
async def lifespan() -> AsyncIterator[str]:
    note(f"lifespan of {os.getpid()}")
    yield f"state of {os.getpid()}"


app = App(lifespan=lifespan)


@app.processor("alone", isolate=True)
def alone(message: int, ctx: SyncContext) -> None:
    note(f"process {os.getpid()}, {ctx.state}")
    for i in range(message):
        ctx.send("leaf", i)


@app.processor("alone.async", isolate=True)
async def alone_async(message: int, ctx: Context) -> None:
    note(f"process {os.getpid()}, {ctx.state}")
    for i in range(message):
        await ctx.send("leaf", i)


@app.processor("dies", isolate=True, attempts=2, backoff=0.0)
def dies(message: int, ctx: SyncContext) -> None:
    note(f"attempt {ctx.attempt}")
    os.kill(os.getpid(), signal.SIGKILL)


@app.processor("stuck", isolate=True)
def stuck(message: int, ctx: SyncContext) -> None:
    note(f"stuck in {os.getpid()}")
    blocking_cue("stuck")
    signal.pause()


@app.processor("late", isolate=True, timeout=0.2)
def late(message: int) -> None:
    signal.pause()


@app.processor("obeys", isolate=True)
async def obeys(message: int) -> None:
    try:
        await cue("obeys")
        await asyncio.Event().wait()
    finally:
        note("cleaned up")


@app.processor("leaf")
async def leaf(i: int) -> None:
    note(f"leaf {i}")


@app.processor("blocks")
async def blocks(message: int) -> None:
    """Blocks the loop of its worker, until the test lets it go on."""
    note("blocks")
    blocking_cue("blocks")


@app.processor("bystander")
async def bystander(message: int) -> None:
    note("bystander")
    await cue("bystander")
