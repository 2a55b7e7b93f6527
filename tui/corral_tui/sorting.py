"""In which order runs are shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from corral.runs import Status
from corral_tui.values import RunView

_URGENCY: tuple[Status, ...] = ("interrupting", "running", "queued", "failed", "interrupted", "success")
_KEYS: dict[str, Callable[[RunView], Any]] = {
    "age": lambda run: -run.created_at,
    "status": lambda run: _URGENCY.index(run.status),
    "run": lambda run: run.id,
    "topic": lambda run: run.topic,
    "bar": lambda run: -run.done / max(1, run.counts.total),
    "total": lambda run: -run.counts.total,
    "pending": lambda run: -run.counts.pending,
    "running": lambda run: -run.counts.running,
    "success": lambda run: -run.counts.success,
    "error": lambda run: -run.counts.error,
    "stopped": lambda run: -run.counts.interrupted,
    "rate": lambda run: -run.rate if not run.ended else 0.0,
    "eta": lambda run: run.eta if run.eta is not None and not run.ended else float("inf"),
}
"""By column: text ascends, numbers begin with the largest."""


@dataclass(frozen=True, slots=True)
class Sort:
    """By a column, and the other way round with `reverse`. Within it the newest come first."""

    column: str = "age"
    reverse: bool = False

    def turned(self, column: str) -> Sort:
        """What a wish for a column makes of it: the same one again turns it round."""
        return Sort(column, not self.reverse if column == self.column else False)

    @property
    def plain(self) -> bool:
        """The newest first, as runs come anyway."""
        return self == Sort()

    def apply(self, runs: Sequence[RunView]) -> list[RunView]:
        """The runs, which come newest first, in this order."""
        return sorted(runs, key=_KEYS[self.column], reverse=self.reverse)

    def mark(self, column: str, title: str, width: int) -> str:
        """The title of a column, with a sign at the one that counts."""
        if column != self.column or (self.plain and column == "age"):
            return title
        sign = "▲" if self.reverse else "▼"
        return f"{title}{sign}" if len(title) < width else f"{title[: width - 1]}{sign}"


def sortable(column: str) -> bool:
    """Whether there is an order by this column."""
    return column in _KEYS
