"""One run in depth: every task accounted for, how fast it goes, and its tasks, topics, errors, workers and events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from textual import events, on
from textual.binding import Binding, BindingType
from textual.widget import Widget

from corral.messages import ROOT
from corral_tui import head
from corral_tui.fronts import NONE
from corral_tui.look import Look
from corral_tui.screens.base import LiveScreen
from corral_tui.screens.task import TaskScreen
from corral_tui.screens.workers import WorkersScreen
from corral_tui.spans import Line, joined, line
from corral_tui.tabs.base import Tab
from corral_tui.tabs.errors import ErrorsTab
from corral_tui.tabs.events import EventsTab
from corral_tui.tabs.tasks import TasksTab
from corral_tui.tabs.topics import TopicsTab
from corral_tui.tabs.workers import WorkersTab
from corral_tui.widgets.grid import Grid
from corral_tui.widgets.lines import Centred, Lines

ROOMY = 30
"""Lines of a terminal from which on the parts are set apart."""
OF_A_RUN = ("interrupt", "retry", "tab", "next_tab", "replay")
"""Actions for which there must be one."""
TABS: tuple[type[Tab], ...] = (TasksTab, TopicsTab, ErrorsTab, WorkersTab, EventsTab)


class TabLine(Lines):
    """The names of the tabs, with what is in them; a click opens one."""

    def __init__(self) -> None:
        super().__init__(id="tabs")
        self._places: list[tuple[int, int, int]] = []

    def show_tabs(self, tabs: list[tuple[str, ...]], active: int, hint: str, *, roomy: bool) -> None:
        """Draw their labels, the active one lit; shorter ones where the longest do not fit."""
        room = self.size.width - 2
        ways = [[names[min(step, len(names) - 1)] for names in tabs] for step in range(max(map(len, tabs)))]
        labels = next((way for way in ways if sum(map(len, way)) + 4 * len(way) - 2 <= room), ways[-1])
        spans: list[tuple[str, str]] = []
        self._places, at = [], 1
        gap = 4 if sum(map(len, labels)) + 6 * len(labels) - 4 <= room else 2
        for index, label in enumerate(labels):
            lit = index == active
            mark = "▪ " if lit else f"{index + 1} "
            spans += [(mark, "accent" if lit else "dim"), (label, "strong" if lit else "dim"), (" " * gap, "text")]
            self._places.append((at, at + len(mark + label), index))
            at += len(mark + label) + gap
        after = [()] if roomy else []
        said = hint if at + len(hint) < self.size.width else ""  # the labels are what is clicked
        self.show([(), tuple(spans[:-1]), *after], [(), ((said, "dim"),), *after])

    def on_click(self, event: events.Click) -> None:
        for start, end, index in self._places:
            if start <= event.x < end and isinstance(self.screen, RunScreen):
                self.screen.action_tab(index)


class RunScreen(LiveScreen):
    """The detail of a run; its events are read while it is open."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "app.back", "back", key_display="esc"),
        *(Binding(str(index + 1), f"tab({index})", tab.TITLE.lower(), show=False) for index, tab in enumerate(TABS)),
        Binding("tab", "next_tab(1)", "next tab", show=False),
        Binding("shift+tab", "next_tab(-1)", "previous tab", show=False),
        Binding("right,l", "next_tab(1)", "next tab", show=False),
        Binding("left,h", "next_tab(-1)", "previous tab", show=False),
        Binding("i", "interrupt", "interrupt"),
        Binding("r", "retry", "retry"),
        Binding("w", "workers", "workers"),
        Binding("left_square_bracket,right_square_bracket", "replay", "time travel", show=False, key_display="["),
    ]
    AUTO_FOCUS = "#map"

    def __init__(self, run_id: str) -> None:
        super().__init__()
        self.run_id = run_id
        self._ended = False
        self._tabs = [tab() for tab in TABS]
        self._active = 0

    def body(self) -> Iterable[Widget]:
        yield Lines(id="head")
        yield TabLine()
        yield from self._tabs
        yield Centred(id="gone")

    def on_mount(self) -> None:
        self.look_at(self.run_id)
        self.action_tab(0)
        super().on_mount()

    def on_unmount(self) -> None:
        self.look_at(None)

    def look_at(self, run_id: str | None) -> None:
        """Let the events of a run be read, or of none."""
        self.dashboard.source.look_at(run_id)

    @property
    def _roomy(self) -> bool:
        """Whether there are lines to spare for empty ones."""
        return self.size.height >= ROOMY

    @property
    def tab(self) -> Tab:
        """The tab that is open."""
        return self._tabs[self._active]

    # --- painting ------------------------------------------------------------------------------------

    def look(self, now: float) -> Look | None:
        """What is shown; None if there is no such run (any more)."""
        state = self.dashboard.source.state
        run = state.run_in_depth(self.run_id, now)
        if run is None:
            return None
        return Look(
            run=run,
            detail=state.detail if state.detail is not None and state.detail.run_id == run.id else None,
            ledger=state.ledger(run.id),
            pulse=state.pulse(run.id),
            shares=state.shares(run.id, now),
            at_work=state.at_work(run.id, now),
            now=now,
            server_now=state.server_now(now),
            agrees=state.agrees(run.id),
            served=run.topic in state.served(now),
        )

    def repaint(self, now: float) -> None:
        look = self.look(now)
        self.set_class(look is None, "gone")
        if self.tab.display is (look is None):
            self.tab.display = look is not None
            if look is None:
                self.set_focus(None)  # else the keys of what is not shown would still be offered
            else:
                self.tab.take_focus()
            self.refresh_bindings()
        if look is None:
            known = self.dashboard.source.state.link.ready
            said = "is not here: its record has expired" if known else "is not read yet"
            self.query_one("#gone", Centred).show([line(("run ", "dim"), (self.run_id, "strong"), (f" {said}", "dim"))])
            return
        if look.run.ended != self._ended:
            self._ended = look.run.ended
            self.refresh_bindings()
        self._paint_head(look)
        run = look.run
        hint = (
            self.tab.hint(look.detail) if look.detail is not None and look.abreast else head.reading(run, look.detail)
        )
        self.query_one(TabLine).show_tabs(
            [tab.labels(look) for tab in self._tabs], self._active, hint, roomy=self._roomy
        )
        self.tab.paint(look)

    def _paint_head(self, look: Look) -> None:
        run, width = look.run, self.size.width - 2
        space: list[Line] = [()] if self._roomy else []
        late = look.detail.stragglers(look.server_now) if look.detail is not None and look.detail.caught_up else NONE
        lines: list[Line] = [
            *space,
            head.run_title(run, look.now, width),
            *space,
            head.run_bar(run, width),
            *space,
            *head.conservation(run, width, agrees=look.agrees),
            *head.run_pulse(
                run,
                look.pulse,
                look.ledger,
                late=late,
                now=look.server_now,
                width=width,
                longest=max((each.seconds(look.now) for each in look.at_work if each.task != ROOT), default=0.0),
            ),
            *head.run_notes(run, width, served=look.served, agrees=look.agrees),
        ]
        self.query_one("#head", Lines).show(lines)

    # --- actions -------------------------------------------------------------------------------------

    def action_tab(self, index: int) -> None:
        """Open a tab."""
        self._active = index
        for tab in self._tabs:
            tab.display = tab is self.tab
        self.tab.take_focus()
        self.dashboard.tick()
        self.call_after_refresh(self.dashboard.tick)  # once it knows its size

    def action_next_tab(self, by: int) -> None:
        self.action_tab((self._active + by) % len(TABS))

    @on(Grid.Opened)
    def _open_task(self, event: Grid.Opened) -> None:
        self.app.push_screen(TaskScreen(self.run_id, event.task_id))

    def notice(self, now: float) -> Line:
        """Orders, but not what the head of this run says anyway."""
        return joined([self.tab.said(), self.dashboard.notice(now, without=self.run_id)])

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == ("interrupt" if self._ended else "retry") or (action in OF_A_RUN and not self.tab.display):
            return False
        return super().check_action(action, parameters)

    def chosen(self) -> list[str]:
        return [self.run_id]

    def copied(self) -> str:
        return self.tab.copied() or self.run_id

    def exported(self) -> Any:
        return {"run": self.run_id, self.tab.TITLE.lower(): self.tab.exported()}

    def action_replay(self) -> None:
        """Let what is stored of it play again."""
        self.dashboard.open_replay(self.run_id)

    def action_workers(self) -> None:
        self.app.push_screen(WorkersScreen())
