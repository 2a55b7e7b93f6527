"""The supervisor of one worker of a pool: its process, and the next one where that dies.

process -> first heartbeat -> dead? -> its tasks are given back, and its end is told -> a pause -> process
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec

from corral import events
from corral.errors import CorralError
from corral.jetstream.connection import Connection
from corral.jetstream.publisher import Publisher
from corral.jetstream.puller import Delivery
from corral.leaving import How
from corral.roster import Roster
from corral.runs import encode
from corral.slottable import Held, read
from corral.subjects import Names
from corral.worker import LAST_WORDS
from corral.worker_process import AT_ONCE, NO_APP, Assignment

log = logging.getLogger(__name__)

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 30.0
"""Seconds before a worker that died is replaced; doubled each time that it dies young."""
LONGEST_NAME = 200
"""Characters of an operator's name that are passed on."""
YOUNG = 10.0
"""Seconds that a worker has to live for its death to be an accident."""


class Supervisor:
    """Keeps one worker alive until that is told to leave.

    `assignment` is what each process is told, with an id and a slot table of its own. `next_beat` returns when another
    heartbeat has come to the roster. `on_ready` is called once, when the first process has begun to work; `on_failed`
    if the app cannot be loaded, so that no process ever will.
    """

    def __init__(
        self,
        number: int,
        assignment: Assignment,
        *,
        connection: Connection,
        publisher: Publisher,
        roster: Roster,
        next_beat: Callable[[], Awaitable[None]],
        folder: Path,
        on_ready: Callable[[], None],
        on_failed: Callable[[], None],
    ) -> None:
        self.number = number
        self.worker = ""
        """The id of the worker that there is, or that has died and is not replaced yet."""
        self._assignment = assignment
        self._settings = assignment.settings
        self._names = Names(assignment.settings.namespace)
        self._connection = connection
        self._publisher = publisher
        self._roster = roster
        self._next_beat = next_beat
        self._folder = folder
        self._on_ready = on_ready
        self._on_failed = on_failed
        self._ready = False
        self._process: asyncio.subprocess.Process | None = None
        self._leaving = asyncio.Event()
        """Nobody is to take the place of the worker that there is."""
        self._killed = False
        self._told: How | None = None
        """The order of an operator by which it leaves."""
        self._told_by = ""

    @property
    def alive(self) -> bool:
        """Whether there is a process."""
        return self._process is not None

    async def run(self) -> None:
        """Return when nobody is to take the place of the worker that has ended."""
        pause, generation = FIRST_PAUSE, 0
        while not self._leaving.is_set():
            generation += 1
            worker = f"{self._assignment.pool}-{self.number}" + (f"-{generation}" if generation > 1 else "")
            table = self._folder / f"{worker}.slots"
            born = time.monotonic()
            code = await self._run_worker(worker, table)
            held = read(table)
            table.unlink(missing_ok=True)
            if code == 0 and self._leaving.is_set():
                return
            try:
                # Without a server nobody hears it, and a pool that is told to stop must not wait for one.
                async with asyncio.timeout(self._settings.publish_timeout):
                    await self._mourn(worker, code, held)
            except TimeoutError:
                log.warning("a death was not recorded", extra={"worker": worker, "error": "the server is away"})
            if self._leaving.is_set():
                return
            if code == NO_APP:
                self._on_failed()
                return
            pause = FIRST_PAUSE if time.monotonic() - born > YOUNG else min(pause * 2, LONGEST_PAUSE)
            log.warning(
                "a worker died and is replaced",
                extra={"worker": worker, "reason": _reason(code), "tasks": len(held), "pause": f"{pause:.1f} s"},
            )
            try:
                async with asyncio.timeout(pause):
                    await self._leaving.wait()
            except TimeoutError:
                continue

    def drain(self) -> None:
        """The worker is to leave when it has done what it executes."""
        self._leaving.set()
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """The worker is to end now."""
        self._leaving.set()
        self._killed = True
        self._send(signal.SIGKILL)

    def tell(self, how: How, by: str) -> None:
        """The same by an operator's order. Said again, or to drain where it stops: nothing new."""
        if self._told in (how, "stop"):
            return
        self._told, self._told_by = how, by[:LONGEST_NAME]
        log.info("a worker is told to leave", extra={"worker": self.worker, "how": how, "by": self._told_by})
        self._name_operator()  # first: the heartbeat that confirms the order is to say whose it is
        if how == "drain":
            self.drain()
            return
        self._leaving.set()
        self._send(AT_ONCE)
        # Where a processor blocks its loop, it does not even learn of it.
        patience = LAST_WORDS + self._settings.kill_grace
        asyncio.get_running_loop().call_later(patience, self._send, signal.SIGKILL)

    def _name_operator(self) -> None:
        """Let the worker know who told it to leave, if anybody has: its heartbeats say so."""
        if self._told_by and self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(msgspec.json.encode(self._told_by) + b"\n")

    # --- how ---------------------------------------------------------------------------------------

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            # Not by the Process: it would reap the child by itself, and asyncio would never learn how it ended.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    async def _run_worker(self, worker: str, table: Path) -> int:
        assignment = msgspec.structs.replace(self._assignment, worker=worker, table=str(table))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "corral.worker_process",
            stdin=asyncio.subprocess.PIPE,
            # Out of reach of the terminal's Ctrl-C, which is for the pool.
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self._process, self.worker = process, worker
        if self._leaving.is_set():  # said while the process was being made
            self._send(signal.SIGKILL if self._killed else AT_ONCE if self._told == "stop" else signal.SIGTERM)
        watching = asyncio.create_task(self._watch(worker))
        try:
            assert process.stdin is not None
            process.stdin.write(msgspec.json.encode(assignment) + b"\n")
            self._name_operator()
            return await process.wait()
        finally:
            watching.cancel()
            self._process = None
            if process.returncode is None:
                process.kill()

    async def _watch(self, worker: str) -> None:
        """Note when the worker has begun; end it when a processor blocks its loop for too long."""
        silence = max(self._settings.death, self._settings.blocked_limit)
        last, heard_at = None, time.monotonic()
        while True:
            beat = self._roster.beat(worker)
            if beat is not None and beat is not last:
                last, heard_at = beat, time.monotonic()
                if not self._ready:
                    self._ready = True
                    self._on_ready()
                if beat.blocked > self._settings.blocked_limit:
                    log.error("a blocked worker is ended", extra={"worker": worker, "by": beat.blocked_by})
                    self._send(signal.SIGKILL)
                    return
            # Not even its lifeline speaks: something holds the interpreter, or the process is stopped.
            if last is not None and time.monotonic() - heard_at > silence and self._connection.connected:
                log.error("a silent worker is ended", extra={"worker": worker, "seconds": round(silence, 1)})
                self._send(signal.SIGKILL)
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.beat * 2):
                    await self._next_beat()

    async def _mourn(self, worker: str, code: int, held: Sequence[Held]) -> None:
        """Say that a worker is dead and which tasks died with it, and give them back to the queue at once.

        Else the one would be known after the death time-out, and the other done after ack_wait.
        """
        if (beat := self._roster.beat(worker)) is not None:
            last = msgspec.structs.replace(beat, running={}, roots=[], stopping=[], leaving=True)
            await self._connection.publish(self._names.beat(worker), encode(last))
        runs: dict[str, list[Held]] = {}
        for each in held:
            runs.setdefault(each.run_id, []).append(each)
        for run_id, lost in runs.items():
            event = events.Crashed(worker=worker, tasks=[each.task for each in lost], reason=_reason(code))
            try:
                await self._publisher.store(self._names.event(run_id, events.kind(event)), events.encode_event(event))
                for each in lost:
                    if each.reply:
                        await Delivery(self._connection, "", b"", each.reply).nak()
            except CorralError as error:
                log.warning("a death was not recorded", extra={"worker": worker, "run": run_id, "error": str(error)})


def _reason(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
