"""Tasks in processes of their own, which can be killed: the worker's side.

A child imports the app itself, enters its lifespan, and executes one task at a time. What it sends goes through its
worker, so that its fan-out is like any other. It lives as long as its worker at most: its standard input ends with
the worker.

    Execute ->      <- Ready      <- Call(send) ... Reply ->      <- Done
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from corral.context import Wiring
from corral.credentials import Access
from corral.decoding import decoder
from corral.errors import CorralError, Interrupted, Superseded, Unreadable
from corral.executor import Failure, Outcome, Stopped, failed_attempt, fingerprint
from corral.messages import TaskId
from corral.places import Places
from corral.processor import Processor
from corral.settings import Settings

log = logging.getLogger(__name__)

_HEADER = 4


class ChildAssignment(msgspec.Struct, frozen=True):
    """What a child is told first."""

    app: str
    worker: str
    access: Access
    settings: Settings


class Execute(msgspec.Struct, frozen=True, tag="execute"):
    """Execute this task."""

    run_id: str
    task: TaskId
    topic: str
    attempt: int
    limit: int
    body: msgspec.Raw


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """The task's run is ordered to stop."""


class Reply(msgspec.Struct, frozen=True, tag="reply"):
    """A send is done, or was refused."""

    number: int
    error: str = ""
    superseded: bool = False
    interrupted: bool = False


