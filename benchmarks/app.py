"""The processors that are measured."""

from __future__ import annotations

import asyncio

import msgspec

from benchmarks.moments import note
from corral import App, Context, Topic


class Spread(msgspec.Struct, frozen=True):
    """Send `count` items to a topic."""

    topic: str
    count: int


class Item(msgspec.Struct, frozen=True):
    """What is processed; `id` is its number."""

    id: int


SPREAD = Topic("spread", Spread)
NOTHING = Topic("nothing", Item)
PAUSE = Topic("pause", Item)
NOTED = Topic("noted", Item)
HOLD = Topic("hold", Item)
FAILING = Topic("failing", Item)
UNSERVED = Topic("unserved", Item)

app = App()


@app.processor(SPREAD)
async def spread(message: Spread, ctx: Context[None]) -> None:
    """Fan out."""
    for id in range(message.count):
        await ctx.send(message.topic, Item(id))


@app.processor(NOTHING)
async def nothing(_: Item) -> None:
    """Do nothing."""


@app.processor(FAILING)
async def failing(item: Item) -> None:
    """Fail, each with a message of its own."""
    raise LookupError(f"no row {item.id}")


@app.processor(PAUSE)
async def pause(_: Item) -> None:
    """Take a while."""
    await asyncio.sleep(0.02)


@app.processor(NOTED)
async def noted(_: Item) -> None:
    """Note when it began."""
    note("begun")


@app.processor(HOLD)
async def hold(_: Item) -> None:
    """Run until it is cancelled, and note when that was."""
    note("begun")
    try:
        await asyncio.Event().wait()
    finally:
        note("stopped")
