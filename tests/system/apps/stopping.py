"""Processors that are interrupted at every step."""

# ruff: noqa: ARG001  # a processor has a message, whether it looks at it or not

from __future__ import annotations

import asyncio

import msgspec

from corral import App, Context, SyncContext
from tests.system.apps.cues import blocking_cue, cue, note


class Crowd(msgspec.Struct):
    n: int
    topic: str = "member"
    hold: int | None = None
    """Before it sends this one, the dispatcher waits for the test."""


app = App()


@app.processor("crowd")
async def crowd(message: Crowd, ctx: Context) -> None:
    for i in range(message.n):
        if i == message.hold:
            await cue("holding")
        await ctx.send(message.topic, i)
    note(f"sent {message.n}")


@app.processor("crowd.thread")
def crowd_thread(message: Crowd, ctx: SyncContext) -> None:
    for i in range(message.n):
        if i == message.hold:
            blocking_cue("holding")
        ctx.send(message.topic, i)
    note(f"sent {message.n}")


@app.processor("nested")
async def nested(message: Crowd, ctx: Context) -> None:
    for _ in range(message.n):
        await ctx.send("crowd", message)


@app.processor("member")
async def member(i: int, ctx: Context) -> None:
    note(f"member {i}")
    await cue("member", i=i)


@app.processor("quick")
async def quick(i: int) -> None:
    note(f"quick {i}")


@app.processor("hang")
async def hang(message: int) -> None:
    note("hangs")
    await cue("about to hang")
    await asyncio.Event().wait()


@app.processor("deaf")
async def deaf(message: int) -> None:
    """Is cancelled, and returns as if nothing had been."""
    try:
        await cue("deaf")
    except asyncio.CancelledError:
        note("cancelled")


@app.processor("fails")
async def fails(message: int) -> None:
    """Fails while it is being cancelled."""
    try:
        await cue("fails")
    finally:
        raise ValueError("the clean-up failed")


@app.processor("blocks")
async def blocks(message: int) -> None:
    """Holds the loop of its worker, and looks at nothing."""
    blocking_cue("blocks")
    note("the loop was let go")


@app.processor("thread")
def thread(message: int, ctx: SyncContext) -> None:
    blocking_cue("thread")
    ctx.check()
    note("checked")
    blocking_cue("thread goes on")
    note("the thread has returned")


@app.processor("asks", attempts=2, backoff=10.0)
def asks(message: int, ctx: SyncContext) -> None:
    if blocking_cue("asks", run=ctx.run_id) == "fail":
        raise ValueError("not yet")


@app.processor("backs.off", attempts=2, backoff=3600.0)
async def backs_off(message: int) -> None:
    raise ValueError("later")
