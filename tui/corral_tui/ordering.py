"""Giving orders: which of the chosen runs they are for, the question first, then what has come of them.

Danger in tiers: one run is a question whose default is No; several at once need a word to be typed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from corral.errors import CorralError
from corral.events import Receipt
from corral.leaving import How
from corral_tui import figures
from corral_tui.leaving import Dismissed, dismissed_line, fitting
from corral_tui.orders import Order, order_line
from corral_tui.screens.confirm import (
    Confirm,
    ConfirmDrain,
    ConfirmInterrupt,
    ConfirmLeaveMany,
    ConfirmRetry,
    ConfirmRuns,
    ConfirmStop,
)
from corral_tui.spans import Line
from corral_tui.values import RunView, Selected

if TYPE_CHECKING:
    from corral_tui.app import Dashboard

AT_ONCE = 8
"""Runs that are given an order at the same time."""
Kind = Literal["interrupt", "retry"]


class Ordering:
    """The orders that were given from this dashboard."""

    def __init__(self, dashboard: Dashboard) -> None:
        self._dashboard = dashboard
        self._orders: list[Order | Dismissed] = []

    async def give(self, kind: Kind, run_ids: Sequence[str]) -> None:
        """Ask, and carry it out if the answer is yes. Runs for which there is nothing to do are left out."""
        dashboard = self._dashboard
        now = dashboard.now
        with dashboard.source.lock:
            runs = [run for name in run_ids if (run := dashboard.source.state.run(name, now)) is not None]
        if dashboard.read_only or not runs:
            return
        fitting = [run for run in runs if _fits(kind, run)]
        if len(runs) == 1 and not fitting:
            run = runs[0]
            nothing = Order(kind, run.id, run.topic, now, ended_at=now)
            if kind == "retry":
                nothing.brought_back = 0 if run.ended else None
            self._say(nothing)
        elif len(runs) == 1:
            await self._give_one(kind, runs[0])
        else:
            await self._give_many(kind, fitting)

    async def retry_some(self, run_id: str, selected: Selected) -> None:
        """Ask whether these tasks are to come back, and bring them back if the answer is yes."""
        dashboard = self._dashboard
        now = dashboard.now
        with dashboard.source.lock:
            run = dashboard.source.state.run(run_id, now)
        if dashboard.read_only or run is None:
            return
        if not run.ended or not selected.tasks:
            self._say(Order("retry", run.id, run.topic, now, ended_at=now, brought_back=0 if run.ended else None))
        else:
            await self._give_one("retry", run, selected)

    async def _give_one(self, kind: Kind, run: RunView, selected: Selected | None = None) -> None:
        question: Confirm = ConfirmInterrupt(run.id) if kind == "interrupt" else ConfirmRetry(run.id, selected)
        if not await self._dashboard.push_screen_wait(question):
            return
        tasks = selected.tasks if selected is not None else None
        order = Order(kind, run.id, run.topic, self._dashboard.clock(), tasks=tasks)
        self._say(order)
        await self._carry_out(order, run.id)
        order.ended_at = self._dashboard.clock()
        self._dashboard.tick()

    async def _give_many(self, kind: Kind, runs: list[RunView]) -> None:
        names = [run.id for run in runs]
        if not await self._dashboard.push_screen_wait(ConfirmRuns(kind, names)) or not names:
            return
        order = Order(kind, "", figures.plural(len(names), "run"), self._dashboard.clock())
        self._say(order)
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(run_id: str) -> None:
            async with gate:
                await self._carry_out(order, run_id)

        await asyncio.gather(*(one(name) for name in names))
        order.ended_at = self._dashboard.clock()
        self._dashboard.tick()

    async def _carry_out(self, order: Order, run_id: str) -> None:
        source = self._dashboard.source
        try:
            # Several are carried out at once: what there is already is looked up after the wait.
            if order.kind == "interrupt":
                receipt = await source.interrupt(run_id)
                order.receipt = _sum(order.receipt, receipt)
            else:
                tasks = await source.retry(run_id, order.tasks)
                order.brought_back = (order.brought_back or 0) + tasks
        except CorralError as error:
            order.problem = str(error)

    async def dismiss(self, how: How, names: Sequence[str]) -> None:
        """Ask whether these workers are to leave, and tell them if the answer is yes."""
        dashboard = self._dashboard
        ids = self._fitting(how, names)
        if dashboard.read_only or not ids:
            return
        if len(names) > 1:
            question: Confirm = ConfirmLeaveMany(how, ids)
        else:
            question = ConfirmDrain(ids[0]) if how == "drain" else ConfirmStop(ids[0])
        if not await dashboard.push_screen_wait(question):
            return
        if not (ids := self._fitting(how, ids)):  # they have left while the question was read
            return
        order = Dismissed(how, tuple(ids), dashboard.clock())
        self._say(order)
        try:
            order.told = await dashboard.source.dismiss(how, ids)
        except CorralError as error:
            order.problem = str(error)
        order.ended_at = dashboard.clock()
        dashboard.tick()

    def _fitting(self, how: How, names: Sequence[str]) -> list[str]:
        """Those of the workers that are there and can be told so."""
        with self._dashboard.source.lock:
            workers = [w for w in self._dashboard.source.state.workers(self._dashboard.now) if w.id in names]
        return [worker.id for worker in fitting(how, workers)]

    def _say(self, order: Order | Dismissed) -> None:
        self._orders.append(order)
        self._dashboard.tick()

    def notice(self, now: float, *, without: str | None = None) -> Line:
        """The last order that is worth a line; of one run without the interrupts that went well. The lock is held."""
        self._orders = [order for order in self._orders if not order.expired(now)]
        shown = [order for order in self._orders if not _is_said_elsewhere(order, without)]
        if not shown:
            return ()
        order, state = shown[-1], self._dashboard.source.state
        if isinstance(order, Dismissed):
            return dismissed_line(order, state.workers(now), now)
        return order_line(order, state.run(order.run_id, now), now, self._dashboard.size.width)


def _is_said_elsewhere(order: Order | Dismissed, run_id: str | None) -> bool:
    """An interrupt that goes well stands in the head of its run."""
    return isinstance(order, Order) and order.run_id == run_id and order.kind == "interrupt" and not order.problem


def _fits(kind: Kind, run: RunView) -> bool:
    """Whether there is anything to do."""
    if kind == "interrupt":
        return not run.ended
    return run.ended and bool(run.counts.error + run.counts.interrupted)


def _sum(receipt: Receipt | None, more: Receipt | None) -> Receipt | None:
    if receipt is None or more is None:
        return receipt or more
    return Receipt(
        removed=receipt.removed + more.removed,
        stopped=receipt.stopped + more.stopped,
        killed=receipt.killed + more.killed,
        finished_first=receipt.finished_first + more.finished_first,
        seconds=max(receipt.seconds, more.seconds),
    )
