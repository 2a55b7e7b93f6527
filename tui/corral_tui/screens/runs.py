"""All runs, the newest first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import Input

from corral_tui import figures, filters, view
from corral_tui.columns import WIDE, Column, run_columns
from corral_tui.rows import run_row
from corral_tui.screens.base import LiveScreen
from corral_tui.screens.run import RunScreen
from corral_tui.screens.workers import WorkersScreen
from corral_tui.spans import Line, joined, line
from corral_tui.widgets.lines import Centred
from corral_tui.widgets.table import Cells, Table

SHORT_ID, WHOLE_ID = 8, 12
"""Characters of a run's id that are shown, where there is little room, and where there is more."""


class FilterBox(Input):
    """Where the filter is typed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "keep", key_display="enter"),
        Binding("escape", "screen.clear_filter", "clear", key_display="esc"),
    ]


class RunsScreen(LiveScreen):
    """One table, a filter, and what to do where there is nothing."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "filter", key_display="/"),
        Binding("i", "interrupt", "interrupt"),
        Binding("r", "retry", "retry"),
        Binding("w", "workers", "workers"),
        Binding("escape", "clear_filter", "clear the filter", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._terms: tuple[filters.Term, ...] = ()

    def body(self) -> Iterable[Widget]:
        yield Table(id="runs", opens=True)
        yield Centred(id="empty")
        yield FilterBox(id="filter", placeholder=filters.HELP, select_on_focus=False, compact=True)

    def repaint(self, now: float) -> None:
        state = self.dashboard.source.state
        order = state.runs()
        keys = self._fitting(order, now) if self._terms else order
        empty = not order
        table, blank = self.query_one(Table), self.query_one("#empty", Centred)
        table.display, blank.display = not empty, empty
        if empty:
            blank.show(view.empty_lines(state.link, sorted(state.served(now)), now))
        records = state.records
        shown = WHOLE_ID if self.size.width >= WIDE else SHORT_ID
        columns = run_columns(
            self.size.width - 1,
            state.widest,
            id_width=min(shown, max((len(run_id) for run_id in order), default=0)),
            topic_width=max((len(records[run_id].topic) for run_id in order), default=0),
        )
        table.show(columns, keys, lambda key: self._row(key, columns))

    def _row(self, run_id: str, columns: tuple[Column, ...]) -> Cells | None:
        run = self.run_view(run_id)
        return None if run is None else run_row(run, columns, self.dashboard.now)

    def _fitting(self, order: list[str], now: float) -> list[str]:
        state = self.dashboard.source.state
        views = (state.run(run_id, now) for run_id in order)
        return [run.id for run in views if run is not None and filters.fits(self._terms, run)]

    def notice(self, now: float) -> Line:
        said = super().notice(now)
        if not self._terms:
            return said
        total = len(self.dashboard.source.state.runs())
        return joined([line((f"{figures.plural(len(self.query_one(Table).keys), 'run')} of {total:,}", "dim")), said])

    # --- the filter ----------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if isinstance(self.focused, FilterBox) and action in ("filter", "interrupt", "retry", "workers"):
            return False
        return super().check_action(action, parameters)

    def action_filter(self) -> None:
        box = self.query_one(Input)
        box.display = True
        box.focus()

    def action_clear_filter(self) -> None:
        box = self.query_one(Input)
        box.value = ""
        box.display = False
        self.query_one(Table).focus()

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        self._terms = filters.parse(event.value)
        self.dashboard.tick()

    @on(Input.Submitted)
    def _entered(self, event: Input.Submitted) -> None:
        event.input.display = bool(event.value.strip())
        self.query_one(Table).focus()

    # --- where it leads ------------------------------------------------------------------------------

    def chosen(self) -> list[str]:
        cursor = self.query_one(Table).cursor
        return [cursor] if cursor is not None else []

    @on(Table.Opened)
    def _opened(self, event: Table.Opened) -> None:
        self.app.push_screen(RunScreen(event.key))

    def action_workers(self) -> None:
        self.app.push_screen(WorkersScreen())
