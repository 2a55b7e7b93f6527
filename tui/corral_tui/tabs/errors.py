"""The errors of a run, by what they have in common; one group can be opened."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container

from corral_tui import figures, view
from corral_tui.columns import WIDE, error_columns, group_columns
from corral_tui.fold import Detail
from corral_tui.groups import GroupView
from corral_tui.look import Look
from corral_tui.rows import error_row, group_row
from corral_tui.tabs.base import Tab
from corral_tui.values import ErrorView
from corral_tui.widgets.pane import Pane
from corral_tui.widgets.table import Cells, Table

WITH_BOTH = 8
"""Lines from which on there is room for the list and the error under the cursor."""


class ErrorsTab(Tab):
    """Groups, or the errors of one group; beside or below them the error under the cursor in full."""

    TITLE = "Errors"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close_group", "back to the list", key_display="esc"),
        Binding("e", "each", "each error", show=False),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._group: str | None = None
        """The open group; empty: all errors one by one; None: the groups."""
        self._cursor_before: str | None = None
        self._groups: dict[str, GroupView] = {}
        self._errors: dict[str, ErrorView] = {}
        self._kept: tuple[tuple[int, str | None], list[str]] = ((-1, None), [])

    def compose(self) -> ComposeResult:
        with Container(id="errors-both"):
            yield Table(id="errors", empty="no errors", opens=True)
            yield Pane(id="traceback", raised=True)

    def labels(self, look: Look) -> tuple[str, ...]:
        errors, detail = look.run.counts.error, look.detail
        said = f"Errors {figures.count(errors)}" if errors else self.TITLE
        groups = sum(group.count > 0 for group in detail.group_views()) if detail and errors else 0
        return (f"{said} in {figures.plural(groups, 'group')}" if groups else said), said

    def hint(self, detail: Detail) -> str:
        if self._group is None:
            over = bool(self.screen.check_action("retry", ()))
            return "r brings back all of them: a retry is of the whole run" if over and self._groups else ""
        kept, seen = len(detail.errors), detail.seen_errors
        return f"of the last {figures.count(kept)} of {figures.count(seen)}" if seen > kept else ""

    def paint(self, look: Look) -> None:
        detail = look.detail
        if detail is None:
            return
        self.query_one("#errors-both").set_class(self.app.size.width >= WIDE, "beside")
        groups, round = detail.group_views(), detail.fold.ledger.round
        self._groups = {group.key: group for group in groups}
        table = self.query_one(Table)
        if self._group is None:
            columns = group_columns(table.size.width)
            known = self._groups

            def make(key: str) -> Cells | None:
                return group_row(known[key], columns, round) if key in known else None

            table.show(columns, list(known), make)
        else:
            self._show_each(table, detail)
        pane, chosen = self.query_one(Pane), self.chosen
        small = self.size.height < WITH_BOTH
        pane.display = bool(groups) and (not small or self._reads)
        table.display = not (small and self._reads)
        pane.show(view.error_lines(chosen, retried=chosen.round < round) if chosen else [])

    def _show_each(self, table: Table, detail: Detail) -> None:
        if self._kept[0] != (detail.seen_errors, self._group):
            fitting = [key for key, error in detail.errors.items() if self._group in ("", error.group)]
            if not fitting and self._group in self._groups:  # the ring has moved on: its sample is left
                fitting = [self._groups[self._group].sample.key]
            self._kept = (detail.seen_errors, self._group), fitting[::-1]
            self._errors = {key: detail.errors[key] for key in fitting if key in detail.errors}
            if self._group in self._groups:
                sample = self._groups[self._group].sample
                self._errors.setdefault(sample.key, sample)
        columns, kept, round = error_columns(table.size.width), self._errors, detail.fold.ledger.round
        table.show(columns, self._kept[1], lambda key: error_row(kept[key], columns, round) if key in kept else None)

    @property
    def chosen(self) -> ErrorView | None:
        """The error under the cursor, or the last of the group under it."""
        key = self.query_one(Table).cursor
        if key is None:
            return None
        if self._group is None:
            group = self._groups.get(key)
            return group.sample if group else None
        return self._errors.get(key)

    @property
    def _reads(self) -> bool:
        """Whether the keys are for the error in full."""
        return self.query_one(Pane).has_focus

    # --- moving ------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        del parameters
        return self._group is not None or action != "close_group" or self._reads

    @on(Table.Opened)
    def _open(self, event: Table.Opened) -> None:
        event.stop()
        if self._group is None:
            self._open_group(event.key)
        else:
            self._read(self.query_one(Pane))

    def _read(self, widget: Pane | Table) -> None:
        """Let the keys be for the error in full, or for the list; where there is little room, that alone is shown."""
        widget.display = True
        self.screen.set_focus(widget)
        self.dashboard.tick()

    def action_each(self) -> None:
        self._open_group("")

    def _open_group(self, key: str) -> None:
        self._cursor_before, self._group = self.query_one(Table).cursor, key
        self._again()

    def action_close_group(self) -> None:
        if self._reads:
            self._read(self.query_one(Table))
            return
        self._group = None
        self._again()
        if self._cursor_before is not None:
            self.query_one(Table).select(self._cursor_before)

    def _again(self) -> None:
        self.query_one(Table).focus()
        self.screen.refresh_bindings()
        self.dashboard.tick()

    @on(Table.Moved)
    def _another(self) -> None:
        self.query_one(Pane).scroll_home(animate=False)
        self.dashboard.tick()

    def take_focus(self) -> None:
        self.query_one(Table).display = True
        self.query_one(Table).focus()

    def copied(self) -> str:
        chosen = self.chosen
        if chosen is None:
            return ""
        return "\n".join([*chosen.traceback, *([] if chosen.traceback else [f"{chosen.type}: {chosen.message}"])])

    def exported(self) -> Any:
        if self._group is None:
            return [asdict(group) for group in self._groups.values()]
        return [asdict(self._errors[key]) for key in self._kept[1] if key in self._errors]
