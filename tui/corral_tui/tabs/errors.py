"""The errors of a run, by what they have in common; one group can be opened."""

from __future__ import annotations

from collections.abc import Callable
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
from corral_tui.spans import Line, line
from corral_tui.tabs.base import Tab
from corral_tui.values import ErrorView, Selected
from corral_tui.widgets.pane import Pane
from corral_tui.widgets.table import Cells, Table

WITH_BOTH = 8
"""Lines from which on there is room for the list and the error under the cursor."""


class ErrorsTab(Tab):
    """Groups, or the errors of one group; beside or below them the error under the cursor in full."""

    TITLE = "Errors"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "clear_marks", "clear marks", key_display="esc"),
        Binding("escape", "close_group", "back to the list", key_display="esc"),
        Binding("e", "each", "each error", show=False),
        Binding("r", "retry_group", "retry group"),
        Binding("r", "retry_task", "retry task"),
        Binding("asterisk", "mark_all", "mark all shown", show=False, key_display="*"),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._group: str | None = None
        """The open group; empty: all errors one by one; None: the groups."""
        self._cursor_before: str | None = None
        self._groups: dict[str, GroupView] = {}
        self._errors: dict[str, ErrorView] = {}
        self._kept: tuple[tuple[int, str | None], list[str]] = ((-1, None), [])
        self._detail: Detail | None = None
        self._bound: tuple[bool, bool] = (False, False)
        """What the keys depend on, as they were shown last."""

    def compose(self) -> ComposeResult:
        with Container(id="errors-both"):
            yield Table(id="errors", empty="no errors", opens=True, marks=True)
            yield Pane(id="traceback", raised=True)

    def labels(self, look: Look) -> tuple[str, ...]:
        errors, detail = look.run.counts.error, look.detail
        said = f"Errors {figures.count(errors)}" if errors else self.TITLE
        groups = sum(group.count > 0 for group in detail.group_views()) if detail and errors else 0
        return (f"{said} in {figures.plural(groups, 'group')}" if groups else said), said

    def hint(self, detail: Detail) -> str:
        if self._group is None:
            these = "the marked ones" if self._marked() else "only this group"
            return f"r retries {these}" if self._may_retry and self._groups else ""
        kept, seen = len(detail.errors), detail.seen_errors
        return f"of the last {figures.count(kept)} of {figures.count(seen)}" if seen > kept else ""

    def paint(self, look: Look) -> None:
        detail = self._detail = look.detail
        if detail is None:
            return
        self.query_one("#errors-both").set_class(self.app.size.width >= WIDE, "beside")
        groups = detail.group_views()
        self._groups = {group.key: group for group in groups}
        table = self.query_one(Table)
        if self._group is None:
            columns = group_columns(table.size.width)
            known = self._groups

            def make(key: str) -> Cells | None:
                if key not in known:
                    return None
                return group_row(known[key], columns, retried=detail.retried(known[key].sample))

            table.show(columns, list(known), make)
        else:
            self._show_each(table, detail)
        pane, chosen = self.query_one(Pane), self.chosen
        small = self.size.height < WITH_BOTH
        pane.display = bool(groups) and (not small or self._reads)
        table.display = not (small and self._reads)
        pane.show(view.error_lines(chosen, retried=detail.retried(chosen)) if chosen else [])
        table.unmark(self._emptied(detail))
        bound = (bool(groups), bool(self._marked()))
        if bound != self._bound:
            self._bound = bound
            self.screen.refresh_bindings()

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
        columns, kept = error_columns(table.size.width), self._errors

        def make(key: str) -> Cells | None:
            return error_row(kept[key], columns, retried=detail.retried(kept[key])) if key in kept else None

        table.show(columns, self._kept[1], make)

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
        match action:
            case "clear_marks":
                return bool(self._marked()) and not self._reads
            case "close_group":
                return self._group is not None or self._reads
            case "retry_group":
                return self._may_retry and self._group is None and bool(self._groups)
            case "retry_task":
                return self._may_retry and self._group is not None
            case _:
                return True

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

    # --- marks and orders ----------------------------------------------------------------------------

    @property
    def _may_retry(self) -> bool:
        return bool(self.screen.check_action("retry", ()))

    def _marked(self) -> list[str]:
        """The marked ones of what is listed."""
        marked = self.query_one(Table).marked
        return [key for key in (self._groups if self._group is None else self._kept[1]) if key in marked]

    def _emptied(self, detail: Detail) -> list[str]:
        """The marked ones of what is listed that a retry has brought back meanwhile."""
        if self._group is None:
            return [key for key in self._marked() if not self._groups[key].count]
        return [key for key in self._marked() if key in self._errors and detail.retried(self._errors[key])]

    def said(self) -> Line:
        marked, what = len(self._marked()), "group" if self._group is None else "error"
        return line((f"{figures.plural(marked, what)} marked", "marked")) if marked else ()

    def action_mark_all(self) -> None:
        table = self.query_one(Table)
        table.mark(table.keys)
        self.dashboard.tick()

    def action_clear_marks(self) -> None:
        self.query_one(Table).clear_marks()
        self.dashboard.tick()

    def action_retry_group(self) -> None:
        """Bring back the marked groups, or else the one under the cursor."""
        keys = self._marked() or [key for key in [self.query_one(Table).cursor] if key is not None]
        groups = [self._groups[key] for key in keys if key in self._groups]
        kinds = [f"{figures.count(group.count)}  {group.type}  {group.normal}" for group in groups if group.count]
        self._retry(lambda detail: detail.standing_in(keys), kinds)

    def action_retry_task(self) -> None:
        """Bring back the tasks of the marked errors, or else the one under the cursor."""
        marked = [self._errors[key] for key in self._marked() if key in self._errors]
        errors = marked or [error for error in [self.chosen] if error is not None]
        kinds = list(dict.fromkeys(f"{error.type}  {error.message}" for error in errors))
        self._retry(lambda detail: detail.standing(errors), kinds)

    def _retry(self, tasks: Callable[[Detail], list[str]], kinds: list[str]) -> None:
        with self.dashboard.source.lock:
            detail = self._detail
            found = tasks(detail) if detail is not None and detail.caught_up else None
        if detail is None or found is None:
            self.dashboard.flash(("its errors are still being read", "dim"))
            return
        self.dashboard.ask_retry_some(detail.run_id, Selected(tuple(found), tuple(kinds)))

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
