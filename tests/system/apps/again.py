"""Processors whose outcome the test decides, attempt by attempt."""

# ruff: noqa: ARG001  # a processor has a message, whether it looks at it or not

from __future__ import annotations

import msgspec

from corral import App, Context
from tests.system.apps.cues import cue, note


class Family(msgspec.Struct):
    n: int
    hold: int | None = None
    """Before it sends this one, the dispatcher waits for the test."""


app = App()


@app.processor("parent")
async def parent(message: Family, ctx: Context) -> None:
    """Sends children, and every tenth is a grandparent of more."""
    for i in range(message.n):
        if i == message.hold:
            await cue("holding")
        await ctx.send("aunt" if i % 10 == 0 else "child", i)


@app.processor("aunt")
async def aunt(i: int, ctx: Context) -> None:
    for k in range(3):
        await ctx.send("child", 1000 + 10 * i + k)


@app.processor("child")
async def child(i: int) -> None:
    answer = await cue("child", i=i)
    note(f"child {i} {answer}")
    if answer == "fail":
        raise ValueError(f"child {i}")


@app.processor("fickle")
async def fickle(message: int, ctx: Context) -> None:
    """Sends other messages each time."""
    answer = await cue("fickle")
    for i in range(message):
        await ctx.send("child", f"{answer} {i}" if answer != "go" else i)


@app.processor("keyed", unique="key {n}")
async def keyed(message: Family) -> None:
    if await cue("keyed") == "fail":
        raise ValueError("keyed")


@app.processor("many")
async def many(n: int, ctx: Context) -> None:
    for i in range(n):
        await ctx.send("leaf", i)


@app.processor("leaf")
async def leaf(i: int) -> None:
    """Nothing can go wrong here any more."""
