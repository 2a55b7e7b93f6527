"""What happens in a history: which runs are started when, and which faults strike. All of it follows from the seed."""

from __future__ import annotations

from typing import Literal

import msgspec

from corral.starter import OnDuplicate
from tests.chaos.work import Work

LENGTH = 4.0
"""Seconds in which things are begun and faults strike; then everything is healed."""
POOLS = ("a", "b")
PRODUCERS = ("p", "q")


class Start(msgspec.Struct, frozen=True, omit_defaults=True):
    """A producer starts a run. Without an answer, or killed, it does so again, unless it gives up."""

    at: float
    producer: str
    id: str
    work: Work
    key: str | None = None
    on_duplicate: OnDuplicate = "reject"
    gives_up: bool = False


class Interrupt(msgspec.Struct, frozen=True):
    """A producer orders a run to stop."""

    at: float
    producer: str
    id: str
    kill_after: float | None = None


Part = Literal["", "tasks", "topic"]
"""Of a run everything, every second of its errors, or all of one topic."""


class Retry(msgspec.Struct, frozen=True, omit_defaults=True):
    """Once the run has ended, what was flaky is healed, and a producer retries it, or a part of it."""

    producer: str
    id: str
    part: Part = ""


What = Literal[
    "kill",  # the process that announces the step; else a worker
    "kill pool",  # with its workers
    "kill pool only",
    "kill bookkeeper",
    "kill producer",
    "kill child",  # the process of an isolated task, and not its worker
    "freeze",  # a worker
    "freeze pool",
    "freeze bookkeeper",
    "drain",
    "kill server",
    "stop server",
    "server away",  # for a minute
    "freeze server",
    "fill server",
    "lose tail",
    "cut",
    "refuse",
    "hold up",
    "hold down",
    "hold both",
    "cut in frame",
    "delay",
    "depose",  # the bookkeeper's lease is taken away
    "step down",  # of the leader of a stream
    "kill leader",
    "rolling restart",
    "refuse node",  # one of three, and who is on its side, are cut off from the others
    "hold node",
    "hold node out",  # what comes from that side
    "hold node in",
]


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something goes wrong: at a time, or when a process comes to a step for the `nth` time."""

    what: What
    at: float = 0.0
    step: str = ""
    nth: int = 1
    whom: str = ""
    """A pool, a producer, a stream. Of a node that is cut off: who is on its side, and all others on the other;
    empty: only the routes between the servers are cut."""
    which: int = 0
    """Among several, this one modulo their number."""
    seconds: float = 0.0
    """How long it lasts."""

    def __str__(self) -> str:
        when = f"at {self.step} #{self.nth}" if self.step else f"at {self.at:.2f} s"
        lasts = f" for {self.seconds:.1f} s" if self.seconds else ""
        whom = f" {self.whom}" if self.whom else ""
        return f"{self.what}{whom} {when}{lasts}"


class Plan(msgspec.Struct, frozen=True):
    """One history."""

    seed: int
    cluster: bool
    starts: list[Start]
    interrupts: list[Interrupt]
    retries: list[Retry]
    faults: list[Fault]
    both_lead: bool
    """Both pools take themselves for the bookkeeper."""
    clocks: dict[str, float]
    """By how many seconds a pool's clock jumps."""
    workers: dict[str, int]
    slots: int
