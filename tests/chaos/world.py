"""The processes of a history, and the hands that strike them: pools, workers, producers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

import msgspec

from corral.errors import CorralError
from corral.jetstream.connection import Connection, Message
from corral.jetstream.publisher import Publisher
from corral.jetstream.records import Records
from corral.runs import Beat, decode_beat
from corral.settings import Settings
from corral.subjects import LEADER_KEY, Names
from tests.chaos import hooks
from tests.chaos.plans import POOLS, PRODUCERS, Plan
from tests.chaos.producer import Order, Said
from tests.chaos.servers import Line, Servers
from tests.chaos.work import FOLDER, Begun, Over, Process, now, read_notes
from tests.system.apps import cues
from tests.system.pools import ROOT
from tests.system.stage import Stage, within

KILLED = Said(0, "killed", error=True, unknown=True)
BEGINS = 180.0
"""Seconds in which all workers must be there, on a machine that is busy with other things."""
RESTART = 0.3
"""Seconds after which a dead pool or producer is started again, as a service manager would."""


class Party:
    """A pool or a producer: a name that outlives its processes."""

    def __init__(self, name: str, command: list[str], line: Line, log: Path, environment: dict[str, str]) -> None:
        self.name = name
        self.line = line
        self.log = log
        self.process: asyncio.subprocess.Process | None = None
        self.pids: set[int] = set()
        self._command = command
        self._environment = environment
        self._keeper: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[Said]] = {}
        self._ready = asyncio.Event()

    def keep(self) -> None:
        """Start it, and again whenever it has died."""
        self._keeper = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        while True:
            with self.log.open("ab") as log:
                self.process = await asyncio.create_subprocess_exec(
                    *self._command,
                    cwd=ROOT,
                    env=self._environment,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE if self.name in PRODUCERS else log,
                    stderr=log,
                )
            self.pids.add(self.process.pid)
            await self._listen(self.process)
            await self.process.wait()
            await asyncio.sleep(RESTART)

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        while process.stdout is not None and (line := await process.stdout.readline()):
            if line == b"{}\n":
                self._ready.set()
            elif line.startswith(b"{"):
                said = msgspec.json.decode(line, type=Said)
                if (waiting := self._waiting.pop(said.number, None)) is not None:
                    waiting.set_result(said)
        self._ready.clear()  # at once: that it has ended is noticed later, and what it is told now is lost
        for waiting in self._waiting.values():
            waiting.set_result(KILLED)
        self._waiting.clear()

    async def tell(self, order: Order) -> Said:
        """Let a producer do something; what it said."""
        await self._ready.wait()
        assert self.process is not None
        assert self.process.stdin is not None
        waiting = self._waiting[order.number] = asyncio.get_running_loop().create_future()
        with contextlib.suppress(ConnectionError):
            self.process.stdin.write(msgspec.json.encode(order) + b"\n")
        said: Said = await waiting
        return said

    @property
    def pid(self) -> int | None:
        """Of the living process."""
        return self.process.pid if self.process is not None and self.process.returncode is None else None

    async def end(self) -> None:
        """Kill it for good."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        if self.pid is not None and self.process is not None:
            _signal(self.pid, signal.SIGCONT)
            self.process.kill()
            await self.process.wait()


