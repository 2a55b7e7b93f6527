"""All runs, the newest first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import Input

from corral_tui import figures, filters, view
from corral_tui.columns import NARROW, WIDE, Column, run_columns
from corral_tui.exports import run_json
from corral_tui.pulse import calm
from corral_tui.rows import run_row
from corral_tui.screens.base import LiveScreen
from corral_tui.screens.run import RunScreen
from corral_tui.screens.workers import WorkersScreen
from corral_tui.sorting import Sort, sortable
from corral_tui.spans import Line, joined, line
from corral_tui.widgets.lines import Centred
from corral_tui.widgets.table import Cells, Table

CALM = 1.0
"""Seconds between two sortings."""
MANY = 2_000
"""Runs of which even a change is sorted in only then: it takes longer than a frame."""
REMEMBERED = 500
"""Rows."""
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
        Binding("escape", "clear", "clear", key_display="esc"),
        Binding("asterisk", "mark_all", "mark all shown", show=False, key_display="*"),
        Binding("S", "sort('status')", "sort by status", show=False),
        Binding("A", "sort('age')", "sort by age", show=False),
        Binding("T", "sort('topic')", "sort by topic", show=False),
        Binding("N", "sort('total')", "sort by tasks", show=False),
        Binding("P", "sort('pending')", "sort by pending", show=False),
        Binding("E", "sort('error')", "sort by errors", show=False),
        Binding("R", "sort('rate')", "sort by rate", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._terms: tuple[filters.Term, ...] = ()
        self._sort = Sort()
        self._sorted: tuple[float, list[str], list[str]] = (0.0, [], [])
        self._laid_out: tuple[object, tuple[Column, ...]] = (None, ())
        self._made: dict[str, tuple[object, Cells]] = {}
        """Rows that were shown lately, and what they were made of."""
        self._clearable = False
        """Whether there are marks, or a filter."""

    def body(self) -> Iterable[Widget]:
        table = Table(id="runs", opens=True, marks=True)
        table.filling = True
        yield table
        yield Centred(id="empty")
        yield FilterBox(id="filter", placeholder=filters.HELP, select_on_focus=False, compact=True)

    def repaint(self, now: float) -> None:
        state = self.dashboard.source.state
        order = state.runs()
        keys = order if self._sort.plain and not self._terms else self._fitting(order, now)
        empty = not order
        table, blank = self.query_one(Table), self.query_one("#empty", Centred)
        table.display, blank.display = not empty, empty
        if empty:
            blank.show(view.empty_lines(state.link, sorted(state.served(now)), now))
        columns = self._columns()
        if self._terms:
            table.say_empty("no run fits the filter: esc clears it")
        table.show(columns, keys, lambda key: self._row(key, columns))
        if (wider := self._columns()) is not columns:  # a count has outgrown its column: none is shown cut
            table.show(wider, keys, lambda key: self._row(key, wider))
        if state.link.ready:
            table.filling = False
        if (clearable := bool(table.marked or self._terms)) != self._clearable:
            self._clearable = clearable
            self.refresh_bindings()

    def _columns(self) -> tuple[Column, ...]:
        """Made anew where something has changed that they depend on, which is seldom."""
        state, width, sort = self.dashboard.source.state, self.size.width, self._sort
        made_for = (width, sort, state.widest.copy())
        if made_for != self._laid_out[0]:
            shown = WHOLE_ID if width >= WIDE else SHORT_ID
            columns = run_columns(
                width - 1,
                state.widest,
                id_width=min(shown, state.widest.get("id", 0)),
                topic_width=state.widest.get("topic", 0),
                name_width=state.widest.get("name", 0) if width >= NARROW else 0,
            )
            columns = tuple(replace(c, title=sort.mark(c.name, c.title, c.width)) for c in columns)
            self._laid_out = made_for, columns
        return self._laid_out[1]

    def _row(self, run_id: str, columns: tuple[Column, ...]) -> Cells | None:
        """The same cells again while nothing has changed that they are made of."""
        run, now = self.run_view(run_id), calm(self.dashboard.now)
        if run is None:
            return None
        made_of, cells = self._made.get(run_id, (None, ()))
        if made_of != (run, columns, now):
            if len(self._made) > REMEMBERED:
                self._made.clear()
            cells = run_row(run, columns, now)
            self._made[run_id] = (run, columns, now), cells
        return cells

    def _fitting(self, order: list[str], now: float) -> list[str]:
        """The runs that fit the filter, in the order that was chosen. Rows do not jump more than once a second."""
        at, of, before = self._sorted
        if (of is order or len(order) > MANY) and 0 <= now - at < CALM:
            return before
        state = self.dashboard.source.state
        views = (state.run(run_id, now) for run_id in order)
        fitting = [run for run in views if run is not None and filters.fits(self._terms, run)]
        self._sorted = now, order, [run.id for run in (fitting if self._sort.plain else self._sort.apply(fitting))]
        return self._sorted[2]

    def _anew(self) -> None:
        self._sorted = (0.0, [], [])
        self.dashboard.tick()

    def notice(self, now: float) -> Line:
        table, state = self.query_one(Table), self.dashboard.source.state
        total, shown, marked = len(state.runs()), len(table.keys), len(table.marked)
        parts = [
            line((f"{figures.plural(marked, 'run')} marked", "marked")) if marked else (),
            line((f"{figures.plural(shown, 'run')} of {total:,}", "dim")) if self._terms else (),
            super().notice(now),
            view.unlisted_line(state.unlisted(), filtered=bool(self._terms)),
        ]
        return joined(parts)

    # --- sort and marks ------------------------------------------------------------------------------

    def action_sort(self, column: str) -> None:
        """By a column; again for the other way round."""
        self._sort = self._sort.turned(column)
        self._anew()

    @on(Table.Titled)
    def _titled(self, event: Table.Titled) -> None:
        if sortable(event.column):
            self.action_sort(event.column)

    def action_mark_all(self) -> None:
        table = self.query_one(Table)
        table.mark(table.keys)
        self.dashboard.tick()

    def action_clear(self) -> None:
        table = self.query_one(Table)
        if table.marked:
            table.clear_marks()
            self.dashboard.tick()
        else:
            self.action_clear_filter()

    # --- the filter ----------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "clear" and not self._clearable:
            return False
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
        self._anew()

    @on(Input.Submitted)
    def _entered(self, event: Input.Submitted) -> None:
        event.input.display = bool(event.value.strip())
        self.query_one(Table).focus()

    # --- where it leads ------------------------------------------------------------------------------

    def chosen(self) -> list[str]:
        """The marked runs that are still there, or else the one under the cursor."""
        table, known = self.query_one(Table), self.dashboard.source.state.records
        marked = [run_id for run_id in self.dashboard.source.state.runs() if run_id in table.marked]
        if marked:
            return marked
        return [table.cursor] if table.cursor is not None and table.cursor in known else []

    def copied(self) -> str:
        return "\n".join(self.chosen())

    def exported(self) -> Any:
        source, now = self.dashboard.source, self.dashboard.now
        with source.lock:
            views = [source.state.run(run_id, now) for run_id in self.query_one(Table).keys]
        return [run_json(run) for run in views if run is not None]

    @on(Table.Opened)
    def _opened(self, event: Table.Opened) -> None:
        self.app.push_screen(RunScreen(event.key))

    def action_workers(self) -> None:
        self.app.push_screen(WorkersScreen())
