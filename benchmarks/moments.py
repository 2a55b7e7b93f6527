"""What happened when in other processes: they append to a file, which costs a few microseconds and loses nothing."""

from __future__ import annotations

import asyncio
import os
import struct
import time
from functools import cache
from pathlib import Path

from benchmarks.child import DEADLINE

VARIABLE = "CORRAL_BENCHMARK_MOMENTS"
"""The environment variable that names the file."""
_MOMENT = struct.Struct("=8sq")


def note(what: str) -> None:
    """Note that `what` (8 letters at most) happens now."""
    os.write(_file(), _MOMENT.pack(what.encode(), now()))


def now() -> int:
    """Nanoseconds of a clock that all processes of the machine share."""
    return time.monotonic_ns()


class Moments:
    """The reader's side."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch()

    def clear(self) -> None:
        """Forget what was noted so far."""
        os.truncate(self._path, 0)

    def of(self, what: str) -> list[int]:
        """When it happened, in the order of noting."""
        name = what.encode().ljust(8, b"\0")
        return [at for noted, at in _MOMENT.iter_unpack(self._path.read_bytes()) if noted == name]

    async def reached(self, what: str, count: int) -> list[int]:
        """As `of`, once it has happened `count` times."""
        async with asyncio.timeout(DEADLINE):
            while len(found := self.of(what)) < count:  # noqa: ASYNC110  # a file that grows tells nobody
                await asyncio.sleep(0.002)
        return found


@cache
def _file() -> int:
    # Appending is atomic: the processes do not overwrite each other.
    return os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_APPEND)
