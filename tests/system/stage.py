"""Where processors under test announce what they reach, and wait for the test's answer: signals instead of sleeps."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Awaitable
from typing import Any, Self, TypeVar

T = TypeVar("T")

DEADLINE = 60.0
"""Seconds after which a signal that has not come will not come."""


async def within(awaitable: Awaitable[T], what: str, seconds: float = DEADLINE) -> T:
    """Await a signal that comes soon, or fail and say what did not come."""
    try:
        async with asyncio.timeout(seconds):
            return await awaitable
    except TimeoutError:
        raise AssertionError(f"in {seconds:g} s this did not come: {what}") from None


class Arrival:
    """A processor that has reached a cue and waits there."""

    def __init__(self, facts: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        self.name: str = facts.pop("name")
        self.pid: int = facts.pop("pid")
        self.facts = facts
        self._gone = asyncio.Event()
        self._writer = writer

    def answer(self, text: str = "go") -> None:
        """Let it go on."""
        if not self._writer.is_closing():
            self._writer.write(f"{text}\n".encode())

    async def gone(self) -> None:
        """It has gone on, was cancelled, or its process is dead."""
        await within(self._gone.wait(), f"the end of what waits at {self.name!r}")


class Stage:
    """All who wait, by the name of the cue."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Queue[Arrival]] = {}
        self._open: dict[str, str] = {}
        self._talks: dict[asyncio.Task[None] | None, asyncio.StreamWriter] = {}
        self._server: asyncio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._talks.values():
            writer.close()
        if talks := [task for task in self._talks if task is not None]:
            await asyncio.wait(talks)
        await self._server.wait_closed()

    async def arrival(self, name: str) -> Arrival:
        """The next one to reach this cue, each once, in order of arrival."""
        return await within(self._queue(name).get(), f"somebody who waits at {name!r}")

    async def first(self, name: str) -> Arrival:
        """As `arrival`, of one that may never come."""
        return await self._queue(name).get()

    async def arrivals(self, name: str, count: int) -> list[Arrival]:
        """The next so many."""
        return [await self.arrival(name) for _ in range(count)]

    def waiting(self, name: str) -> int:
        """How many have reached this cue that the test has not met yet."""
        return self._queue(name).qsize()

    def open(self, name: str, answer: str = "go") -> None:
        """From now on nobody waits here."""
        self._open[name] = answer
        queue = self._queue(name)
        while not queue.empty():
            queue.get_nowait().answer(answer)

    def _queue(self, name: str) -> asyncio.Queue[Arrival]:
        return self._waiting.setdefault(name, asyncio.Queue())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._talks[asyncio.current_task()] = writer
        arrival = None
        try:
            if line := await reader.readline():
                arrival = Arrival(json.loads(line), writer)
                if arrival.name in self._open:
                    arrival.answer(self._open[arrival.name])
                else:
                    self._queue(arrival.name).put_nowait(arrival)
                await reader.read()
        except ConnectionError:
            pass  # a killed process takes its leave like this
        finally:
            if arrival is not None:
                arrival._gone.set()
            del self._talks[asyncio.current_task()]
            writer.close()


async def standing_still(pid: int) -> None:
    """A signal to stop takes effect some time after it was sent: until then the worker may be heard."""
    while "T" not in await asyncio.to_thread(
        subprocess.check_output, ["/bin/ps", "-o", "stat=", "-p", str(pid)], text=True
    ):
        pass
