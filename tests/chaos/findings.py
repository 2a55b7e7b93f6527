"""What the checker goes by: the notes of the processors and the faults that struck; and what it has found."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import msgspec

from tests.chaos.work import Begun, Over

if TYPE_CHECKING:
    from tests.chaos.world import World

STALL = 1.0
"""Seconds without a heartbeat after which the machine itself has held a worker up."""


class Findings(msgspec.Struct):
    """What is wrong, and what was counted."""

    wrong: list[str] = []
    runs: int = 0
    tasks: int = 0
    executions: int = 0
    extra: int = 0
    """Executions beyond those that had to be."""
    rounds: int = 0
    outcomes: Counter[str] = msgspec.field(default_factory=Counter)

    def check(self, fact: object, what: str) -> None:
        """Note what does not hold."""
        if not fact:
            self.wrong.append(what)


class Truth:
    """What was executed."""

    def __init__(self, world: World) -> None:
        begun, self.ends = world.executions()
        self.runs: dict[str, dict[str, list[Begun]]] = defaultdict(lambda: defaultdict(list))
        for execution in sorted(begun, key=lambda execution: execution.at):
            self.runs[execution.run][execution.task].append(execution)

    def of(self, run_id: str) -> dict[str, list[Begun]]:
        """Executions by task."""
        return self.runs.get(run_id, {})

    def tasks(self, run_id: str) -> list[str]:
        """The name of each task that was executed."""
        return [begun[0].name for begun in self.of(run_id).values()]

    def succeeded(self, run_id: str, name: str) -> bool:
        """Whether the task of this name came to a good end at least once."""
        executions = [one for begun in self.of(run_id).values() for one in begun if one.name == name]
        return any((end := self.end(one)) is not None and end.how == "ok" for one in executions)

    def end(self, execution: Begun) -> Over | None:
        """How it ended; None if it was killed."""
        return self.ends.get((execution.pid, execution.number))


def why(world: World, execution: Begun) -> str | None:
    """What was done to the process of an execution, or around it."""
    done = [world.struck[pid] for pid in (execution.pid, *world.ancestors(execution.pid)) if pid in world.struck]
    done += world.servers_struck
    if world.pool_of(execution.pid) in world.lines_struck:
        done.append("its connection")
    if any(order.kill_after for order in world.plan.interrupts):
        done.append("its worker was to be replaced")
    if world.silent.get(execution.pid, 0.0) > STALL:
        done.append("held up by the machine")
    return ", ".join(done) or None
