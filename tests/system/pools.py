"""A whole system for a test: pools as real processes, a client, and the means to check what they did."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec

from corral import Client
from corral.client import StoredEvent
from corral.jetstream.connection import Connection, Message
from corral.jetstream.topology import consumers, destroy, queue_counts
from corral.ledger import Counts
from corral.operations import Run
from corral.recount import Recounted, recount
from corral.runs import Beat, RunStatus, decode_beat
from corral.settings import Settings
from corral.subjects import LEADER_KEY, Names, unique_key
from tests.system.apps.cues import FOLDER, PORT
from tests.system.stage import Stage, within

ROOT = Path(__file__).parents[2]
COUNTS = ("total", "pending", "success", "error", "interrupted")


class PoolProcess:
    """A pool and its workers."""

    def __init__(self, id: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.id = id
        self.log = log
        self._process = process

    def drain(self) -> None:
        """Tell it to stop in good order."""
        self._process.terminate()

    def kill(self) -> None:
        """Kill it, and nothing else: its workers must notice by themselves."""
        if self._process.returncode is None:
            self._process.kill()

    async def ended(self) -> int:
        """Its exit code, once it has ended."""
        return await within(self._process.wait(), f"the end of pool {self.id}")


class Audit(NamedTuple):
    """An ended run, when everything that can be checked of any run has been."""

    status: RunStatus
    recounted: Recounted
    events: list[StoredEvent]


class System:
    """One namespace on a server."""

    def __init__(self, url: str, namespace: str, folder: Path, stage: Stage) -> None:
        self.url = url
        self.folder = folder
        self.stage = stage
        # A busy machine holds a worker up for a second or two; who waits for a death sets how soon it is found.
        self.settings = Settings(namespace=namespace, ack_wait=6.0, beat=0.2, death=3.0, lease=1.0, drain_timeout=10.0)
        self.beats: dict[str, Beat] = {}
        self._truth = folder / "truth"
        self._truth.mkdir()
        self._pools: list[PoolProcess] = []
        self._news = asyncio.Event()
        self._client: Client | None = None
        self._closing = AsyncExitStack()

    def set(self, **settings: Any) -> None:
        """Change settings, before the first pool or client."""
        self.settings = msgspec.structs.replace(self.settings, **settings)

    # --- its parts ---------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._connection = await Connection.open([self.url], name="test")
        await self._connection.subscribe(f"{self.settings.namespace}.beat.*", self._on_beat)
        await self._connection.flush()
        return self

    async def __aexit__(self, *_: object) -> None:
        for pool in self._pools:
            pool.kill()
        for pool in self._pools:
            await pool.ended()
            print(f"--- pool {pool.id}\n{pool.log.read_text()}")  # noqa: T201  # pytest shows it if the test has failed
        await self._closing.aclose()
        await destroy(self._connection, self._names)
        await self._connection.close()

    async def client(self) -> Client:
        """The test's own client."""
        if self._client is None:
            self._client = await self._closing.enter_async_context(Client(self.url, settings=self.settings))
        return self._client

    async def pool(
        self, app: str, *, workers: int = 1, slots: int = 20, topics: str = "", folder: Path = ROOT
    ) -> PoolProcess:
        """A new pool whose workers have all begun. `app` is one of `tests/system/apps`, or a file in `folder`."""
        spec = app if app.endswith(".py") else f"tests.system.apps.{app}"
        command = [sys.executable, "-m", "corral", "pool", spec, "-s", self.url, "-n", self.settings.namespace]
        command += ["-p", str(workers), "-c", str(slots), *(["--topics", topics] if topics else [])]
        path = self.folder / f"pool-{len(self._pools)}.log"
        others = {pool.id for pool in self._pools}
        with path.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *command, cwd=folder, env=self._environment(), stdout=log, stderr=log
            )
        pool = PoolProcess("?", process, path)
        self._pools.append(pool)

        def fresh() -> set[str]:
            assert process.returncode is None, "the pool ended at once"
            return {beat.id for beat in self.beats.values() if beat.pool not in others}

        await self.until(lambda: len(fresh()) == workers, f"{workers} workers of {app}")
        pool.id = self.beats[fresh().pop()].pool
        return pool

    async def next_beat(self) -> None:
        """Return when any worker has said something."""
        await within(self._news.wait(), "a heartbeat")

    async def until(self, fact: Callable[[], bool], what: str) -> None:
        """Return when a fact holds, as far as heartbeats can change it."""

        async def wait() -> None:
            while not fact():
                await self._news.wait()

        await within(wait(), what)

    async def bookkeeper(self) -> str:
        """The id of the pool that keeps the books now, once there is one."""
        records = (await self.client()).operations.records

        async def elected() -> str:
            async for batch in records.watch(LEADER_KEY):
                if batch[-1].operation is None:
                    return batch[-1].data.decode()
            raise AssertionError

        return await within(elected(), "a bookkeeper")

    # --- what it did -------------------------------------------------------------------------------

    def truth(self) -> Counter[str]:
        """What was executed, and how often, as the processors themselves have noted it."""
        return Counter(line for path in self._truth.iterdir() for line in path.read_text().splitlines())

    async def end(self, run: Run) -> RunStatus:
        """The final status of a run."""
        try:
            return await within(run.wait(), f"the end of run {run.id}")
        except AssertionError:
            await self._show(run)
            raise

    async def reached(self, run: Run, fact: Callable[[RunStatus], bool], what: str) -> RunStatus:
        """How a run stands when its record first shows something."""

        async def wait() -> RunStatus:
            async for status in run.watch():
                assert status.total == sum(getattr(status, name) for name in ("running", *COUNTS[1:]))
                if fact(status):
                    return status
            raise AssertionError(f"run {run.id} has ended without this: {what}")

        return await within(wait(), what)

    async def audit(self, run: Run) -> Audit:
        """Wait for the run's end, and check that record, raw events, queue and key agree."""
        status = await self.end(run)
        client = await self.client()
        events = [stored async for stored in client.events(run.id)]
        print(status, *events, sep="\n")  # noqa: T201  # for a test that fails
        again = recount(status.topic, [(stored.seq, stored.event) for stored in events])
        assert status.total == status.success + status.error + status.interrupted
        assert [getattr(again.counts, name) for name in COUNTS] == [getattr(status, name) for name in COUNTS]
        assert {topic: _shown(counts) for topic, counts in status.topics.items()} == {
            topic: [getattr(counts, name) for name in COUNTS] for topic, counts in again.topics.items()
        }
        assert (again.over, again.finished, again.root) == (True, True, status.root)
        assert await queue_counts(self._connection, self._names, run.id) == {}
        if status.unique is not None:
            held = await client.operations.records.get(unique_key(status.unique), leader=True)
            assert held is None or held.value.decode() != run.id
        return Audit(status, again, events)

    async def _show(self, run: Run) -> None:
        """Print what is known of a run that does not end."""
        client = await self.client()
        keys = [await client.operations.records.get(f"{kind}.{run.id}", leader=True) for kind in ("run", "interrupt")]
        events = [stored async for stored in client.events(run.id)]
        queue = await queue_counts(self._connection, self._names, run.id)
        waiting = await consumers(self._connection, self._names)
        print(*keys, *events, queue, waiting, *self.beats.values(), sep="\n")  # noqa: T201  # pytest shows it

    def _environment(self) -> dict[str, str]:
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("CORRAL_", "NATS_", "PYTEST_"))
        }
        settings = {
            f"CORRAL_{name.upper()}": str(value) for name, value in msgspec.structs.asdict(self.settings).items()
        }
        return {**inherited, **settings, PORT: str(self.stage.port), FOLDER: str(self._truth)}

    @property
    def _names(self) -> Names:
        return Names(self.settings.namespace)

    def _on_beat(self, message: Message) -> None:
        beat = decode_beat(message.data)
        if beat.leaving:
            self.beats.pop(beat.id, None)
        else:
            self.beats[beat.id] = beat
        self._news.set()  # wakes who waits now,
        self._news.clear()  # and nobody later


def _shown(counts: Counts) -> list[int]:
    assert counts.running == counts.retrying == 0
    return [getattr(counts, name) for name in COUNTS]
