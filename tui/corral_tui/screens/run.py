"""One run in depth: every task accounted for, how fast it goes, its topics, errors and events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

from textual import events, on
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.widget import Widget

from corral_tui import figures, view
from corral_tui.columns import WIDE, error_columns, event_columns, topic_columns
from corral_tui.fold import Detail
from corral_tui.rows import error_row, event_row, topic_row
from corral_tui.screens.base import LiveScreen
from corral_tui.screens.workers import WorkersScreen
from corral_tui.spans import Line, line
from corral_tui.values import RunView
from corral_tui.widgets.lines import Centred, Lines
from corral_tui.widgets.pane import Pane
from corral_tui.widgets.table import Table

Tab = Literal["topics", "errors", "events"]
ROOMY = 30
"""Lines of a terminal from which on the parts are set apart."""
TABS: tuple[Tab, ...] = ("topics", "errors", "events")


class TabLine(Lines):
    """The names of the tabs, with what is in them; a click opens one."""

    def __init__(self) -> None:
        super().__init__(id="tabs")
        self._places: list[tuple[int, int, Tab]] = []

    def show_tabs(self, labels: dict[Tab, str], active: Tab, hint: str, *, roomy: bool) -> None:
        """Draw the labels, the active one lit."""
        spans: list[tuple[str, str]] = []
        self._places, at = [], 1
        for index, (tab, label) in enumerate(labels.items(), 1):
            lit = tab == active
            mark = "▪ " if lit else f"{index} "
            spans += [(mark, "accent" if lit else "faint"), (label, "strong" if lit else "dim"), ("    ", "text")]
            self._places.append((at, at + len(mark + label), tab))
            at += len(mark + label) + 4
        after = [()] if roomy else []
        self.show([(), tuple(spans), *after], [(), ((hint, "dim"),), *after])

    def on_click(self, event: events.Click) -> None:
        for start, end, tab in self._places:
            if start <= event.x < end and isinstance(self.screen, RunScreen):
                self.screen.action_tab(tab)


class RunScreen(LiveScreen):
    """The detail of a run; its events are read while it is open."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "app.back", "back", key_display="esc"),
        Binding("1", "tab('topics')", "topics", show=False),
        Binding("2", "tab('errors')", "errors", show=False),
        Binding("3", "tab('events')", "events", show=False),
        Binding("right,l", "next_tab(1)", "next tab", show=False),
        Binding("left,h", "next_tab(-1)", "previous tab", show=False),
        Binding("tab", "app.focus_next", "traceback", show=False),
        Binding("i", "interrupt", "interrupt"),
        Binding("r", "retry", "retry"),
        Binding("w", "workers", "workers"),
    ]
    AUTO_FOCUS = "#topics"

    def __init__(self, run_id: str) -> None:
        super().__init__()
        self.run_id = run_id
        self._ended = False
        self._tab: Tab = "topics"
        self._event_keys: tuple[int, list[str]] = (0, [])
        self._error_keys: tuple[int, list[str]] = (0, [])

    def body(self) -> Iterable[Widget]:
        yield Lines(id="head")
        yield TabLine()
        yield Table(id="topics")
        with Container(id="errors-both"):
            yield Table(id="errors", empty="no errors", opens=True)
            yield Pane(id="traceback", raised=True)
        yield Table(id="events", empty="no events are stored any more")
        yield Centred(id="gone")

    def on_mount(self) -> None:
        self.dashboard.source.look_at(self.run_id)
        self.action_tab("topics")
        super().on_mount()

    def on_unmount(self) -> None:
        self.dashboard.source.look_at(None)

    @property
    def _roomy(self) -> bool:
        """Whether there are lines to spare for empty ones."""
        return self.size.height >= ROOMY

    # --- painting ------------------------------------------------------------------------------------

    def repaint(self, now: float) -> None:
        state = self.dashboard.source.state
        run = state.run(self.run_id, now)
        self.set_class(run is None, "gone")
        if run is None:
            known = state.link.ready
            said = "is not here: its record has expired" if known else "is not read yet"
            self.query_one("#gone", Centred).show([line(("run ", "dim"), (self.run_id, "strong"), (f" {said}", "dim"))])
            return
        if run.ended != self._ended:
            self._ended = run.ended
            self.refresh_bindings()
        detail = state.detail if state.detail is not None and state.detail.run_id == self.run_id else None
        self._paint_head(run, detail, now)
        self._paint_tabs(run, detail)
        match self._tab:
            case "topics":
                self._paint_topics(run)
            case "errors":
                self._paint_errors(detail)
            case "events":
                self._paint_events(detail)

    def _paint_head(self, run: RunView, detail: Detail | None, now: float) -> None:
        state = self.dashboard.source.state
        width = self.size.width - 2
        ledger = detail.fold.ledger if detail is not None and detail.caught_up else None
        space: list[Line] = [()] if self._roomy else []
        lines: list[Line] = [
            *space,
            view.run_title(run, now),
            *space,
            view.run_bar(run, width),
            *space,
            *view.conservation(run, width, agrees=state.agrees(self.run_id)),
            view.run_pulse(run, state.pulse(self.run_id), ledger, now + state.skew, width),
        ]
        if note := view.run_note(run, served=run.topic in state.served(now)):
            lines.append(note)
        self.query_one("#head", Lines).show(lines)

    def _paint_tabs(self, run: RunView, detail: Detail | None) -> None:
        errors, happened = run.counts.error, detail.seen_events if detail else 0
        labels: dict[Tab, str] = {
            "topics": f"Topics {len(run.topics)}",
            "errors": f"Errors {figures.count(errors)}" if errors else "Errors",
            "events": f"Events {figures.count(happened)}" if happened else "Events",
        }
        self.query_one(TabLine).show_tabs(labels, self._tab, self._hint(detail), roomy=self._roomy)

    def _hint(self, detail: Detail | None) -> str:
        """What the list below leaves out."""
        if detail is None or not detail.caught_up:
            return "reading events"
        if self._tab == "events" and detail.seen_events > len(detail.events):
            return f"the last {figures.count(len(detail.events))} of {figures.count(detail.seen_events)}"
        if self._tab == "errors" and detail.seen_errors > len(detail.errors):
            return f"the last {figures.count(len(detail.errors))} of {figures.count(detail.seen_errors)}"
        return ""

    def _paint_topics(self, run: RunView) -> None:
        topics = sorted(run.topics, key=lambda topic: (-run.topics[topic].total, topic))
        columns = topic_columns(self.size.width - 1, run.counts.total, max((len(topic) for topic in topics), default=0))
        self.query_one("#topics", Table).show(
            columns, topics, lambda topic: topic_row(run, topic, columns) if topic in run.topics else None
        )

    def _paint_errors(self, detail: Detail | None) -> None:
        if detail is None:
            return
        if self._error_keys[0] != detail.seen_errors:
            self._error_keys = (detail.seen_errors, list(reversed(detail.errors)))
        self.query_one("#errors-both").set_class(self.size.width >= WIDE, "beside")
        table, kept = self.query_one("#errors", Table), detail.errors
        columns = error_columns(table.size.width)
        table.show(
            columns, self._error_keys[1], lambda key: error_row(error, columns) if (error := kept.get(key)) else None
        )
        pane = self.query_one(Pane)
        chosen = kept.get(table.cursor) if table.cursor is not None else None
        pane.display = bool(kept)
        pane.show(view.error_lines(chosen) if chosen else [])

    def _paint_events(self, detail: Detail | None) -> None:
        if detail is None:
            return
        if self._event_keys[0] != detail.seen_events:
            self._event_keys = (detail.seen_events, list(reversed(detail.events)))
        columns, kept = event_columns(self.size.width - 1), detail.events
        self.query_one("#events", Table).show(
            columns, self._event_keys[1], lambda key: event_row(event, columns) if (event := kept.get(key)) else None
        )

    # --- actions -------------------------------------------------------------------------------------

    def action_tab(self, tab: Tab) -> None:
        """Open a tab."""
        self._tab = tab
        for name in TABS:
            self.query_one("#errors-both" if name == "errors" else f"#{name}").display = name == tab
        self.query_one(f"#{tab}", Table).focus()
        self.dashboard.tick()

    def action_next_tab(self, by: int) -> None:
        self.action_tab(TABS[(TABS.index(self._tab) + by) % len(TABS)])

    @on(Table.Moved, "#errors")
    def _another_error(self) -> None:
        self.query_one(Pane).scroll_home(animate=False)
        self.dashboard.tick()

    @on(Table.Opened, "#errors")
    def _read_traceback(self) -> None:
        self.query_one(Pane).focus()

    def notice(self, now: float) -> Line:
        """Orders, but not what the head of this run says anyway."""
        return self.dashboard.notice(now, without=self.run_id)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == ("interrupt" if self._ended else "retry"):
            return False
        return super().check_action(action, parameters)

    def chosen(self) -> str | None:
        return self.run_id

    def action_workers(self) -> None:
        self.app.push_screen(WorkersScreen())