class Call(msgspec.Struct, frozen=True, tag="call"):
    """Send this task."""

    number: int
    topic: str
    body: msgspec.Raw


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The child can execute tasks; and then, for each: it has this one, and begins."""


class Done(msgspec.Struct, frozen=True, tag="done"):
    """How the task went."""

    outcome: Outcome


ToChild = Execute | Stop | Reply
FromChild = Call | Done | Ready
_from_child: Callable[[bytes], FromChild] = decoder(FromChild, "what the process says")


async def write(writer: asyncio.StreamWriter, message: msgspec.Struct) -> None:
    """Send one message: its length in four bytes, then JSON."""
    data = msgspec.json.encode(message)
    writer.write(len(data).to_bytes(_HEADER, "big") + data)
    await writer.drain()


async def read(reader: asyncio.StreamReader) -> bytes:
    """One message; IncompleteReadError when the other side is gone."""
    size = int.from_bytes(await reader.readexactly(_HEADER), "big")
    return await reader.readexactly(size)


class Child:
    """One process."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.process = process
        self.reader = reader
        self.writer = writer
        self.has_task = False
        """Whether it has said that it has the task that it was sent."""

    @classmethod
    async def start(cls, assignment: ChildAssignment) -> Child:
        """Start a process, and return when it can execute tasks; ConnectionError if it dies before."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "corral.isolated_process",
                str(theirs.fileno()),
                stdin=asyncio.subprocess.PIPE,
                pass_fds=[theirs.fileno()],
            )
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(assignment) + b"\n")
        reader, writer = await asyncio.open_connection(sock=ours)
        child = cls(process, reader, writer)
        try:
            await child.receive()
        except BaseException:
            await child.kill()
            raise
        return child

    async def receive(self) -> FromChild:
        """The next message; ConnectionError when the process has died."""
        try:
            return _from_child(await read(self.reader))
        except asyncio.IncompleteReadError:
            raise ConnectionError("the process has died") from None
        except Unreadable as error:  # the user's code has written where it should not
            raise ConnectionError(str(error)) from None

    async def kill(self) -> int:
        """End the process at once; how it ended."""
        if self.process.returncode is None:
            # Not by the Process: it would reap the child by itself, and asyncio would never learn how it ended.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)
        self.writer.close()
        return await self.process.wait()


class _NotBegun(Exception):
    """The process has died before the task began. Says how."""


class Isolation:
    """The children of one worker, started when they are needed and used again: `size`, and one for each `lend`."""

    def __init__(self, assignment: ChildAssignment, size: int) -> None:
        self.size = size
        self._assignment = assignment
        self._places = Places(size)
        self._idle: list[Child] = []
        self._all: set[Child] = set()
        self._grace = assignment.settings.kill_grace

    async def execute(self, processor: Processor[Any, ..., Any], body: bytes, wiring: Wiring[Any]) -> Outcome:
        """As `executor.execute`, in a child. Cancelled, it tells the child to stop, and kills it after a grace."""
        async with self._places.taken(wiring.stop):
            return await self._execute(processor, body, wiring)

    def lend(self, stop: object) -> None:
        """Let one more task have a child, although the one of this flag keeps its own."""
        self._places.lend(stop)

    async def close(self) -> None:
        """End all children."""
        for child in list(self._all):
            await self._end(child)

    # --- how ---------------------------------------------------------------------------------------

    async def _execute(self, processor: Processor[Any, ..., Any], body: bytes, wiring: Wiring[Any]) -> Outcome:
        # What has killed a process before it had the task was not the task, which has a right to be executed.
        with contextlib.suppress(_NotBegun):
            return await self._attempt(processor, body, wiring)
        try:
            return await self._attempt(processor, body, wiring, fresh=True)
        except _NotBegun as error:
            return failed_attempt(processor, wiring.attempt, _killed(processor, f"it did not start: {error}"))

    async def _attempt(
        self, processor: Processor[Any, ..., Any], body: bytes, wiring: Wiring[Any], *, fresh: bool = False
    ) -> Outcome:
        try:
            child = await (self._start() if fresh else self._take())
        except (ConnectionError, OSError) as error:
            raise _NotBegun(str(error)) from None
        talking = asyncio.create_task(self._talk(child, body, wiring))
        limit = None if processor.timeout is None else processor.timeout + self._grace
        try:
            return await self._watch(child, talking, processor, wiring, limit)
        finally:
            talking.cancel()
            await asyncio.wait({talking})
            if child.process.returncode is None and not child.reader.at_eof() and talking_ended_well(talking):
                self._idle.append(child)
            else:
                await self._end(child)

    async def _take(self) -> Child:
        while self._idle:
            child = self._idle.pop()
            if child.process.returncode is None:
                return child
            await self._end(child)
        return await self._start()

    async def _start(self) -> Child:
        child = await Child.start(self._assignment)
        self._all.add(child)
        return child

    async def _end(self, child: Child) -> int:
        self._all.discard(child)
        return await child.kill()

    async def _watch(
        self,
        child: Child,
        talking: asyncio.Task[Outcome],
        processor: Processor[Any, ..., Any],
        wiring: Wiring[Any],
        limit: float | None,
    ) -> Outcome:
        stopping = False
        while True:
            try:
                done, _ = await asyncio.wait({talking}, timeout=limit)
            except asyncio.CancelledError:
                if stopping:
                    raise
                stopping, limit = True, self._grace
                with contextlib.suppress(ConnectionError):
                    await write(child.writer, Stop())
                continue
            if done and not isinstance(talking.exception(), ConnectionError):
                return talking.result()
            code = await self._end(child)
            if stopping:
                return Stopped(killed=True)
            if done and not child.has_task:
                raise _NotBegun(f"it {_ending(code)}")
            why = f"it {_ending(code)}" if done else f"it took longer than {processor.timeout:g} s"
            return failed_attempt(processor, wiring.attempt, _killed(processor, why))

    async def _talk(self, child: Child, body: bytes, wiring: Wiring[Any]) -> Outcome:
        task = Execute(wiring.run_id, wiring.task, wiring.topic, wiring.attempt, wiring.limit, msgspec.Raw(body))
        child.has_task = False
        await write(child.writer, task)
        while True:
            match await child.receive():
                case Done(outcome=outcome):
                    return outcome
                case Call() as call:
                    await write(child.writer, await self._send(call, wiring))
                case Ready():
                    child.has_task = True

    async def _send(self, call: Call, wiring: Wiring[Any]) -> Reply:
        try:
            await wiring.send(call.topic, bytes(call.body))
        except Superseded:
            return Reply(call.number, superseded=True)
        except Interrupted:
            return Reply(call.number, interrupted=True)
        except CorralError as error:
            return Reply(call.number, error=str(error))
        return Reply(call.number)


def talking_ended_well(talking: asyncio.Task[Outcome]) -> bool:
    """Whether the child has said how its task went, so that it is free for another."""
    return not talking.cancelled() and talking.exception() is None


def _killed(processor: Processor[Any, ..., Any], why: str) -> Failure:
    message = f"the process of this task was ended: {why}"
    return Failure("Killed", message, "", fingerprint("Killed", message, processor.__name__))


def _ending(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"died of {signal.Signals(-code).name}"
    except ValueError:
        return f"died of signal {-code}"


def children(workers: int) -> int:
    """How many isolated tasks each of so many workers runs at once."""
    return max(1, (os.cpu_count() or 1) // max(1, workers))
