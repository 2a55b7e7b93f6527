"""What a worker is executing, in memory that outlives it: the pool reads it when the worker is dead.

A file of fixed slots, mapped by the worker. Writing a slot is a single `pack_into`: it costs about a microsecond,
and survives kill -9.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import NamedTuple

from corral.messages import TaskId

_SLOT = struct.Struct("<64sqqq224s")
"""Run id, batch, ordinal, 1 while executing, where the delivery is answered."""
_USED = struct.Struct("<q")
_USED_AT = 64 + 8 + 8
_LONGEST_REPLY = 224


class Held(NamedTuple):
    """A task that was executed when its worker died."""

    run_id: str
    task: TaskId
    reply: str
    """Where its delivery is answered; empty if that did not fit."""


class SlotTable:
    """The worker's side. `slots` is how many tasks it executes at once; more are not noted."""

    def __init__(self, path: Path, slots: int) -> None:
        with path.open("w+b") as file:
            file.truncate(_SLOT.size * slots)
            self._map = mmap.mmap(file.fileno(), _SLOT.size * slots)
        self._free = list(range(slots - 1, -1, -1))

    def begin(self, run_id: str, task: TaskId, reply: str) -> int:
        """Note that a task is executed; returns its slot, -1 if none is free."""
        if not self._free:
            return -1
        slot = self._free.pop()
        answer = reply.encode() if len(reply) <= _LONGEST_REPLY else b""
        _SLOT.pack_into(self._map, slot * _SLOT.size, run_id.encode(), task[0], task[1], 1, answer)
        return slot

    def end(self, slot: int) -> None:
        """Note that it is no longer."""
        if slot >= 0:
            _USED.pack_into(self._map, slot * _SLOT.size + _USED_AT, 0)
            self._free.append(slot)


def read(path: Path) -> list[Held]:
    """What was executed when the writer of the table died."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    held = []
    for offset in range(0, len(data) - len(data) % _SLOT.size, _SLOT.size):
        run, batch, ordinal, used, reply = _SLOT.unpack_from(data, offset)
        if used:
            held.append(Held(run.rstrip(b"\0").decode(), (batch, ordinal), reply.rstrip(b"\0").decode()))
    return held
