"""One processor sends ids to two others.

In one terminal the workers and the dashboard, in another a run and what became of it:

    corral up examples/entities.py
    corral start entities '{"ids": [1, 2, 3, 5, 8, -13]}' --wait
    corral show last
"""

import asyncio

import msgspec

from corral import App, Context, Reject, Topic


class Entities(msgspec.Struct):
    ids: list[int]


class Entity(msgspec.Struct):
    id: int


ENTITIES = Topic("entities", Entities)
INDEX = Topic("entity.index", Entity)
NOTIFY = Topic("entity.notify", Entity)

app = App()


@app.processor(ENTITIES)
async def entities(message: Entities, ctx: Context) -> None:
    if not message.ids:
        raise Reject("no ids")
    for id in message.ids:
        await ctx.send(INDEX, Entity(id))
        await ctx.send(NOTIFY, Entity(id))


@app.processor(INDEX, attempts=3)
async def index(message: Entity) -> None:
    await asyncio.sleep(0.01)


@app.processor(NOTIFY)
def notify(message: Entity) -> None:
    if message.id < 0:
        raise Reject(f"nobody to notify about {message.id}")
