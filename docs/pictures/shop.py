"""The app of the pictures: products are indexed; some have no price, one supplier is slow, and one does not answer."""

from __future__ import annotations

import asyncio

from corral import App, Context, Topic

ENTITY = Topic("reindex.entity", int)
app = App()
PRICES = {"EUR": 1.0, "USD": 1.1}


class SupplierDown(Exception):
    """Comes and goes."""


@app.processor("reindex", unique="{shop}")
async def reindex(message: dict[str, object], ctx: Context[None]) -> None:
    """Send every product of the shop."""
    products = message["products"]
    assert isinstance(products, int)
    for number in range(products):
        await ctx.send(ENTITY, number)


@app.processor(ENTITY, attempts=2, backoff=3.0)
async def reindex_entity(number: int, ctx: Context[None]) -> None:
    """Index one product."""
    currency = "EUR" if number % 1_777 else "GBP"
    await asyncio.sleep(90 if number % 9_001 == 9_000 else 0.02)
    if number % 1_303 == 700 and ctx.attempt < 1 + number % 2 + 1:
        raise SupplierDown(f"no answer for product {number}")
    ctx.log.debug("priced", extra={"price": PRICES[currency]})
