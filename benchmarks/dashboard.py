"""The dashboard in a terminal of 120x40: how soon it shows something, what it takes under load, what it holds."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import msgspec

from benchmarks.figures import Figure
from benchmarks.measuring import Benchmark, Bring
from benchmarks.stage import memory_of
from corral import Client, events
from corral.ledger import Counts
from corral.runs import Record, encode
from corral.server import EmbeddedServer

LIVE, FINISHED = 300, 1_000
MANY = 100_000
FLIGHT = 500
"""Records that are being stored at once."""
COMING = 100
"""Runs a second that end while a dashboard is watched."""
EVENTS, ENDS = 1_000, 10
"""Events a second, and ends in each."""
SECONDS = 15.0
SILENCE = 5.0
MILLION = 1_000_000
DEADLINE = 300.0
TRACEBACK = (
    'Traceback (most recent call last):\n  File "/srv/shop/table.py", line 112, in fetch\n    raise Missing(id)\n'
)


class Terminal:
    """A program in a terminal that is read, or not."""

    def __init__(self, program: subprocess.Popen[bytes], master: int) -> None:
        self.program = program
        self._master = master
        self._loop = asyncio.get_running_loop()
        self.text = b""
        self.news = asyncio.Event()

    def read(self, *, on: bool) -> None:
        """Begin to take what the program writes, or cease to."""
        if on:
            self._loop.add_reader(self._master, self._take)
        else:
            self._loop.remove_reader(self._master)

    def _take(self) -> None:
        try:
            found = os.read(self._master, 65_536)
        except OSError:  # the program has left
            found = b""
        if not found:
            self._loop.remove_reader(self._master)
        self.text = (self.text + found)[-100_000:]
        self.news.set()

    async def shows(self, text: bytes) -> None:
        """Until this has been written."""
        async with asyncio.timeout(DEADLINE):
            while text not in self.text:
                if self.program.poll() is not None:
                    raise RuntimeError(self.text[-2_000:].decode("utf-8", "replace"))
                self.news.clear()
                await self.news.wait()

    async def left(self) -> None:
        """Until the program has ended."""
        async with asyncio.timeout(DEADLINE):
            await asyncio.to_thread(self.program.wait)


@contextmanager
def terminal(*command: str, environment: dict[str, str] | None = None) -> Iterator[Terminal]:
    """A program in a terminal of its own, of 120x40; it is ended."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    variables = {**os.environ, "TERM": "xterm-256color", **(environment or {})}
    program = subprocess.Popen(
        list(command), stdin=slave, stdout=slave, stderr=slave, env=variables, start_new_session=True
    )
    os.close(slave)
    here = Terminal(program, master)
    here.read(on=True)
    try:
        yield here
    finally:
        here.read(on=False)
        with contextlib.suppress(ProcessLookupError):
            program.kill()
        program.wait()
        os.close(master)


@asynccontextmanager
async def server() -> AsyncIterator[tuple[Client, str]]:
    """A server without pools, and a client of it."""
    with tempfile.TemporaryDirectory(prefix="corral-benchmark-", ignore_cleanup_errors=True) as name:
        running = await asyncio.to_thread(EmbeddedServer.start, Path(name))
        try:
            async with Client(running.url) as client:
                yield client, running.url
        finally:
            await asyncio.to_thread(running.stop)


# --- what is stored -----------------------------------------------------------------------------------


async def put_run(client: Client, name: str, **fields: object) -> None:
    """The record of a run."""
    values = {"state": "running", "created_at": time.time(), "started_at": time.time(), **fields}
    record = Record(id=name, topic="reindex", body=msgspec.Raw(b"{}"), **values)  # type: ignore[arg-type]
    await client.operations.records.create(f"run.{name}", encode(record))


async def put_event(client: Client, run_id: str, event: events.Event, subject: str = "") -> int:
    """An event, confirmed; its sequence."""
    names = client.operations.names
    reply = await client.connection.request(
        subject or names.event(run_id, events.kind(event)), events.encode_event(event), timeout=30.0
    )
    return int(json.loads(reply.data)["seq"])


async def opened(client: Client, run_id: str, count: int) -> int:
    """A run whose root has sent so many; their batch."""
    log = client.operations.names.dispatch_log(run_id, 0, 0)
    batch = await put_event(client, run_id, events.Opened(parent=(0, 0), nonce=run_id), log)
    for first in range(0, count, 100_000):
        sent = events.Sent(batch=batch, first=first, count=min(count, first + 100_000), topics=["reindex-entity"])
        await put_event(client, run_id, sent, log)
    return batch


