"""Counts over a whole life, in a fixed number of columns: when there is no more room, neighbours are put together."""

from __future__ import annotations

WIDTH = 24


class Timeline:
    """Counts of things that happened, from the first on. Times are seconds since the epoch, mostly ascending."""

    __slots__ = ("_counts", "_start", "_step")

    def __init__(self) -> None:
        self._start: float | None = None
        self._step = 1.0
        self._counts: list[int] = []

    def add(self, at: float, count: int = 1) -> None:
        """`count` of them at this time."""
        if self._start is None:
            self._start = at
        column = max(0, int((at - self._start) / self._step))
        while column >= WIDTH:
            self._counts = [sum(self._counts[at : at + 2]) for at in range(0, len(self._counts), 2)]
            self._step *= 2
            column = int((at - self._start) / self._step)
        if column >= len(self._counts):
            self._counts += [0] * (column + 1 - len(self._counts))
        self._counts[column] += count

    def columns(self) -> tuple[float, ...]:
        """The counts, the oldest first; all columns are equally long."""
        return tuple(map(float, self._counts))
