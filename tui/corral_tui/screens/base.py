"""What all screens share: the line of truth on top, a line for notices and the keys at the foot."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from textual import events
from textual.app import ComposeResult
from textual.screen import Screen
from textual.widget import Widget

from corral_tui import view
from corral_tui.spans import Line, line, plain
from corral_tui.values import RunView
from corral_tui.widgets.keys import Keys
from corral_tui.widgets.lines import GAP, Centred, Lines

if TYPE_CHECKING:
    from corral_tui.app import Dashboard

SMALLEST = (60, 15)
"""Columns and lines below which nothing useful fits."""


class LiveScreen(Screen[None], inherit_bindings=False):
    """A screen that is repainted on the dashboard's tick, where something has changed."""

    AUTO_FOCUS = "Table"

    @property
    def dashboard(self) -> Dashboard:
        return cast("Dashboard", self.app)

    @abstractmethod
    def body(self) -> Iterable[Widget]:
        """The widgets between the line of truth and the keys."""

    @abstractmethod
    def repaint(self, now: float) -> None:
        """Show what the state says now. The state's lock is held."""

    def compose(self) -> ComposeResult:
        yield Lines(id="truth", raised=True)
        yield from self.body()
        yield Lines(id="notice")
        yield Keys()
        yield Centred(id="small")

    def tick(self, now: float) -> None:
        """Repaint all of it."""
        if not self.is_mounted:
            return
        width = self.size.width
        truth = self.dashboard.source.state.truth(now)
        right = view.truth_right(
            truth, now, width, frozen_at=self.dashboard.frozen_at, late_frames=self.dashboard.late_frames
        )
        room = width - 2 - (len(plain(right)) + GAP if right else 0)
        self.query_one("#truth", Lines).show([view.truth_left(truth, room)], [right])
        self.query_one("#notice", Lines).show([self.notice(now)])
        if self.dashboard.frozen_at is None:
            self.repaint(now)

    def notice(self, now: float) -> Line:
        """What the last action has come to."""
        return self.dashboard.notice(now)

    def on_mount(self) -> None:
        self.dashboard.tick()

    def on_screen_resume(self) -> None:
        self.dashboard.tick()

    def on_resize(self, event: events.Resize) -> None:
        width, height = event.size
        small = width < SMALLEST[0] or height < SMALLEST[1]
        self.set_class(small, "small")
        self.query_one("#small", Centred).show(
            [
                line(("a little more room, please", "strong")),
                line((f"{width}x{height} now, {SMALLEST[0]}x{SMALLEST[1]} needed", "dim")),
            ]
        )
        self.call_after_refresh(self.dashboard.tick)

    # --- what several screens can do -----------------------------------------------------------------

    def chosen(self) -> list[str]:
        """The runs that an action is about."""
        return []

    def copied(self) -> str:
        """What is worth copying of what the cursor is on."""
        return ""

    def exported(self) -> Any:
        """What is shown, as JSON."""
        return None

    def action_interrupt(self) -> None:
        self.dashboard.ask_interrupt(self.chosen())

    def action_retry(self) -> None:
        self.dashboard.ask_retry(self.chosen())

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        del parameters
        return not (action in ("interrupt", "retry", "drain", "stop") and self.dashboard.read_only)

    def run_view(self, run_id: str) -> RunView | None:
        """A run as it stands at the last tick; takes the lock, for rows that are drawn between ticks."""
        source = self.dashboard.source
        with source.lock:
            return source.state.run(run_id, self.dashboard.now)
