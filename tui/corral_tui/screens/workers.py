"""The workers, as their heartbeats say: a list, and below it what the one under the cursor does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, ClassVar

from textual.binding import Binding, BindingType
from textual.widget import Widget

from corral_tui.crew import summary_lines, worker_columns, worker_lines, worker_row
from corral_tui.screens.base import LiveScreen
from corral_tui.values import WorkerView
from corral_tui.widgets.lines import Lines
from corral_tui.widgets.pane import Pane
from corral_tui.widgets.table import Table

WITH_PANE = 20
"""Lines of a terminal from which on there is room for the worker under the cursor."""


class WorkersScreen(LiveScreen):
    """One table, and a pane."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,w", "app.back", "back", key_display="esc")]
    _workers: dict[str, WorkerView] = {}  # noqa: RUF012  replaced, never changed

    def body(self) -> Iterable[Widget]:
        yield Lines(id="heading")
        yield Table(id="workers", empty="no worker is up; start some:  corral pool APP")
        yield Pane(id="worker", raised=True)

    def repaint(self, now: float) -> None:
        state = self.dashboard.source.state
        workers = self._workers = {worker.id: worker for worker in state.workers(now)}
        columns = worker_columns(self.size.width - 1)
        self.query_one("#heading", Lines).show(summary_lines(list(workers.values()), state.bookkeeper))
        table = self.query_one(Table)
        table.show(
            columns,
            list(workers),
            lambda key: worker_row(workers[key], columns, now) if key in workers else None,
        )
        chosen = workers.get(table.cursor or "")
        pane = self.query_one(Pane)
        pane.display = chosen is not None and self.size.height >= WITH_PANE
        if chosen is not None and pane.display:
            top = pane.scroll_offset.y
            pane.show(worker_lines(chosen, now))
            pane.scroll_to(y=top, animate=False)

    def copied(self) -> str:
        return self.query_one(Table).cursor or ""

    def exported(self) -> Any:
        return [asdict(worker) for worker in self._workers.values()]
