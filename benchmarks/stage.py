"""Where a benchmark takes place: a server of its own with the project's nats.conf, a pool that stays, and a client."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from benchmarks.app import SPREAD, Spread
from benchmarks.child import DEADLINE, Child, child
from benchmarks.figures import Figure
from benchmarks.moments import VARIABLE, Moments
from corral import Client, Run, Topic
from corral.credentials import Access
from corral.pool import PoolOptions
from corral.server import EmbeddedServer
from corral.settings import Settings

T = TypeVar("T")


class Stage:
    """A running server, a client of it, and what is needed to start pools and raw loops."""

    client: Client
    bookkeeper: int
    """The process id of the pool that stays."""

    def __init__(self, folder: Path, server: EmbeddedServer, settings: Settings) -> None:
        self.url = server.url
        self.server = server.pid
        self.settings = settings
        self.moments = Moments(folder / "moments")
        self._log = folder / "pools.log"
        self._environment = {**os.environ, VARIABLE: str(folder / "moments")}

    @asynccontextmanager
    async def pool(self, *topics: Topic[Any], slots: int = 100, workers: int = 1) -> AsyncIterator[int]:
        """A pool that serves these topics, from its first pull on; the value is its process id."""
        options = PoolOptions(
            app="benchmarks.app",
            access=Access(urls=[self.url]),
            settings=self.settings,
            workers=workers,
            slots=slots,
            topics=[topic.name for topic in topics],
        )
        async with self._child("benchmarks.serve", msgspec.json.encode(options).decode()) as pool:
            await pool.line()
            yield pool.pid

    async def raw(self, what: str, *arguments: int) -> float:
        """What `benchmarks.raw` measures."""
        async with self._child("benchmarks.raw", self.url, what, *map(str, arguments)) as raw:
            return float(await raw.line())

    @asynccontextmanager
    async def raw_listener(self, subject: str) -> AsyncIterator[None]:
        """A process that notes when a message reaches its callback on `subject`."""
        async with self._child("benchmarks.raw", self.url, "listen", subject) as listener:
            await listener.line()
            yield

    async def filled(self, topic: Topic[Any], count: int) -> Run:
        """A run that has sent `count` items to a topic; a pool must serve `SPREAD`, and none the topic."""
        run = await self.client.start(SPREAD, Spread(topic.name, count))
        async with asyncio.timeout(DEADLINE + count / 1_000):
            async for status in run.watch():
                if status.root == "success" and status.total == count:
                    break
        return run

    def _child(self, module: str, *arguments: str) -> AbstractAsyncContextManager[Child]:
        return child(module, *arguments, log=self._log, environment=self._environment)


@asynccontextmanager
async def stage(*topics: Topic[Any], slots: int = 100, settings: Settings | None = None) -> AsyncIterator[Stage]:
    """A stage with a pool of one worker that serves these topics, and keeps the books; nothing is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="corral-benchmark-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        server = await asyncio.to_thread(EmbeddedServer.start, folder)
        try:
            here = Stage(folder, server, settings or Settings())
            # The pool before the client: who makes the streams need not listen for workers that are older than they.
            async with (
                here.pool(*topics, slots=slots) as here.bookkeeper,
                Client(server.url, settings=here.settings) as here.client,
            ):
                yield here
        finally:
            await asyncio.to_thread(server.stop)


def server_version() -> str:
    """The version of the nats-server that is measured."""
    with tempfile.TemporaryDirectory(prefix="corral-benchmark-") as name, EmbeddedServer.start(Path(name)) as server:
        return server.version


def memory_of(pid: int) -> float:
    """Megabytes that a process holds."""
    done = subprocess.run(["/bin/ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True)
    return int(done.stdout) / 1024


class Held:
    """What processes hold while something goes on, looked at again and again."""

    def __init__(self, processes: dict[str, int]) -> None:
        self._processes = processes
        self._seen: list[dict[str, float]] = []

    @asynccontextmanager
    async def watched(self, seconds: float) -> AsyncIterator[None]:
        """Look every so many seconds; a process that ends meanwhile ends this, too."""
        async with asyncio.TaskGroup() as group:
            looking = group.create_task(self._look(seconds))
            yield
            looking.cancel()

    async def _look(self, seconds: float) -> None:
        while True:
            self._seen.append({name: await asyncio.to_thread(memory_of, pid) for name, pid in self._processes.items()})
            await asyncio.sleep(seconds)

    def figures(self, part: int, name: str) -> list[Figure]:
        """What each holds at most, beside what it held at most in the first `part`th, which is called `name`."""
        early = self._seen[: max(1, len(self._seen) // part)]
        return [
            Figure(
                f"{process} holds at most",
                max(each[process] for each in self._seen),
                "MB",
                f"in the first {name}",
                max(each[process] for each in early),
            )
            for process in self._processes
        ]


async def growth(pid: int, work: Awaitable[T]) -> tuple[T, float]:
    """What `work` returns, and by how many megabytes a process has grown at most meanwhile."""
    before = most = memory_of(pid)
    working = asyncio.ensure_future(work)
    while not working.done():
        await asyncio.wait({working}, timeout=0.2)
        most = max(most, memory_of(pid))
    return working.result(), most - before
