"""The process of isolated tasks: `python -m corral.isolated_process FD`, started by a worker.

Its standard input brings the `ChildAssignment`, and then nothing: the end of it says that the worker is dead, and
then this process ends at once, whatever it does.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from corral.context import Stop as StopFlag
from corral.context import Wiring
from corral.errors import BadMessage, Interrupted, Superseded
from corral.executor import Outcome, Stopped, execute, failure
from corral.isolation import Call, ChildAssignment, Done, Execute, Ready, Reply, Stop, ToChild, read, write
from corral.jetstream.connection import Connection
from corral.loader import load_app
from corral.logs import log_to_stderr
from corral.operations import Operations, Run
from corral.processor import App
from corral.starter import child_id


def main() -> None:
    """Execute tasks until the worker is gone."""
    assignment = msgspec.json.decode(_line(), type=ChildAssignment)
    log_to_stderr(f"{assignment.worker}/{os.getpid()}")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the worker decides
    threading.Thread(target=_end_with_worker, daemon=True, name="worker watch").start()
    asyncio.run(_Session(assignment).run(socket.socket(fileno=int(sys.argv[1]))))
    os._exit(0)


def _line() -> bytes:
    """The first line of standard input, without reading on."""
    data = bytearray()
    while not data.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            os._exit(1)
        data += byte
    return bytes(data)


def _end_with_worker() -> None:
    while os.read(0, 1024):
        pass
    os._exit(1)


class _Session:
    """The tasks of this process, one after another."""

    def __init__(self, assignment: ChildAssignment) -> None:
        self._assignment = assignment
        self._app: App[Any] = load_app(assignment.app)
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="processor")
        self._numbers = itertools.count(1)
        self._calls: dict[int, asyncio.Future[None]] = {}
        self._operations: Operations | None = None
        self._executing: asyncio.Task[None] | None = None
        self._stop = StopFlag()

    async def run(self, channel: socket.socket) -> None:
        """Take tasks from the worker until it is gone."""
        reader, self._writer = await asyncio.open_connection(sock=channel)
        decode = msgspec.json.Decoder(ToChild).decode
        async with self._app.lifespan() as self._state:
            await write(self._writer, Ready())
            try:
                while True:
                    match decode(await read(reader)):
                        case Execute() as task:
                            self._stop = StopFlag()
                            self._executing = asyncio.create_task(self._execute(task))
                        case Stop():
                            self._halt()
                        case Reply() as reply:
                            self._answered(reply)
            except asyncio.IncompleteReadError:
                return

    def _halt(self) -> None:
        self._stop.set()
        if self._executing is not None:
            self._executing.cancel()  # a thread only sees the flag

    def _answered(self, reply: Reply) -> None:
        future = self._calls.pop(reply.number, None)
        if future is None or future.done():
            return
        if reply.superseded:
            future.set_exception(Superseded())
        elif reply.interrupted:
            future.set_exception(Interrupted())
        elif reply.error:
            future.set_exception(BadMessage("", reply.error))
        else:
            future.set_result(None)

    async def _execute(self, task: Execute) -> None:
        processor = self._app.processors[task.topic]
        outcome: Outcome
        try:
            await write(self._writer, Ready())
            outcome = await execute(processor, bytes(task.body), self._wiring(task), self._threads)
        except asyncio.CancelledError as error:
            outcome = Stopped() if self._stop.is_set() else failure(error)
        except Exception as error:  # noqa: BLE001  # the worker waits for an outcome
            outcome = failure(error)
        await write(self._writer, Done(outcome))

    def _wiring(self, task: Execute) -> Wiring[Any]:
        starts = itertools.count(1)

        async def start(target: Any, message: Any, **options: Any) -> Run:
            operations = await self._connected()
            return await operations.start(target, message, id=child_id(task.run_id, task.task, next(starts)), **options)

        return Wiring(
            run_id=task.run_id,
            task=task.task,
            topic=task.topic,
            attempt=task.attempt,
            state=self._state,
            stop=self._stop,
            processors=self._app.processors,
            limit=task.limit,
            send=self._send,
            start=start,
        )

    async def _send(self, topic: str, body: bytes) -> None:
        number = next(self._numbers)
        future = self._calls[number] = asyncio.get_running_loop().create_future()
        await write(self._writer, Call(number, topic, msgspec.Raw(body)))
        await future

    async def _connected(self) -> Operations:
        """A connection of this process's own, for what needs more than a send."""
        if self._operations is None:
            name = f"corral child of {self._assignment.worker}"
            connection = await Connection.open(self._assignment.access, name=name)
            self._operations = Operations(connection, self._assignment.settings, by=self._assignment.worker)
        return self._operations


if __name__ == "__main__":
    main()
