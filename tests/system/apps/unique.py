"""Processors with unique keys, which hold them until the test lets them go."""

# ruff: noqa: ARG001  # a processor has a message, whether it looks at it or not

from __future__ import annotations

import msgspec

from corral import App, Context, Topic
from tests.system.apps.cues import cue, note


class Entity(msgspec.Struct):
    kind: str
    id: int
    ids: list[int] = []


REINDEX = Topic("reindex", Entity)

app = App()


@app.processor(REINDEX, unique="{kind}/{id}")
async def reindex(message: Entity, ctx: Context) -> None:
    note(f"reindex {message.kind} {message.id}")
    for id in message.ids:
        await ctx.send("entity", id)
    await cue("reindexing", run=ctx.run_id)


@app.processor("entity")
async def entity(id: int) -> None:
    await cue("entity", id=id)


@app.processor("hashed", unique=lambda entity: f"hash {entity.id % 10}")
async def hashed(message: Entity) -> None:
    await cue("hashed")


@app.processor("plain")
async def plain(message: Entity) -> None:
    await cue("plain")


@app.processor("tidy", unique="{kind}")
async def tidy(message: Entity, ctx: Context) -> None:
    try:
        await cue("working", run=ctx.run_id)
    finally:
        await cue("tidying", run=ctx.run_id)
        note(f"tidied {ctx.run_id}")


class Priced(msgspec.Struct):
    price: float
    shop: str = "corner"


@app.processor("priced", unique="{shop} {price}")
async def priced(message: Priced) -> None:
    await cue("priced")


class Named(msgspec.Struct):
    name: str

    def __post_init__(self) -> None:
        self.name = self.name.lower()


@app.processor("named", unique="{name}")
async def named(message: Named) -> None:
    await cue("named")
