"""The process of one worker: `python -m corral.worker_process`, started by a pool.

Its standard input brings a line of JSON, the `Assignment`, and one more if an operator tells it to leave: who that is.
The end of it says that the pool is dead, and then the worker hands back what it holds and leaves. A thread watches for
that, so that not even a processor that blocks the loop outlives the pool.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import NoReturn

import msgspec

from corral.credentials import Access
from corral.errors import AppNotFound, CorralError
from corral.isolation import ChildAssignment, Isolation
from corral.jetstream.connection import Connection
from corral.loader import load_app
from corral.logs import log_to_stderr
from corral.settings import Settings
from corral.slottable import SlotTable
from corral.worker import Identity, Worker

log = logging.getLogger(__name__)

NO_APP = 78
"""Exit code: the app could not be imported."""
NO_SERVER = 69
"""Exit code: the server could not be reached at the start."""
REPLACE_ME = 75
"""Exit code: a task was to be killed, and only with its process."""
AT_ONCE = signal.SIGUSR1
"""The signal by which its pool tells it to hand back everything and leave; at SIGTERM it drains."""
ORPHANED = 5.0
"""Seconds that a worker whose pool is dead may take to hand back its tasks."""


class Assignment(msgspec.Struct, frozen=True):
    """What a worker is told by its pool."""

    worker: str
    pool: str
    app: str
    access: Access
    slots: int
    topics: list[str]
    table: str
    isolated: int
    """Isolated tasks that it executes at once."""
    settings: Settings


def main() -> None:
    """Work until told to leave; ends the process."""
    # Unbuffered: who reads with a buffer holds its lock, and a process that is forked from this one would wait for it.
    pool = FileIO(sys.stdin.fileno(), closefd=False)
    assignment = msgspec.json.decode(pool.readline(), type=Assignment)
    log_to_stderr(assignment.worker)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the pool, which tells its workers
    try:
        asyncio.run(_work(assignment, pool))
    except AppNotFound as error:
        log.error("%s", error)  # the sentence says it all
        code = NO_APP
    except CorralError as error:
        log.error("%s", error)
        code = NO_SERVER
    except Exception:
        log.exception("the worker failed")
        code = 1
    _leave(code)


def _leave(code: int) -> NoReturn:
    """End the process at once: Python's own way would wait for the threads of processors that do not end."""
    logging.shutdown()
    os._exit(code)


async def _work(assignment: Assignment, pool: FileIO) -> NoReturn:
    app = load_app(assignment.app)
    leave, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def at_once() -> None:
        hurry.set()
        leave.set()

    loop.add_signal_handler(signal.SIGTERM, leave.set)
    loop.add_signal_handler(AT_ONCE, at_once)
    watch = _PoolWatch(pool, loop, at_once)
    threading.Thread(target=watch.run, daemon=True, name="pool watch").start()
    connection = await Connection.open(assignment.access, name=f"corral worker {assignment.worker}")
    try:
        worker = Worker(
            app,
            connection,
            settings=assignment.settings,
            identity=Identity(assignment.worker, assignment.pool, socket.gethostname(), os.getpid()),
            slots=assignment.slots,
            topics={topic: app.processors[topic] for topic in assignment.topics},
            table=SlotTable(Path(assignment.table), assignment.slots),
            isolation=Isolation(
                ChildAssignment(assignment.app, assignment.worker, assignment.access, assignment.settings),
                assignment.isolated,
            ),
            told_by=lambda: watch.operator,
        )
        in_order = await worker.run(leave, hurry)
    finally:
        await connection.close()
    _leave(0 if in_order else REPLACE_ME)


class _PoolWatch:
    """Reads what the pool says after the assignment, in a thread: what blocks the loop does not block this."""

    def __init__(self, pool: FileIO, loop: asyncio.AbstractEventLoop, at_once: Callable[[], None]) -> None:
        self._pool = pool
        self._loop = loop
        self._at_once = at_once
        self.operator = ""
        """Who told the worker to leave; empty if nobody has."""

    def run(self) -> None:
        """Return, or end the process, when the pool is gone."""
        for line in self._pool:
            with contextlib.suppress(msgspec.DecodeError):
                self.operator = msgspec.json.decode(line, type=str)
        try:
            self._loop.call_soon_threadsafe(self._at_once)
        except RuntimeError:
            return  # the loop is closed: leaving already
        time.sleep(ORPHANED)  # then it has had its time, whatever it does
        os._exit(1)


if __name__ == "__main__":
    main()