class World:
    """All of it."""

    def __init__(self, plan: Plan, servers: Servers, folder: Path, stage: Stage, namespace: str) -> None:
        self.plan = plan
        self.servers = servers
        self.folder = folder
        self.stage = stage
        self.settings = Settings(
            namespace=namespace,
            ack_wait=2.0,
            beat=0.2,
            death=1.5,
            lease=1.0,
            publish_timeout=2.0,
            reconcile=4.0,
            drain_timeout=1.0,
            kill_grace=0.5,
            window=50,
            checkpoint_interval=1.0,
            threads=4,
            replicas=len(servers.nodes),
            tasks_max_bytes=8 << 20,
            events_max_bytes=8 << 20,
            runs_max_bytes=8 << 20,
        )
        self.names = Names(namespace)
        self.parties: dict[str, Party] = {}
        self.beats: dict[str, Beat] = {}
        self.struck: dict[int, str] = {}
        """Process -> what was done to it."""
        self.lines_struck: set[str] = set()
        """Parties whose connections were disturbed."""
        self.servers_struck: list[str] = []
        self.silent: dict[int, float] = {}
        """Process -> the longest silence between two heartbeats, in seconds."""
        self._heard: dict[int, float] = {}
        self._parents: dict[int, int] = {}
        self._news = asyncio.Event()
        self._closing = AsyncExitStack()
        self._numbers = itertools.count(1)

    async def __aenter__(self) -> Self:
        truth = self.folder / "truth"
        truth.mkdir()
        os.environ[FOLDER] = str(truth)  # for our own reading, too
        self.connection = await Connection.open(self.servers.urls, name="chaos")
        self.records = Records(self.connection, Publisher(self.connection, timeout=5.0), self.names)
        try:
            await self._begin()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def _begin(self) -> None:
        await self.connection.subscribe(self.names.all_beats, self._on_beat)
        for name in (*POOLS, *PRODUCERS):
            line = await Line.lay(self.servers, self._closing)
            self.parties[name] = Party(
                name, self._command(name, line), line, self.folder / f"{name}.log", self._environment(name)
            )
            self.parties[name].keep()
        count = sum(self.plan.workers.values())
        await within(self._until_heard(count), "the workers of all pools", BEGINS)

    async def __aexit__(self, *_: object) -> None:
        # Workers first: a pool's log is open, and it counts as running, as long as they live.
        for line in read_notes():
            if isinstance(line, Process) and line.role in ("worker", "child"):
                _signal(line.pid, signal.SIGCONT)
                _signal(line.pid, signal.SIGKILL)
        for party in self.parties.values():
            await party.end()
        await self.connection.close()
        await self._closing.aclose()

    def _command(self, name: str, line: Line) -> list[str]:
        if name in PRODUCERS:
            return [sys.executable, "-m", "tests.chaos.producer", line.url]
        options = ["-p", str(self.plan.workers[name]), "-c", str(self.plan.slots)]
        command = [sys.executable, "-m", "corral", "pool", "tests.chaos.app", "-s", line.url]
        return [*command, "-n", self.settings.namespace, *options]

    def _environment(self, name: str) -> dict[str, str]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("CORRAL_", "NATS_"))}
        settings = {f"CORRAL_{key.upper()}": str(value) for key, value in msgspec.structs.asdict(self.settings).items()}
        wanted = [hooks.Cue(f"fault {i}", fault.step, fault.nth) for i, fault in enumerate(self.plan.faults)]
        told = {
            FOLDER: os.environ[FOLDER],
            cues.PORT: str(self.stage.port),
            hooks.CUES: msgspec.json.encode([cue for cue in wanted if cue.step]).decode(),
            hooks.CLOCK: str(self.plan.clocks.get(name, 0.0)),
            hooks.BOTH_LEAD: "1" if self.plan.both_lead else "",
            "CORRAL_HOME": str(self.folder / "home"),
        }
        return {**inherited, **settings, **told}

    # --- who is there ------------------------------------------------------------------------------

    async def _until_heard(self, count: int) -> None:
        while len({beat.pid for beat in self.beats.values()}) < count:
            self._news.clear()
            await self._news.wait()

    def _on_beat(self, message: Message) -> None:
        beat = decode_beat(message.data)
        if beat.leaving:
            self.beats.pop(beat.id, None)
        else:
            self.beats[beat.id] = beat
            self.silent[beat.pid] = max(self.silent.get(beat.pid, 0.0), now() - self._heard.get(beat.pid, now()))
            self._heard[beat.pid] = now()
        self._news.set()

    def workers(self, pool: str | None = None) -> list[int]:
        """Process ids of workers, in the order of their start."""
        parents = self.parties[pool].pids if pool is not None else None
        lines = [line for line in read_notes() if isinstance(line, Process) and line.role == "worker"]
        found = [line for line in lines if parents is None or line.parent in parents]
        return [line.pid for line in sorted(found, key=lambda line: line.at) if _is_alive(line.pid)]

    def children(self) -> list[int]:
        """Living processes of isolated tasks, in the order of their start."""
        lines = [line for line in read_notes() if isinstance(line, Process) and line.role == "child"]
        return [line.pid for line in sorted(lines, key=lambda line: line.at) if _is_alive(line.pid)]

    def pool_of(self, pid: int) -> str | None:
        """The pool that a process belongs to."""
        pids = {pid, *self.ancestors(pid)}
        return next((name for name in POOLS if pids & self.parties[name].pids), None)

    def ancestors(self, pid: int) -> list[int]:
        """Its parent, and so on, as far as they have said so."""
        if pid not in self._parents:  # what was written down is read again only for news
            self._parents = {line.pid: line.parent for line in read_notes() if isinstance(line, Process)}
            self._parents.setdefault(pid, 0)
        found = []
        while (pid := self._parents.get(pid, 0)) and pid not in found:
            found.append(pid)
        return found

    async def bookkeeper(self) -> str:
        """The pool that holds the lease; some pool, if that cannot be told."""
        with contextlib.suppress(CorralError):
            entry = await self.records.get(LEADER_KEY, leader=True)
            holder = entry.value.decode() if entry is not None else ""
            for beat in self.beats.values():
                if beat.pool == holder and (name := self.pool_of(beat.pid)) is not None:
                    return name
        return POOLS[0]

    async def order(self, producer: str, order: Order) -> Said:
        """Let a producer do something."""
        numbered = msgspec.structs.replace(order, number=next(self._numbers))
        return await self.parties[producer].tell(numbered)

    async def say_where(self) -> None:
        """Let the producers write into their logs what they wait for."""
        for name in PRODUCERS:
            if (pid := self.parties[name].pid) is not None:
                _signal(pid, signal.SIGUSR1)
        await asyncio.sleep(1.0)

    # --- hands -------------------------------------------------------------------------------------

    def kill(self, pids: Iterable[int], why: str = "killed") -> None:
        """Kill -9."""
        for pid in pids:
            self.struck[pid] = why
            _signal(pid, signal.SIGKILL)

    async def freeze(self, pids: Iterable[int], seconds: float) -> None:
        """Stop them, and let them go on later."""
        pids = list(pids)
        for pid in pids:
            self.struck[pid] = "frozen"
            _signal(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            for pid in pids:
                _signal(pid, signal.SIGCONT)

    def executions(self) -> tuple[list[Begun], dict[tuple[int, int], Over]]:
        """What was begun, and how each ended: by process and number."""
        lines = read_notes()
        ends = {(line.pid, line.number): line for line in lines if isinstance(line, Over)}
        return [line for line in lines if isinstance(line, Begun)], ends


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