def ended(batch: int, first: int, last: int, number: int) -> events.Ended:
    """Tasks that have succeeded."""
    ends = events.Ends("reindex-entity", batch, 0, "success", [(first, last)])
    return events.Ended(worker="w", number=number, tasks=[ends], durations=[(40, last - first)], waits=[(60, 1)])


async def load(client: Client, batches: dict[str, int], stop: asyncio.Event) -> None:
    """Ends of all the runs in turn, at a fixed rate, until told to stop."""
    names, runs = client.operations.names, list(batches.items())
    done, began = 0, time.perf_counter()
    while not stop.is_set():
        due = int((time.perf_counter() - began) * EVENTS)
        for number in range(done, due):
            run_id, batch = runs[number % len(runs)]
            first = number // len(runs) * ENDS
            event = ended(batch, first, first + ENDS, number)
            await client.connection.publish(names.event(run_id, "ended"), events.encode_event(event))
        done = due
        await asyncio.sleep(0.01)


# --- what is measured ---------------------------------------------------------------------------------


async def measure_start(repeat: int, bring: Bring) -> None:
    """From the start of the program to the first run on the screen. It is compiled, as what is installed is."""
    async with server() as (client, url):
        await put_run(client, "zzfirst", state="final", counts=Counts(total=1, success=1), finished_at=time.time())
        with tempfile.TemporaryDirectory() as compiled:
            environment = {"NATS_URL": url, "PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""}
            for number in range(repeat + 1):
                began = time.perf_counter()
                with terminal(sys.executable, "-m", "corral", "tui", environment=environment) as screen:
                    await screen.shows(b"zzfirst")
                    took = time.perf_counter() - began
                if number:  # the first one compiles
                    bring([Figure("dashboard: program to the first run shown", 1e3 * took, "ms")])


async def measure_load(seconds: float, repeat: int, bring: Bring) -> None:
    """Ends at a fixed rate over many live runs; then the same while the terminal is not read for some seconds."""
    async with server() as (client, url):
        batches = {}
        for number in range(LIVE):
            name = f"run{number:03d}"
            await put_run(client, name)
            batches[name] = await opened(client, name, 1_000_000)
        for _ in range(repeat):
            calm = await _watched(client, url, batches, seconds)
            slow = await _watched(client, url, batches, SILENCE + 4, silence=SILENCE)
            what = f"dashboard, {EVENTS:,} events/s"
            bring(
                [
                    Figure(f"{what}: of a second of a core", 1e3 * calm["cpu"], "ms"),
                    Figure(f"{what}: lag of the loop, p99", 1e3 * calm["lag"], "ms"),
                    Figure(f"{what}: stored to shown, p99", 1e3 * calm["shown"], "ms"),
                    Figure(
                        f"the same, terminal silent {SILENCE:.0f} s: folded",
                        slow["folded"] / slow["seconds"],
                        "/s",
                        "events stored",
                        EVENTS,
                    ),
                ]
            )


async def _watched(
    client: Client, url: str, batches: dict[str, int], seconds: float, *, silence: float = 0.0
) -> dict[str, float]:
    """What a dashboard says of itself under load."""
    stop = asyncio.Event()
    loading = asyncio.create_task(load(client, batches, stop))
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "found.json"
        with terminal(sys.executable, "-m", "benchmarks.watching", url, str(file), str(seconds)) as screen:
            await screen.shows(b"run299")
            if silence:
                await asyncio.sleep(3)
                screen.read(on=False)
                await asyncio.sleep(silence)
                screen.read(on=True)
            await screen.left()
        stop.set()
        await loading
        found: dict[str, float] = json.loads(file.read_text())
        return found


async def measure_memory(tasks: int, repeat: int, bring: Bring) -> None:
    """A run of a million tasks, some of which failed, opened beside many that have ended."""
    async with server() as (client, url):
        for number in range(FINISHED):
            done = Counts(total=100, success=99, error=1)
            await put_run(client, f"done{number:04d}", state="final", counts=done, finished_at=time.time(), seq=1)
        await put_run(client, "million")
        batch = await opened(client, "million", tasks)
        for first in range(0, tasks, 100):
            event = ended(batch, first, first + 99, first)
            await client.connection.publish(
                client.operations.names.event("million", "ended"), events.encode_event(event)
            )
            if first % 1_000 == 0:
                await put_event(client, "million", _failure(batch, first + 99))
        for _ in range(repeat):
            with tempfile.TemporaryDirectory() as name:
                file = Path(name) / "found.json"
                command = (sys.executable, "-m", "benchmarks.watching", url, str(file), "5", "million")
                with terminal(*command) as screen:
                    most = 0.0
                    while screen.program.poll() is None and not file.exists():
                        with contextlib.suppress(subprocess.CalledProcessError):
                            most = max(most, memory_of(screen.program.pid))
                        await asyncio.sleep(0.2)
                    if not file.exists():
                        raise RuntimeError(screen.text[-2_000:].decode("utf-8", "replace"))
            bring([Figure(f"dashboard: holds with {tasks:,} tasks open", most, "MB")])


async def measure_many(count: int, repeat: int, bring: Bring) -> None:
    """So many runs that have ended, from their records alone; and then some more that come and end."""
    async with server() as (client, url):
        numbers = iter(range(count))

        async def put_some() -> None:
            for number in numbers:
                await _put_ended(client, f"done{number:08d}")

        async with asyncio.TaskGroup() as group:
            for _ in range(FLIGHT):
                group.create_task(put_some())
        for again in range(repeat):
            with tempfile.TemporaryDirectory() as name:
                file = Path(name) / "found.json"
                with terminal(sys.executable, "-m", "benchmarks.watching", url, str(file), "10") as screen:
                    most = 0.0
                    stop = asyncio.Event()
                    coming = asyncio.create_task(_come_and_end(client, f"new{again}-", stop))
                    while screen.program.poll() is None and not file.exists():
                        with contextlib.suppress(subprocess.CalledProcessError):
                            most = max(most, memory_of(screen.program.pid))
                        await asyncio.sleep(0.2)
                    stop.set()
                    await coming
                    if not file.exists():
                        raise RuntimeError(screen.text[-2_000:].decode("utf-8", "replace"))
                    found = json.loads(file.read_text())
            what = f"dashboard, {count:,} runs"
            bring(
                [
                    Figure(f"{what}: holds at most", most, "MB"),
                    Figure(f"{what}: until all are read", 1e3 * found["opened"], "ms"),
                    Figure(f"{what}: lag of the loop meanwhile, p99", 1e3 * found["opening"], "ms"),
                    Figure(f"{what}: lag while {COMING} a second end, p99", 1e3 * found["lag"], "ms"),
                    Figure(f"{what}: of a second of a core meanwhile", 1e3 * found["cpu"], "ms"),
                ]
            )


async def _put_ended(client: Client, name: str, topic: str = "import.orders") -> None:
    """A record as a run of a few tasks leaves it."""
    now = time.time()
    record = Record(
        id=name,
        topic=topic,
        body=msgspec.Raw(b'{"source": "s3://orders/2026/11/24.csv", "first": 1000, "count": 500}'),
        state="final",
        created_at=now - 9,
        started_at=now - 8,
        finished_at=now,
        updated_at=now,
        claim=(0, 1_234_567),
        unique=f"orders/{name}",
        seq=9_876_543,
        status="success",
        root="success",
        counts=Counts(total=12, success=12),
        topics={topic: Counts(total=4, success=4), "import.lines": Counts(total=8, success=8)},
    )
    await client.operations.records.create(f"run.{name}", encode(record))


async def _come_and_end(client: Client, prefix: str, stop: asyncio.Event) -> None:
    """Runs that end, at a fixed rate, until told to stop."""
    done, began = 0, time.perf_counter()
    while not stop.is_set():
        due = int((time.perf_counter() - began) * COMING)
        for number in range(done, due):
            await _put_ended(client, f"{prefix}{number:06d}")
        done = due
        await asyncio.sleep(0.01)


def _failure(batch: int, ordinal: int) -> events.Failed:
    return events.Failed(
        topic="reindex-entity",
        task=(batch, ordinal),
        error="shop.Missing",
        message=f"no row {ordinal}",
        traceback=TRACEBACK * 5,
        attempt=1,
        worker="w",
        body=msgspec.Raw(b'{"id": 1}'),
    )


BENCHMARKS = [
    Benchmark("dashboard-start", 5, measure_start, measure_start),
    Benchmark("dashboard-load", 3, partial(measure_load, SECONDS), partial(measure_load, 3.0)),
    Benchmark("dashboard-memory", 1, partial(measure_memory, MILLION), partial(measure_memory, 10_000), long=True),
    Benchmark("dashboard-many-runs", 1, partial(measure_many, MANY), partial(measure_many, 1_000), long=True),
]
