"""What a task of a history is told to do, and what it writes down about that. The checker reads both."""

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

FOLDER = "CORRAL_CHAOS_FOLDER"
How = Literal["ok", "fail", "reject", "flaky", "requeue", "fickle", "start", "deaf"]


class Work(msgspec.Struct, frozen=True, omit_defaults=True):
    """The message of every task: its name, which occurs once in a history, and what is to be done."""

    name: str
    topic: str = "calm"
    how: How = "ok"
    """`fail` in the first `times` attempts; `reject` always; `flaky`: error until the run is healed; `requeue` in the
    first execution; `fickle`: sends something else in each; `start`: starts a run of its own; `deaf`: a thread that
    never looks whether it is to stop."""
    times: int = 0
    seconds: float = 0.0
    fan: list[Work] = []
    """What it sends first."""
    many: int = 0
    """So many more children, which only take `each` seconds."""
    each: float = 0.0
    key: str = ""

    def children(self) -> list[Work]:
        """All that it sends, in order."""
        return [*self.fan, *(Work(f"{self.name}.m{i}", seconds=self.each) for i in range(self.many))]

    def family(self) -> list[Work]:
        """It, and all that is sent because of it."""
        return [self, *(one for child in self.children() for one in child.family())]


def run_of(name: str) -> Work:
    """What a task of this name starts as a run of its own."""
    return Work(f"{name}.run", many=3)


class Begun(msgspec.Struct, frozen=True, tag="begun"):
    """An execution has begun. `at` is the machine's monotonic clock, the same for all processes."""

    run: str
    task: str
    name: str
    attempt: int
    pid: int
    at: float
    number: int


class Over(msgspec.Struct, frozen=True, tag="over"):
    """An execution has ended: `ok`, `error`, `again` or `cancelled`."""

    pid: int
    number: int
    how: str
    at: float


class Process(msgspec.Struct, frozen=True, tag="process"):
    """A process has started."""

    role: str
    pid: int
    parent: int
    at: float


Line = Begun | Over | Process


def note(line: Line) -> None:
    """Write a line in a file of this process's own, which outlives it."""
    os.write(_truth(os.getpid()), msgspec.json.encode(line) + b"\n")


def read_notes() -> list[Line]:
    """All that was written so far in this history, in no order between processes. (In the harness.)"""
    lines: list[Line] = []
    for path in folder().glob("*.jsonl"):
        for line in path.read_bytes().splitlines():
            lines.append(msgspec.json.decode(line, type=Line))  # noqa: PERF401
    return lines


def first_time(what: str) -> bool:
    """Whether nobody in this history has asked this before."""
    try:
        os.close(os.open(folder() / what, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def is_healed(run: str) -> bool:
    """Whether what is flaky succeeds from now on."""
    return (folder() / f"healed-{run}").exists()


def heal(run: str) -> None:
    """From now on what is flaky in this run succeeds."""
    (folder() / f"healed-{run}").touch()


def now() -> float:
    """The clock of the notes."""
    return time.monotonic()


def folder() -> Path:
    """Where notes are kept."""
    return Path(os.environ[FOLDER])


@cache
def _truth(pid: int) -> int:
    return os.open(folder() / f"{pid}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
