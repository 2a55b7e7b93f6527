"""What has moved while somebody watched, however many runs that are: the newest of them, and sums over all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from corral.cli.output import plural
from corral.cli.progress import run_line
from corral.runs import RunStatus

SHOWN = 20
"""Runs that are kept whole."""
MARGIN = 60.0
"""Seconds by which clocks may differ."""
REMEMBERED = 10_000
"""Ended runs of which it is known what they were counted for, should a retry bring one back."""


class Sums(NamedTuple):
    """Over some runs."""

    runs: int = 0
    ended: int = 0
    total: int = 0
    done: int = 0
    error: int = 0
    running: int = 0

    @classmethod
    def over(cls, runs: Iterable[RunStatus]) -> Sums:
        """Of these runs."""
        whole = cls()
        for run in runs:
            whole = whole.plus(_of(run))
        return whole

    def plus(self, other: Sums, times: int = 1) -> Sums:
        """With `other` added; with `times` -1 taken away."""
        return Sums(*(mine + times * more for mine, more in zip(self, other, strict=True)))

    def __str__(self) -> str:
        tasks = f"{self.done:,} of {self.total:,} tasks done, {plural(self.error, 'error')}, {self.running:,} running"
        return f"{plural(self.runs, 'run')}, {self.ended:,} of them ended: {tasks}"


class Moved:
    """Takes each status that a run gets. What it keeps does not grow with the number of runs that have ended.

    `since` is when watching began, in seconds since the epoch.
    """

    def __init__(self, since: float) -> None:
        self._since = since
        self._live: dict[str, RunStatus] = {}
        self._ended: dict[str, Sums] = {}
        """The latest of those that have ended, the last one last."""
        self._over = Sums()
        """Over all that have ended, remembered or not."""
        self._newest: dict[str, RunStatus] = {}

    def take(self, run: RunStatus) -> bool:
        """A run has another status; False if it had ended before, and its record was only written once more."""
        before = self._ended.get(run.id)
        if run.ended and before == _of(run):
            return False
        if run.ended and run.finished_at is not None and run.finished_at.timestamp() < self._since - MARGIN:
            return False
        if before is not None:  # a retry has brought it back
            self._over = self._over.plus(self._ended.pop(run.id), -1)
        if run.ended:
            self._live.pop(run.id, None)
            self._ended[run.id] = _of(run)
            self._over = self._over.plus(_of(run))
            if len(self._ended) > REMEMBERED:
                del self._ended[next(iter(self._ended))]
        else:
            self._live[run.id] = run
        self._newest[run.id] = run
        if len(self._newest) > SHOWN:
            del self._newest[min(self._newest.values(), key=lambda each: (each.created_at, each.id)).id]
        return True

    @property
    def sums(self) -> Sums:
        """Over all of them."""
        return self._over.plus(Sums.over(self._live.values()))

    def newest(self) -> list[RunStatus]:
        """As they stand, the newest first."""
        return sorted(self._newest.values(), key=lambda each: each.created_at, reverse=True)


def about(moved: Iterable[RunStatus]) -> str:
    """A line about one run, or about all of several."""
    runs = list(moved)
    if len(runs) == 1:
        return f"{runs[0].id} {runs[0].topic} {run_line(runs[0])}"
    return str(Sums.over(runs))


def _of(run: RunStatus) -> Sums:
    return Sums(1, int(run.ended), run.total, run.success + run.error + run.interrupted, run.error, run.running)
