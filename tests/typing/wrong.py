"""What does not type-check. Each line that must be refused ends with the error's code."""

import msgspec

from corral import App, Client, Context, SyncClient, Topic


class Order(msgspec.Struct):
    id: int


ORDER = Topic("order", Order)
app = App()


@app.processor(ORDER, attempts="three")  # refused: call-overload
async def bad_option(message: Order) -> None: ...


@app.processor(ORDER)  # refused: arg-type
async def other_message(message: str) -> None: ...


@app.processor(ORDER)
async def order(message: Order, ctx: Context) -> None:
    await ctx.send(ORDER, "text")  # refused: misc
    await ctx.send(7, message)  # refused: arg-type
    ctx.attempts()  # refused: attr-defined
    message.number  # refused: attr-defined  # noqa: B018


async def use(client: Client) -> None:
    await client.start(ORDER, {"id": 1})  # refused: misc
    await client.start(order, "text")  # refused: misc
    await client.start(ORDER, Order("one"))  # refused: arg-type
    await client.start(ORDER, Order(1), on_duplicate="replaced")  # refused: arg-type
    (await client.run("x").status()).totals  # refused: attr-defined  # noqa: B018


def use_blocking(client: SyncClient) -> None:
    client.start(ORDER, "text")  # refused: misc
    client.run("x").abort()  # refused: attr-defined
