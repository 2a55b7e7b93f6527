"""The processors of all histories. They do what their message says, and write down that they did."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from corral import App, Context, Reject, Requeue, SyncContext
from tests.chaos import hooks
from tests.chaos.work import Begun, Over, Work, first_time, is_healed, note, now, run_of

app = App()
_numbers = itertools.count(1)
_spoken = " ".join(sys.orig_argv)
hooks.install("worker" if "worker_process" in _spoken else "child" if "isolated_process" in _spoken else "pool")


@contextmanager
def _execution(work: Work, ctx: Context | SyncContext) -> Iterator[None]:
    number, pid = next(_numbers), os.getpid()
    note(Begun(ctx.run_id, ctx.task, work.name, ctx.attempt, pid, now(), number))
    hooks.reach("begun")
    how = "cancelled"
    try:
        yield
        _outcome(work, ctx)
        how = "ok"
    except Requeue:
        how = "again"
        raise
    except Exception:
        how = "error"
        raise
    finally:
        note(Over(pid, number, how, now()))
        hooks.reach("ran")


def _outcome(work: Work, ctx: Context | SyncContext) -> None:
    match work.how:
        case "fail" if ctx.attempt <= work.times:
            raise ValueError(work.name)
        case "reject":
            raise Reject(work.name)
        case "flaky" if not is_healed(ctx.run_id):
            raise Reject(work.name)
        case "requeue" if first_time(f"requeued-{work.name}"):
            raise Requeue(0.2)
        case _:
            pass


def _whims(work: Work) -> Iterator[Work]:
    """Children that are others in each execution, and at most as many as `times` says."""
    mark = secrets.token_hex(3)
    for i in range(random.randint(0, work.times)):
        yield Work(f"{work.name}.x{mark}{i}")


async def _work(work: Work, ctx: Context) -> None:
    with _execution(work, ctx):
        for child in work.children():
            await ctx.send(child.topic, child)
        if work.how == "fickle":
            for child in _whims(work):
                await ctx.send(child.topic, child)
        elif work.how == "start":
            await ctx.start("calm", run_of(work.name))
        if work.seconds:
            await asyncio.sleep(work.seconds)


def _work_blocking(work: Work, ctx: SyncContext) -> None:
    with _execution(work, ctx):
        for child in work.children():
            ctx.send(child.topic, child)
        if work.how == "start":
            ctx.start("calm", run_of(work.name))
        deadline = time.monotonic() + work.seconds
        while (left := deadline - time.monotonic()) > 0:
            if work.how != "deaf":
                ctx.check()
            time.sleep(min(left, 0.02))


@app.processor("calm")
async def calm(message: Work, ctx: Context) -> None:
    await _work(message, ctx)


@app.processor("tough", attempts=3, backoff=0.1)
async def tough(message: Work, ctx: Context) -> None:
    await _work(message, ctx)


@app.processor("thread", attempts=2, backoff=0.1)
def thread(message: Work, ctx: SyncContext) -> None:
    _work_blocking(message, ctx)


@app.processor("alone", isolate=True)
async def alone(message: Work, ctx: Context) -> None:
    await _work(message, ctx)


@app.processor("alone-twice", attempts=2, backoff=0.1, isolate=True)
async def alone_twice(message: Work, ctx: Context) -> None:
    await _work(message, ctx)


@app.processor("keyed", unique="{key}")
async def keyed(message: Work, ctx: Context) -> None:
    await _work(message, ctx)


@app.processor("computed", unique=lambda message: message.key)
async def computed(message: Work, ctx: Context) -> None:
    await _work(message, ctx)
