"""Counts of tasks by state, and how a ledger keeps them up to date."""

from __future__ import annotations

import msgspec

from corral.decoding import Number


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Tasks by state; `total == pending + running + success + error + interrupted`, always."""

    total: Number = 0
    pending: Number = 0
    running: Number = 0
    retrying: Number = 0
    """The part of `pending` that waits for its next attempt."""
    success: Number = 0
    error: Number = 0
    interrupted: Number = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            total=self.total + other.total,
            pending=self.pending + other.pending,
            running=self.running + other.running,
            retrying=self.retrying + other.retrying,
            success=self.success + other.success,
            error=self.error + other.error,
            interrupted=self.interrupted + other.interrupted,
        )


class Tally:
    """What counts, of one topic."""

    __slots__ = ("ended", "error", "interrupted", "total", "waiting")

    def __init__(self) -> None:
        self.total = self.ended = self.error = self.interrupted = self.waiting = 0

    def counts(self, running: int) -> Counts:
        """As `Counts`; `running` is the workers' last word, and capped at what is open."""
        still_open = self.total - self.ended
        running = max(0, min(running, still_open))
        pending = still_open - running
        return Counts(
            total=self.total,
            pending=pending,
            running=running,
            retrying=min(self.waiting, pending),
            success=self.ended - self.error - self.interrupted,
            error=self.error,
            interrupted=self.interrupted,
        )
