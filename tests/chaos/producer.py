"""A program that starts, interrupts and retries runs: a line of JSON for each order, and one for each answer.

A process of its own, so that it can be killed between the steps of what it does.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any, Literal

import msgspec

from corral import Client
from corral.errors import CorralError, DuplicateRun, StorageFull, Unconfirmed
from corral.settings import Settings
from corral.starter import OnDuplicate
from tests.chaos import hooks
from tests.chaos.plans import Part
from tests.chaos.work import Work


class Order(msgspec.Struct, frozen=True, omit_defaults=True):
    """What to do with a run."""

    number: int
    do: Literal["start", "interrupt", "retry"]
    id: str
    work: Work | None = None
    key: str | None = None
    on_duplicate: OnDuplicate = "reject"
    kill_after: float | None = None
    part: Part = ""


class Said(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of it. `result` is the id that was returned, the count of tasks, or the error's type."""

    number: int
    result: str
    error: bool = False
    unknown: bool = False
    """It may have happened or not; doing it again is right."""
    text: str = ""


async def main(url: str) -> None:
    """Carry out orders until there are no more. Told SIGUSR1, it says what it waits for."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, _say_where)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with Client(url, settings=Settings.from_env()) as client, asyncio.TaskGroup() as group:
        print("{}", flush=True)
        while line := await reader.readline():
            group.create_task(_carry_out(client, msgspec.json.decode(line, type=Order)))


def _say_where() -> None:
    for task in asyncio.all_tasks():
        task.print_stack()


async def _carry_out(client: Client, order: Order) -> None:
    try:
        said = Said(order.number, str(await _do(client, order)))
    except DuplicateRun as error:
        said = Said(order.number, "DuplicateRun", error=True, text=error.run_id)
    except CorralError as error:
        unknown = isinstance(error, Unconfirmed | StorageFull) or "No" in type(error).__name__[:2]
        said = Said(order.number, type(error).__name__, error=True, unknown=unknown, text=str(error))
    print(msgspec.json.encode(said).decode(), flush=True)


async def _do(client: Client, order: Order) -> Any:
    if order.do == "start":
        assert order.work is not None
        run = await client.start(
            order.work.topic, order.work, id=order.id, unique=order.key, on_duplicate=order.on_duplicate
        )
        return run.id
    if order.do == "interrupt":
        return await client.interrupt(order.id, reason="chaos", kill_after=order.kill_after)
    return await _retry(client, order)


async def _retry(client: Client, order: Order) -> int:
    run = client.run(order.id)
    if order.part == "tasks":
        errors = [error.task async for error in client.errors(run.id)]
        return await run.retry(tasks=errors[::2])
    if order.part == "topic":
        topics = (await run.status()).topics
        bad = [topic for topic, counts in topics.items() if counts.error + counts.interrupted]
        return await run.retry(topics=bad[:1])
    return await run.retry()


if __name__ == "__main__":
    hooks.install("producer")
    asyncio.run(main(sys.argv[1]))
