"""The app of the pictures: products are indexed.

Some have no price, one supplier is slow, one does not answer, and the price list is made by code that should not be
`async`.
"""

from __future__ import annotations

import asyncio
import time

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


@app.processor("price.list")
async def price_list(message: dict[str, object]) -> None:
    """Make the price list of a shop, and hold up everything else of this worker meanwhile."""
    del message
    time.sleep(45)  # noqa: ASYNC251  as a library would that computes for long
