"""Orders that were given from the dashboard, and what has come of them."""

from __future__ import annotations

from dataclasses import dataclass

from corral.events import Receipt
from corral_tui import figures
from corral_tui.spans import Line, line
from corral_tui.values import RunView
from corral_tui.view import receipt_text

SHOWN = 30.0
"""Seconds for which the outcome of an order stays on the screen."""


@dataclass(slots=True)
class Order:
    """One interrupt. Times are seconds since the epoch."""

    run_id: str
    topic: str
    asked_at: float
    ended_at: float | None = None
    receipt: Receipt | None = None
    problem: str = ""

    def expired(self, now: float) -> bool:
        return self.ended_at is not None and now - self.ended_at > SHOWN


def order_line(order: Order, run: RunView | None, now: float) -> Line:
    """How far it is, or how it ended: who confirmed it is the run itself."""
    name = line((f"{order.topic} ", "text"), (order.run_id, "accent"), ("  ", "text"))
    if order.problem:
        return (("✗ ", "error"), *name, (order.problem, "error"))
    if order.ended_at is None:
        left = f", {figures.count(run.counts.running)} still run" if run else ""
        return (("■ ", "interrupted"), *name, (f"stopping for {figures.long(now - order.asked_at)}{left}", "text"))
    if order.receipt is None:
        return (("· ", "dim"), *name, ("had ended already", "text"))
    return (("■ ", "interrupted"), *name, (receipt_text(order.receipt), "strong"))
