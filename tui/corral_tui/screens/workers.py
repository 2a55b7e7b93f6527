"""The workers, as their heartbeats say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.widget import Widget

from corral_tui.columns import worker_columns
from corral_tui.rows import worker_row
from corral_tui.screens.base import LiveScreen
from corral_tui.spans import line
from corral_tui.widgets.lines import Lines
from corral_tui.widgets.table import Table


class WorkersScreen(LiveScreen):
    """One table."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,w", "app.back", "back", key_display="esc")]

    def body(self) -> Iterable[Widget]:
        yield Lines(id="heading")
        yield Table(id="workers", empty="no worker is up; start some:  corral pool APP")

    def repaint(self, now: float) -> None:
        workers = {worker.id: worker for worker in self.dashboard.source.state.workers(now)}
        columns = worker_columns(self.size.width - 1)
        silent = sum(worker.silent for worker in workers.values())
        said = f"{silent} silent: taken for dead, their tasks run elsewhere" if silent else ""
        self.query_one("#heading", Lines).show([(), line(("Workers", "strong"), (f"   {said}", "error")), ()])
        table = self.query_one(Table)
        table.show(
            columns,
            list(workers),
            lambda key: worker_row(workers[key], columns, now) if key in workers else None,
        )
