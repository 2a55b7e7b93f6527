"""When a failed task is tried again."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

Backoff = float | Callable[[int], float]
"""Seconds before the next attempt, or a function of the attempt that failed (the first is 1)."""

LONGEST = 3600.0
"""Seconds that the default back-off waits at most."""


def default_backoff(attempt: int) -> float:
    """1 s, 2 s, 4 s, ... up to an hour.

    Each is up to a quarter longer, by chance, so that what failed together is not tried again together.
    """
    return float(min(2.0 ** (attempt - 1), LONGEST) * (1 + random.random() / 4))  # noqa: S311  # no secret


def delay(backoff: Backoff, attempt: int) -> float:
    """Seconds to wait after `attempt` failed: never negative; ValueError if that is no number."""
    seconds = float(backoff(attempt) if callable(backoff) else backoff)
    if not math.isfinite(seconds):
        raise ValueError(f"a back-off of {seconds} s")
    return max(0.0, seconds)
