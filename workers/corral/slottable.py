"""What a worker is executing, in memory that outlives it: the pool reads it when the worker is dead.

A file of fixed slots, mapped by both. Writing a slot is a single `pack_into`: it costs less than a microsecond, and survives
kill -9.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from corral.messages import TaskId

_SLOT = struct.Struct("<64sqqq")
"""Run id, batch, ordinal, 1 while executing."""
_EMPTY = _SLOT.pack(b"", 0, 0, 0)


class SlotTable:
    """The worker's side. `slots` is how many tasks it executes at once; more are not noted."""

    def __init__(self, path: Path, slots: int) -> None:
        with path.open("w+b") as file:
            file.truncate(_SLOT.size * slots)
            self._map = mmap.mmap(file.fileno(), _SLOT.size * slots)
        self._free = list(range(slots - 1, -1, -1))

    def begin(self, run_id: str, task: TaskId) -> int:
        """Note that a task is executed; returns its slot, -1 if none is free."""
        if not self._free:
            return -1
        slot = self._free.pop()
        _SLOT.pack_into(self._map, slot * _SLOT.size, run_id.encode(), task[0], task[1], 1)
        return slot

    def end(self, slot: int) -> None:
        """Note that it is no longer."""
        if slot >= 0:
            self._map[slot * _SLOT.size : (slot + 1) * _SLOT.size] = _EMPTY
            self._free.append(slot)

    def close(self) -> None:
        self._map.close()


def read(path: Path) -> dict[str, list[TaskId]]:
    """Tasks that were executed when the writer died, by run."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    tasks: dict[str, list[TaskId]] = {}
    for offset in range(0, len(data) - len(data) % _SLOT.size, _SLOT.size):
        run, batch, ordinal, used = _SLOT.unpack_from(data, offset)
        if used:
            tasks.setdefault(run.rstrip(b"\0").decode(), []).append((batch, ordinal))
    return tasks
