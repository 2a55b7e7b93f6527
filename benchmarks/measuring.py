"""What a benchmark is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from benchmarks.figures import Figure

Bring = Callable[[list[Figure]], None]
"""Takes the figures of one run; each run of a benchmark brings the same ones."""


@dataclass(frozen=True)
class Benchmark:
    """Something that can be measured a number of times."""

    name: str
    repeat: int
    """How often, where nobody says otherwise."""
    measure: Callable[[int, Bring], Awaitable[None]]
    short: Callable[[int, Bring], Awaitable[None]]
    """The same with less of everything."""
    long: bool = False
    """It takes minutes: only when asked for."""
