"""How many tasks end when: a window of the last minutes, for rates and sparklines."""

from __future__ import annotations

from itertools import repeat

STEP = 0.25
"""Seconds of one slot."""
KEPT = 1_200
"""Slots that are kept: five minutes."""
CALM = 0.5
"""Seconds for which what is derived from a pulse stands still on a list: nobody reads faster."""


def calm(now: float) -> float:
    """The last multiple of `CALM`."""
    return now // CALM * CALM


class Pulse:
    """Ends by quarter second, of the times at which the server stored them. Times are seconds since the epoch."""

    __slots__ = ("_kept", "_slots", "first_at", "last_at", "resumed_at")

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._slots: dict[int, int] = {}
        self.first_at: float | None = None
        self.last_at: float | None = None
        self.resumed_at = 0.0
        """When a retry brought something back; 0 if none has."""

    def add(self, at: float, ended: int) -> None:
        """`ended` tasks ended at this time. Times may repeat, and go back a little."""
        if not ended:
            return
        self.first_at = at if self.first_at is None else min(self.first_at, at)
        self.last_at = at if self.last_at is None else max(self.last_at, at)
        slot = int(at / STEP)
        self._slots[slot] = self._slots.get(slot, 0) + ended
        if len(self._slots) > self._kept + self._kept // 4:
            newest = max(self._slots)
            self._slots = {s: n for s, n in self._slots.items() if s > newest - self._kept}

    def rate(self, now: float, window: float = 3.0) -> float:
        """Ends per second over the last `window` seconds, or since the first end, at least over one second.

        What ended before a retry says nothing of the pace since.
        """
        if self.first_at is None:
            return 0.0
        window = min(window, max(1.0, now - max(self.first_at, self.resumed_at)))
        return self._between(now - window, now) / window

    def ended(self, now: float, seconds: float) -> int:
        """How many ended in the last `seconds`."""
        return self._between(now - seconds, now)

    def columns(self, now: float, width: int, seconds: float = 1.0) -> list[float]:
        """Ends per second in each of the last `width` spans of `seconds`, the oldest first.

        Spans begin at multiples of `seconds`, so that a column keeps its value while it moves to the left; the
        span that has not passed is left out.
        """
        steps = max(1, round(seconds / STEP))
        last = int(now / STEP) // steps
        slots = self._slots
        return [
            sum(slots.get(span * steps + step, 0) for step in range(steps)) / (steps * STEP)
            for span in range(last - width, last)
        ]

    def _between(self, start: float, end: float) -> int:
        """Of the slots that have passed at `end`."""
        return sum(map(self._slots.get, range(int(start / STEP), int(end / STEP)), repeat(0)))
