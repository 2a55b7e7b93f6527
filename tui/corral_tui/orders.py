"""Orders that were given from the dashboard, and what has come of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from corral.events import Receipt
from corral_tui import figures
from corral_tui.columns import NARROW
from corral_tui.spans import Line, line
from corral_tui.text import clean
from corral_tui.values import RunView
from corral_tui.view import receipt_text

SHOWN = 30.0
"""Seconds for which the outcome of an order stays on the screen."""


@dataclass(slots=True)
class Order:
    """One interrupt or retry. Times are seconds since the epoch."""

    kind: Literal["interrupt", "retry"]
    run_id: str
    """Empty for an order to several runs."""
    topic: str
    """Or how many runs."""
    asked_at: float
    ended_at: float | None = None
    receipt: Receipt | None = None
    """What an interrupt did; None if the run had ended."""
    brought_back: int | None = None
    """Tasks that a retry has brought back; None if the run had not ended."""
    problem: str = ""
    tasks: tuple[str, ...] | None = None
    """What a retry is limited to; None if it is not."""

    def expired(self, now: float) -> bool:
        return self.ended_at is not None and now - self.ended_at > SHOWN


def order_line(order: Order, run: RunView | None, now: float, width: int) -> Line:
    """How far it is, or how it ended: who confirmed it is the run itself."""
    glyph = ("■ ", "interrupted") if order.kind == "interrupt" else ("↻ ", "running")
    name = line((f"{clean(order.topic, 40)} ", "text"), (order.run_id, "accent"), ("  ", "text"))
    if order.run_id and width < NARROW:
        name = line((order.run_id[:8], "accent"), ("  ", "text"))
    if order.problem:
        return (("✗ ", "error"), *name, (clean(order.problem), "error"))
    if order.kind == "retry":
        said = _retry_text(order, now)
        return (glyph if order.ended_at is None or order.brought_back else ("· ", "dim"), *name, (said, "text"))
    if order.ended_at is None:
        left = f", {figures.count(run.counts.running)} still run" if run else ""
        return (glyph, *name, (f"stopping for {figures.long(now - order.asked_at)}{left}", "text"))
    if order.receipt is None:
        return (("· ", "dim"), *name, ("had ended already", "text"))
    return (glyph, *name, (receipt_text(order.receipt), "strong"))


def _retry_text(order: Order, now: float) -> str:
    if order.ended_at is None:
        return f"bringing back for {figures.long(now - order.asked_at)}"
    if order.brought_back is None:
        return "has not ended: a retry is for what has; i interrupts it"
    return (
        f"{figures.plural(order.brought_back, 'task')} brought back" if order.brought_back else "nothing to bring back"
    )
