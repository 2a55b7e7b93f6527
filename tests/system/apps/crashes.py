"""Processors that block, die and are killed."""

# ruff: noqa: ARG001  # a processor has a message, whether it looks at it or not

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from corral import App, Context, SyncContext
from tests.system.apps.cues import blocking_cue, cue, note


@asynccontextmanager
async def lifespan() -> AsyncIterator[None]:
    alive = asyncio.create_task(cue("alive"))
    yield
    alive.cancel()


app = App(lifespan=lifespan)


@app.processor("works")
async def works(i: int, ctx: Context) -> None:
    note(f"works {i}")
    await cue("working", i=i, attempt=ctx.attempt)


@app.processor("crowd")
async def crowd(n: int, ctx: Context) -> None:
    for i in range(n):
        await ctx.send("works", i)


@app.processor("culprit")
async def culprit(message: int, ctx: Context) -> None:
    note("culprit")
    if await cue("culprit") == "die":
        os._exit(3)


@app.processor("blocks")
async def blocks(message: int) -> None:
    blocking_cue("blocking")


@app.processor("thread")
def thread(message: int, ctx: SyncContext) -> None:
    note(f"thread, attempt {ctx.attempt}")
    blocking_cue("thread", attempt=ctx.attempt)


@app.processor("alone", isolate=True, attempts=2, backoff=0.01)
async def alone(n: int, ctx: Context) -> None:
    note(f"alone, attempt {ctx.attempt}")
    for i in range(n):
        await ctx.send("works", i)
    await cue("alone", attempt=ctx.attempt)


@app.processor("alone.thread", isolate=True)
def alone_thread(message: int) -> None:
    blocking_cue("alone in a thread")
