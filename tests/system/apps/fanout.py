"""Dispatchers: one that sends to two processors, and trees whose branches send again."""

from __future__ import annotations

import msgspec

from corral import App, Context, Topic
from tests.system.apps.cues import cue, note


class Many(msgspec.Struct):
    n: int
    hold: int | None = None
    """Before it sends this one, the dispatcher waits for the test."""
    stop_at: int | None = None
    """The processor of this one waits for the test."""
    bad: int = 0
    """The first so many fail."""


class One(msgspec.Struct):
    i: int
    wait: bool = False
    bad: bool = False


class Tree(msgspec.Struct):
    width: int
    depth: int
    path: str = ""
    hold: str | None = None
    """The branch of this path waits for the test in the middle of what it sends."""


DISPATCH = Topic("dispatch", Many)
LEFT = Topic("left", One)
RIGHT = Topic("right", One)
BRANCH = Topic("tree.branch", Tree)
LEAF = Topic("tree.leaf", str)

app = App()


@app.processor(DISPATCH)
async def dispatch(message: Many, ctx: Context) -> None:
    for i in range(message.n):
        if i == message.hold:
            await cue("dispatching", run=ctx.run_id)
        one = One(i, wait=i == message.stop_at, bad=i < message.bad)
        await ctx.send(RIGHT if i % 3 == 0 else LEFT, one)


@app.processor(LEFT)
async def left(message: One) -> None:
    note(f"left {message.i}")
    await _work(message)


@app.processor(RIGHT)
async def right(message: One) -> None:
    note(f"right {message.i}")
    await _work(message)


async def _work(message: One) -> None:
    if message.wait:
        await cue("in the middle")
    if message.bad:
        raise ValueError(f"number {message.i} is bad")


@app.processor(BRANCH)
async def branch(message: Tree, ctx: Context) -> None:
    note(f"branch {message.path}")
    for i in range(message.width):
        if message.hold == message.path and i == message.width // 2:
            await cue("in a branch")
        path = f"{message.path}{i}"
        if message.depth == 1:
            await ctx.send(LEAF, path)
        else:
            await ctx.send(BRANCH, msgspec.structs.replace(message, depth=message.depth - 1, path=path))


@app.processor(LEAF)
async def leaf(message: str) -> None:
    note(f"leaf {message}")
