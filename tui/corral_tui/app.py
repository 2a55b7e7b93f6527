"""The dashboard: which screen is up, the clock of repainting, orders, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar

from textual import work
from textual.app import App
from textual.binding import Binding, BindingType

from corral.errors import CorralError
from corral_tui.orders import Order, order_line
from corral_tui.screens.base import LiveScreen
from corral_tui.screens.confirm import Confirm, ConfirmInterrupt, ConfirmRetry
from corral_tui.screens.help import HelpScreen
from corral_tui.screens.run import RunScreen
from corral_tui.screens.runs import RunsScreen
from corral_tui.source import Source
from corral_tui.spans import Line
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
        self._clock = clock
        self._frame = frame
        self._run_id = run_id
        self._orders: list[Order] = []

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
        self.now = self._clock()
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
    async def ask_interrupt(self, run_id: str) -> None:
        """Ask, and interrupt the run if the answer is yes."""
        with self.source.lock:
            run = self.source.state.run(run_id, self.now)
        if self.read_only or run is None:
            return
        if run.ended:
            self._say(Order("interrupt", run_id, run.topic, self.now, ended_at=self.now))
            return
        if not await self.push_screen_wait(ConfirmInterrupt(run_id)):
            return
        order = Order("interrupt", run_id, run.topic, self._clock())
        async with self._carried_out(order):
            order.receipt = await self.source.interrupt(run_id)

    @work
    async def ask_retry(self, run_id: str) -> None:
        """Ask, and bring back what of the run ended badly if the answer is yes."""
        with self.source.lock:
            run = self.source.state.run(run_id, self.now)
        if self.read_only or run is None:
            return
        bad = run.counts.error + run.counts.interrupted
        if not (run.ended and bad):
            self._say(
                Order("retry", run_id, run.topic, self.now, ended_at=self.now, brought_back=0 if run.ended else None)
            )
            return
        if not await self.push_screen_wait(ConfirmRetry(run_id)):
            return
        order = Order("retry", run_id, run.topic, self._clock())
        async with self._carried_out(order):
            order.brought_back = await self.source.retry(run_id)

    def _say(self, order: Order) -> None:
        self._orders.append(order)
        self.tick()

    @asynccontextmanager
    async def _carried_out(self, order: Order) -> AsyncIterator[None]:
        """Show the order while what is inside carries it out, and then how that ended."""
        self._say(order)
        try:
            yield
        except CorralError as error:
            order.problem = str(error)
        finally:
            order.ended_at = self._clock()
        self.tick()

    def notice(self, now: float, *, without: str | None = None) -> Line:
        """The last order that is worth a line; of one run without the interrupts that went well. The lock is held."""
        self._orders = [order for order in self._orders if not order.expired(now)]
        shown = [order for order in self._orders if order.run_id != without or order.kind == "retry" or order.problem]
        if not shown:
            return ()
        order = shown[-1]
        return order_line(order, self.source.state.run(order.run_id, now), now)

    # --- actions -------------------------------------------------------------------------------------

    def action_help(self) -> None:
        self.push_screen(HelpScreen(list(self.screen.active_bindings.values())))

    def action_leave(self) -> None:
        with self.source.lock:
            self.exit(exit_code(self.source.state, self._clock(), self._run_id))

    def action_break(self) -> None:
        self.exit(130)
