"""The dashboard: which screen is up, the clock of repainting, orders, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from textual import work
from textual.app import App
from textual.binding import Binding, BindingType

from corral_tui.ordering import Ordering
from corral_tui.screens.base import LiveScreen
from corral_tui.screens.confirm import Confirm
from corral_tui.screens.help import HelpScreen
from corral_tui.screens.run import RunScreen
from corral_tui.screens.runs import RunsScreen
from corral_tui.source import Source
from corral_tui.summary import exit_code
from corral_tui.theme import PLAIN, THEMES

FRAME = 0.1
"""Seconds between two repaints: what happens in between is folded, and seen at once."""


class Dashboard(App[int], inherit_bindings=False):
    """Renders a source. `clock` gives seconds since the epoch; without a `frame` nothing is repainted by itself."""

    CSS_PATH = Path(__file__).with_name("app.tcss")
    ENABLE_COMMAND_PALETTE = False
    TITLE = "corral"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "help", "help", key_display="?"),
        Binding("q", "leave", "quit"),
        Binding("ctrl+c", "break", "quit at once", show=False, priority=True),
    ]

    def __init__(
        self,
        source: Source,
        *,
        run_id: str | None = None,
        read_only: bool = False,
        clock: Callable[[], float] = time.time,
        frame: float | None = FRAME,
    ) -> None:
        # Without colours the toolkit must not translate the terminal's own ones to greys.
        super().__init__(ansi_color=True if "NO_COLOR" in os.environ else None)
        self.source = source
        self._wanted_read_only = self._shown_read_only = read_only
        self.now = clock()
        """The time of the last repaint, by which all of it is drawn."""
        self.clock = clock
        self._frame = frame
        self._run_id = run_id
        self.ordering = Ordering(self)

    def on_mount(self) -> None:
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = PLAIN if self.no_color else THEMES[0].name
        self.source.start()
        self.push_screen(RunsScreen())
        if self._run_id is not None:
            self.push_screen(RunScreen(self._run_id))
        if self._frame is not None:
            self.set_interval(self._frame, self.tick)
        loop = asyncio.get_running_loop()
        # The terminal is gone, or somebody wants us gone: without a handler the process dies without cleaning up.
        for number in (signal.SIGHUP, signal.SIGTERM):
            loop.add_signal_handler(number, self.exit, 128 + number)

    def tick(self) -> None:
        """Repaint what is visible, where it has changed."""
        if self.source.failure is not None:
            self.exit(1)
            return
        self.now = self.clock()
        if self.read_only != self._shown_read_only:
            self._shown_read_only = self.read_only
            self.refresh_bindings()
        with self.source.lock:
            for screen in self._visible_screens():
                screen.tick(self.now)

    @property
    def read_only(self) -> bool:
        """Whether nothing is to be changed: it was asked for, or this user may not."""
        return self._wanted_read_only or self.source.read_only

    def _visible_screens(self) -> list[LiveScreen | Confirm]:
        """The screen on top, and below a dialogue the one that shines through."""
        visible: list[LiveScreen | Confirm] = []
        for screen in reversed(self.screen_stack):
            if isinstance(screen, LiveScreen | Confirm):
                visible.append(screen)
            if isinstance(screen, LiveScreen):
                break
        return visible

    # --- orders --------------------------------------------------------------------------------------

    @work
    async def ask_interrupt(self, run_ids: list[str]) -> None:
        """Ask, and interrupt the runs if the answer is yes."""
        await self.ordering.give("interrupt", run_ids)

    @work
    async def ask_retry(self, run_ids: list[str]) -> None:
        """Ask, and bring back what of the runs ended badly if the answer is yes."""
        await self.ordering.give("retry", run_ids)

    # --- actions -------------------------------------------------------------------------------------

    def action_help(self) -> None:
        self.push_screen(HelpScreen(list(self.screen.active_bindings.values())))

    def action_leave(self) -> None:
        with self.source.lock:
            self.exit(exit_code(self.source.state, self.clock(), self._run_id))

    def action_break(self) -> None:
        self.exit(130)
