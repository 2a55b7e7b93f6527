"""What type-checks: the public API as users write it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from corral import App, Client, Context, Run, SyncClient, SyncContext, Topic


class Order(msgspec.Struct):
    id: int
    lines: list[str]


class State:
    rate = 2.0


ORDER = Topic("order", Order)
LINE = Topic("order.line", str)


@asynccontextmanager
async def lifespan() -> AsyncIterator[State]:
    yield State()


app = App(lifespan=lifespan)


@app.processor(ORDER, unique="order/{id}")
async def order(message: Order, ctx: Context[State]) -> None:
    for line in message.lines:
        await ctx.send(LINE, line)
    await ctx.send("anything", {"rate": ctx.state.rate})


@app.processor(LINE, attempts=3, backoff=lambda attempt: 2.0**attempt)
def line(message: str, ctx: SyncContext[State]) -> None:
    ctx.send(LINE, message)


@app.processor("plain")
async def plain(message: dict[str, int]) -> None: ...


async def use() -> None:
    async with Client() as client:
        run: Run = await client.start(order, Order(1, []))
        await client.start(ORDER, Order(2, []), on_duplicate="join")
        await client.start("order", {"id": 3, "lines": []})
        count: int = (await run.status()).total
        await order(Order(count, []), NotImplemented)


def use_blocking() -> None:
    with SyncClient() as client:
        done: str = client.start(order, Order(1, [])).wait().status
        del done
