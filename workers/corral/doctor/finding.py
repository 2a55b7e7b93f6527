"""What a diagnosis consists of."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

Severity = Literal["wrong", "warning", "note", "unknown"]
"""`wrong`: something stands still that should not; `warning`: it may soon, or loses something; `note`: it explains
something, and nothing is to be done; `unknown`: this could not be looked at."""
ORDER: tuple[Severity, ...] = ("wrong", "warning", "note", "unknown")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was found."""

    severity: Severity
    code: str
    """What kind of finding it is; docs/operations.md explains each."""
    about: str
    """The run, topic, worker, stream or pool."""
    text: str
    """A sentence that names it."""
    help: str = ""
    """The command that helps, or what to do; empty where nothing is to be done."""


def some(names: Iterable[str], most: int = 3) -> str:
    """`a, b, c and 4 more`."""
    listed = list(names)
    shown = listed[:most]
    left = len(listed) - len(shown)
    return f"{', '.join(shown)} and {left:,} more" if left else " and ".join(_pairs(shown))


def _pairs(names: Sequence[str]) -> list[str]:
    return [", ".join(names[:-1]), names[-1]] if len(names) > 1 else list(names)


def many(count: int, what: str) -> str:
    """`1 message`, `2 messages`."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def verb(count: int, one: str, more: str) -> str:
    """Which of the two goes with so many."""
    return one if count == 1 else more


def lasting(seconds: float) -> str:
    """A length of time, roughly."""
    seconds = max(0.0, seconds)
    if seconds > 1e9:
        return "ages"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    if minutes < 120:
        return f"{minutes:.0f} min"
    return f"{minutes / 60:.0f} h" if minutes < 2880 else f"{minutes / 1440:.0f} d"


def clock(at: float, how: str = "%H:%M:%S") -> str:
    """A time by the clock of this machine; what is no time is told as such."""
    try:
        return time.strftime(how, time.localtime(at))
    except (OverflowError, ValueError, OSError):
        return "an impossible time"


def size(count: int) -> str:
    """Bytes in the unit that fits."""
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):  # noqa: B007  # the last one that was tried
        if value < 1000:
            break
        value /= 1000
    return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"
