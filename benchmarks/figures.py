"""Figures, and the table of them."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
from dataclasses import dataclass
from typing import Literal

Unit = Literal["/s", "ms", "MB", "us"]


@dataclass(frozen=True)
class Figure:
    """One measurement, and what it stands beside."""

    what: str
    value: float
    unit: Unit
    beside: str = ""
    """What the other value is; empty if there is none."""
    other: float = 0.0


HEADINGS = ("measured", "median", "of (least ... most)", "beside, in the same run", "median", "ratio")


def row(figures: list[Figure]) -> tuple[str, ...]:
    """A line of the table: the median of some runs. The ratio is the median of the runs' ratios."""
    first = figures[0]
    values = [figure.value for figure in figures]
    spread = f"{len(values)} ({_number(min(values), first.unit)} ... {_number(max(values), first.unit)})"
    middle = _text(statistics.median(values), first.unit)
    if not first.beside:
        return first.what, middle, spread, "", "", ""
    other = _text(statistics.median([figure.other for figure in figures]), first.unit)
    ratio = statistics.median([figure.value / figure.other for figure in figures])
    return first.what, middle, spread, first.beside, other, f"{ratio:.2f}"


def rows(runs: list[list[Figure]]) -> list[tuple[str, ...]]:
    """The lines of a benchmark; each run has brought the same figures."""
    return [row(list(same)) for same in zip(*runs, strict=True)]


class Table:
    """Lines printed as they come, in columns of fixed width."""

    _WIDTHS = (44, 12, 30, 32, 12, 6)

    def heading(self) -> None:
        """Print the names of the columns."""
        self.line(HEADINGS)
        self.line(tuple("-" * width for width in self._WIDTHS))

    def line(self, cells: tuple[str, ...]) -> None:
        """Print a line."""
        left = (True, False, False, True, False, False)
        padded = [
            cell.ljust(width) if to_left else cell.rjust(width)
            for cell, width, to_left in zip(cells, self._WIDTHS, left, strict=True)
        ]
        print("  ".join(padded).rstrip(), flush=True)


def machine(server_version: str) -> str:
    """What the figures were measured on."""
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}, "
        f"nats-server {server_version}, nats-py {importlib.metadata.version('nats-py')}, load {load:.1f}\n"
        "Server, client, pool and workers share the cores: compare ratios of one run, not figures of two machines."
    )


def _text(value: float, unit: Unit) -> str:
    return f"{_number(value, unit)} {unit}"


def _number(value: float, unit: Unit) -> str:
    return f"{value:,.0f}" if unit == "/s" or value >= 1000 else f"{value:,.1f}" if value >= 10 else f"{value:,.2f}"
