"""Processors for queues that are full: those that send much, and those that take it away."""

# ruff: noqa: ARG001  # a processor has a message, whether it looks at it or not

from __future__ import annotations

import msgspec

from corral import App, Context, SyncContext
from tests.system.apps.cues import blocking_cue, cue, note


class Spread(msgspec.Struct):
    n: int
    topic: str = "item"
    hold: int | None = None
    """Before it sends this one, the dispatcher waits for the test."""
    padding: str = ""


class Item(msgspec.Struct):
    i: int
    padding: str = ""


app = App()


@app.processor("spread")
async def spread(message: Spread, ctx: Context) -> None:
    for i in range(message.n):
        if i == message.hold:
            await cue("spreading", run=ctx.run_id)
        await ctx.send(message.topic, Item(i, message.padding))
    note(f"spread {ctx.run_id}")


@app.processor("spread.thread")
def spread_thread(message: Spread, ctx: SyncContext) -> None:
    for i in range(message.n):
        ctx.send(message.topic, Item(i, message.padding))
    note(f"spread {ctx.run_id}")


@app.processor("spread.alone", isolate=True)
def spread_alone(message: Spread, ctx: SyncContext) -> None:
    for i in range(message.n):
        ctx.send(message.topic, Item(i, message.padding))
    note(f"spread {ctx.run_id}")


@app.processor("item")
async def item(message: Item, ctx: Context) -> None:
    note(f"{ctx.run_id} {message.i}")


@app.processor("item.thread")
def item_thread(message: Item, ctx: SyncContext) -> None:
    note(f"{ctx.run_id} {message.i}")


@app.processor("item.alone", isolate=True)
def item_alone(message: Item, ctx: SyncContext) -> None:
    note(f"{ctx.run_id} {message.i}")


@app.processor("item.waits", attempts=2, backoff=3.0)
async def item_waits(message: Item, ctx: Context) -> None:
    if await cue("item", run=ctx.run_id, attempt=ctx.attempt) == "fail":
        raise ValueError("not yet")


@app.processor("quick.thread", timeout=1.0)
def quick_thread(message: Item, ctx: SyncContext) -> None:
    """Takes no time, if it gets a thread."""
    note(f"{ctx.run_id} {message.i}")
    ctx.check()


@app.processor("slow.thread")
def slow_thread(message: Item) -> None:
    blocking_cue("slow thread", i=message.i)
