"""The workers, as their heartbeats say: a list, and below it what the one under the cursor does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.widget import Widget

from corral_tui import figures
from corral_tui.crew import summary_lines, worker_columns, worker_lines, worker_row
from corral_tui.screens.base import LiveScreen
from corral_tui.screens.task import TaskScreen
from corral_tui.spans import Line, joined, line
from corral_tui.values import WorkerView
from corral_tui.widgets.lines import Lines
from corral_tui.widgets.pane import Pane
from corral_tui.widgets.table import Table

WITH_PANE, ROOMY = 20, 30
"""Lines of a terminal from which on there is room for the worker under the cursor, and for empty lines there."""


class WorkersScreen(LiveScreen):
    """One table, and a pane."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "back", key_display="esc"),
        Binding("w", "app.back", "back", show=False),
        Binding("D", "drain", "drain"),
        Binding("S", "stop", "stop"),
        Binding("P", "mark_pool", "mark the pool", show=False),
        Binding("asterisk", "mark_all", "mark all", show=False, key_display="*"),
    ]
    _workers: dict[str, WorkerView] = {}  # noqa: RUF012  replaced, never changed

    def body(self) -> Iterable[Widget]:
        yield Lines(id="heading")
        yield Table(id="workers", marks=True, empty="no worker is up; start some:  corral pool APP")
        yield Pane(id="worker", raised=True)

    def repaint(self, now: float) -> None:
        state = self.dashboard.source.state
        workers = self._workers = {worker.id: worker for worker in state.workers(now)}
        columns = worker_columns(self.size.width - 1, max(map(len, workers), default=0))
        self.query_one("#heading", Lines).show(
            summary_lines(list(workers.values()), state.bookkeeper, self.size.width - 2)
        )
        table = self.query_one(Table)
        table.show(
            columns,
            list(workers),
            lambda key: worker_row(workers[key], columns, now) if key in workers else None,
        )
        chosen = workers.get(table.cursor or "")
        if table.opens is not (opens := chosen is not None and bool(chosen.longest)):
            table.opens = opens
            self.refresh_bindings()
        pane = self.query_one(Pane)
        pane.display = chosen is not None and self.size.height >= WITH_PANE
        # What the list does not need is the pane's.
        most = (table.size.height + pane.size.height) // 2 if pane.display else 0
        table.styles.max_height = min(len(workers) + 1, most) + 1 if most else None
        if chosen is not None and pane.display:
            top = pane.scroll_offset.y
            pane.show(worker_lines(chosen, now, roomy=self.size.height >= ROOMY))
            pane.scroll_to(y=top, animate=False)

    def notice(self, now: float) -> Line:
        marked = len(self._marked())
        return joined(
            [line((f"{figures.plural(marked, 'worker')} marked", "marked")) if marked else (), super().notice(now)]
        )

    @on(Table.Opened)
    def _open_longest(self, event: Table.Opened) -> None:
        """Show the task that takes longest there."""
        if (worker := self._workers.get(event.key)) is not None and worker.longest:
            self.app.push_screen(TaskScreen(worker.longest[0].run, worker.longest[0].task))

    # --- marks and orders ----------------------------------------------------------------------------

    def _marked(self) -> list[str]:
        """Those that are marked and still there."""
        marked = self.query_one(Table).marked
        return [worker for worker in self._workers if worker in marked]

    def _chosen(self) -> list[str]:
        """The marked ones, or else the one under the cursor."""
        cursor = self.query_one(Table).cursor
        return self._marked() or ([cursor] if cursor in self._workers else [])

    def action_mark_pool(self) -> None:
        """Mark the workers of the pool of the one under the cursor."""
        cursor = self.query_one(Table).cursor
        pools = {worker.pool for worker in self._workers.values() if worker.id == cursor}
        self.query_one(Table).mark([worker.id for worker in self._workers.values() if worker.pool in pools])
        self.dashboard.tick()

    def action_mark_all(self) -> None:
        self.query_one(Table).mark(list(self._workers))
        self.dashboard.tick()

    def action_back(self) -> None:
        """Without marks first."""
        if self._marked():
            self.query_one(Table).clear_marks()
            self.dashboard.tick()
        else:
            self.app.pop_screen()

    def action_drain(self) -> None:
        self.dashboard.ask_dismiss("drain", self._chosen())

    def action_stop(self) -> None:
        self.dashboard.ask_dismiss("stop", self._chosen())

    def copied(self) -> str:
        return "\n".join(self._chosen())

    def exported(self) -> Any:
        return [asdict(worker) for worker in self._workers.values()]
