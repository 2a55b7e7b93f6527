"""Telling workers to leave: what that would do, and what has come of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from corral.leaving import Departure, How
from corral_tui import figures
from corral_tui.orders import SHOWN
from corral_tui.spans import Line, Span, line
from corral_tui.text import clean
from corral_tui.values import WorkerView

SIGNS: dict[str, Span] = {"drain": ("◐ ", "warning"), "stop": ("■ ", "interrupted")}


@dataclass(slots=True)
class Dismissed:
    """An order to leave. Times are seconds since the epoch."""

    how: How
    names: tuple[str, ...]
    asked_at: float
    ended_at: float | None = None
    """When all had confirmed it."""
    told: list[Departure] = field(default_factory=list)
    problem: str = ""

    def expired(self, now: float) -> bool:
        """Whether it is old."""
        return self.ended_at is not None and now - self.ended_at > SHOWN


def dismissed_line(order: Dismissed, workers: Sequence[WorkerView], now: float) -> Line:
    """How far it is: who has confirmed it and how fast, and what they still execute. `workers` are those heard."""
    who = clean(order.names[0], 40) if len(order.names) == 1 else figures.plural(len(order.names), "worker")
    head: Line = (SIGNS[order.how], (f"{order.how} ", "text"), (who, "accent"), ("  ", "text"))
    if order.problem:
        return (("✗ ", "error"), *head[1:], (order.problem, "error"))
    if order.ended_at is None:
        return (*head, (f"not confirmed yet, for {figures.long(now - order.asked_at)}", "text"))
    took = figures.short(max(each.confirmed for each in order.told))
    said = f"confirmed by {'it' if len(order.told) == 1 else 'each'} in {took}"
    gone = {each.id for each in order.told if each.gone}
    left = [worker for worker in workers if worker.id in order.names and worker.id not in gone and not worker.silent]
    if not left:
        return (*head, (f"{said}; gone", "strong"))
    busy = sum(worker.busy for worker in left)
    here = f"{len(left)} still here, " if len(order.names) > 1 else ""
    return (*head, (f"{said}; {here}{figures.plural(busy, 'task')} to end", "text"))


def fitting(how: How, workers: Sequence[WorkerView]) -> list[WorkerView]:
    """Those for which the order is one: they live, and do not leave in this way already."""
    return [worker for worker in workers if not worker.silent and worker.leaves not in (how, "stop")]


def impact(how: How, chosen: Sequence[WorkerView], others: Collection[WorkerView]) -> list[Line]:
    """What the order would do now. `others` are all workers that are heard besides."""
    busy = sum(worker.busy for worker in chosen)
    tasks = f"{figures.count(busy)} running {'task' if busy == 1 else 'tasks'}"
    if how == "drain":
        said = [f"takes nothing new; {tasks} may end,", "and what exceeds the pool's drain time-out is handed back"]
    else:
        said = [f"hands back {tasks} at once; they begin again elsewhere"]
    lines = [line((text, "text")) for text in said]
    stay = [worker for worker in others if not worker.silent and not worker.leaves]
    for pool in sorted({worker.pool for worker in chosen}):
        left = sum(worker.pool == pool for worker in stay)
        rest = f"{figures.plural(left, 'worker')} of it stay" if left > 1 else "1 worker of it stays"
        lines.append(
            line(
                (f"pool {clean(pool, 24)}: ", "dim"),
                (f"nobody is put in the place; {rest}", "dim") if left else ("ends with it", "warning"),
            )
        )
    alone = sorted({topic for worker in chosen for topic in worker.topics} - {t for w in stay for t in w.topics})
    if alone:
        more = f" and {len(alone) - 3} more" if len(alone) > 3 else ""
        names = ", ".join(clean(topic, 24) for topic in alone[:3])
        lines.append(line((f"nobody else serves {names}{more}", "error")))
    return lines
