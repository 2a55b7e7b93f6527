"""When a run will be done, as far as its pace so far says: an interval, or that it stands still."""

from __future__ import annotations

import math
from dataclasses import dataclass

from corral.events import quantile
from corral.ledger import Ledger
from corral_tui.pulse import Pulse
from corral_tui.values import RunView

QUIET = 10.0
"""Seconds without an end after which a run can be called stalled at all."""
TIMES = 3.0
"""And so many times what nearly all of its tasks take."""
WINDOWS = (5.0, 10.0, 20.0, 40.0)
"""Seconds over which the pace is taken: where they disagree, the interval is wide."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Seconds until all that is known has ended; `high` is infinite while nothing can be said."""

    likely: float
    low: float
    high: float


def forecast(run: RunView, pulse: Pulse, now: float) -> Forecast | None:
    """Of a run that moves; None for any other. `now` is by the server's clock."""
    left = run.counts.pending + run.counts.running
    if run.ended or run.status == "interrupting" or not run.counts.pending or pulse.first_at is None:
        return None  # and of what runs already, a pace says nothing
    lived = max(1.0, now - max(pulse.first_at, pulse.resumed_at))
    low = math.inf
    high = likely = 0.0
    for window in WINDOWS:
        seconds = min(window, lived)
        ended = pulse.ended(now, seconds)
        if not ended and window >= WINDOWS[1]:
            return None
        # What was counted varies by about its root, even where the pace is steady.
        spread = 2 * math.sqrt(ended)
        low = min(low, left * seconds / (ended + spread) if ended else math.inf)
        high = max(high, left * seconds / (ended - spread) if ended > spread else math.inf)
        if window == WINDOWS[1]:
            likely = left * seconds / ended
        if window >= lived:
            break
    if not likely:
        rate = pulse.rate(now, lived)
        likely = left / rate if rate else 0.0
    return Forecast(likely, min(low, likely), max(high, likely)) if likely else None


def stalled_for(run: RunView, pulse: Pulse, ledger: Ledger, now: float) -> float | None:
    """Seconds for which nothing has ended although there is something to do; None for a run that is well.

    A run whose open tasks all wait for another attempt is not stalled, nor one whose tasks just take long, or all run.
    And nothing is said while the record knows more than `ledger`: then it is we who do not move.
    """
    if (
        run.sequence > ledger.sequence
        or run.ended
        or run.status in ("queued", "interrupting")
        or not run.counts.pending
    ):
        return None
    if run.counts.retrying and run.counts.retrying == run.counts.pending and not run.counts.running:
        return None
    since = pulse.last_at if pulse.last_at is not None else run.started_at
    if since is None:
        return None
    since = max(since, pulse.resumed_at)
    if now - since <= QUIET:
        return None
    usual = quantile(ledger.durations, 0.99)
    if usual is None and run.counts.running:
        return None  # nobody knows how long they take
    return now - since if now - since > TIMES * (usual or 0.0) else None
