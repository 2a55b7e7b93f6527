"""Processors that end in every way, and what they see of their task."""

# ruff: noqa: ARG001  # a processor has a message, whether it looks at it or not

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

import msgspec

from corral import App, Context, Reject, Requeue, SyncContext
from tests.system.apps.cues import cue, note

COLOUR: ContextVar[str] = ContextVar("COLOUR", default="none")


class State:
    """What the lifespan makes."""

    def __init__(self) -> None:
        self.tasks = 0


@asynccontextmanager
async def lifespan() -> AsyncIterator[State]:
    note("entered")
    yield State()
    note("left")


app = App(lifespan=lifespan)


class Typed(msgspec.Struct):
    n: int
    colour: str = "red"


class Fails(msgspec.Struct):
    times: int


@app.processor("typed")
async def typed(message: Typed) -> None:
    note(f"typed {message.n}")


@app.processor("reject", attempts=5)
async def reject(message: Typed, ctx: Context[State]) -> None:
    note("rejected")
    raise Reject("no ids")


@app.processor("flaky", attempts=3, backoff=0.01)
async def flaky(message: Fails, ctx: Context[State]) -> None:
    note(f"{ctx.task} attempt {ctx.attempt}")
    if ctx.attempt <= message.times:
        raise ValueError(f"attempt {ctx.attempt} of {message.times + 1}")


@app.processor("flaky.thread", attempts=3, backoff=lambda attempt: attempt / 100)
def flaky_thread(message: Fails, ctx: SyncContext[State]) -> None:
    note(f"{ctx.task} attempt {ctx.attempt}")
    if ctx.attempt <= message.times:
        raise ValueError(f"attempt {ctx.attempt}")


@app.processor("dispatch.flaky", attempts=2, backoff=0.01)
async def dispatch_flaky(message: Fails, ctx: Context[State]) -> None:
    for n in range(10 if ctx.attempt == 1 else 7):
        await ctx.send(typed, Typed(n))
    if ctx.attempt <= message.times:
        raise ValueError("not all was sent")


@app.processor("requeue", attempts=1)
async def requeue(message: Typed, ctx: Context[State]) -> None:
    note(f"attempt {ctx.attempt}")
    if await cue("requeue?") == "again":
        raise Requeue(0.01)


@app.processor("late", attempts=2, backoff=0.01, timeout=0.2)
async def late(message: Typed, ctx: Context[State]) -> None:
    note(f"attempt {ctx.attempt}")
    await asyncio.Event().wait()


@app.processor("late.thread", timeout=0.2)
def late_thread(message: Typed, ctx: SyncContext[State]) -> None:
    while True:  # work in small steps
        time.sleep(0.005)
        ctx.check()


@app.processor("big")
async def big(size: int, ctx: Context[State]) -> None:
    await ctx.send("typed", "x" * size)


@app.processor("loud")
async def loud(message: str) -> None:
    raise ValueError("\0\N{DUCK}" * 100_000)


@app.processor("state")
async def state(message: Typed, ctx: Context[State]) -> None:
    ctx.state.tasks += 1
    note(f"state {ctx.state.tasks}")


@app.processor("colours")
async def colours(message: list[str], ctx: Context[State]) -> None:
    for colour in message:
        await ctx.send("colour", Typed(0, colour))
        await ctx.send("colour.thread", Typed(0, colour))


@app.processor("colour")
async def colour(message: Typed) -> None:
    note(f"saw {COLOUR.get()}")
    COLOUR.set(message.colour)
    await cue("coloured")
    note(f"kept {COLOUR.get() == message.colour}")


@app.processor("colour.thread")
def colour_thread(message: Typed) -> None:
    note(f"saw {COLOUR.get()}")
    COLOUR.set(message.colour)


@app.processor("thread.dispatch")
def thread_dispatch(n: int, ctx: SyncContext[State]) -> None:
    for number in range(n):
        ctx.send(typed, Typed(number))
    run = ctx.start(typed, Typed(n))
    note(f"started {run.id}")


@app.processor("parent")
async def parent(n: int, ctx: Context[State]) -> None:
    for number in range(n):
        run = await ctx.start("typed", Typed(number))
        note(f"started {run.id}")
    await cue("started them")
