"""The dashboard: which screen is up, the clock of repainting, orders, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import ClassVar

from textual import work
from textual.app import App
from textual.binding import Binding, BindingType
from textual.command import Provider
from textual.css.query import NoMatches

from corral.errors import CorralError
from corral.leaving import How
from corral_tui import figures
from corral_tui.diagnosis import hint
from corral_tui.exports import write
from corral_tui.ordering import Ordering
from corral_tui.palette import Actions, Runs
from corral_tui.replay import Replay
from corral_tui.screens.base import LiveScreen
from corral_tui.screens.confirm import Confirm
from corral_tui.screens.doctor import DoctorScreen
from corral_tui.screens.help import HelpScreen
from corral_tui.screens.replay import ReplayScreen
from corral_tui.screens.run import RunScreen
from corral_tui.screens.runs import RunsScreen
from corral_tui.screens.task import TaskScreen
from corral_tui.source import Source
from corral_tui.spans import Line, Span
from corral_tui.summary import exit_code
from corral_tui.terminal import Nowhere, copying, hung_up, progress, shows_progress
from corral_tui.text import clean
from corral_tui.theme import PLAIN, THEMES
from corral_tui.values import Selected

FRAME = 0.1
"""Seconds between two repaints: what happens in between is folded, and seen at once."""
PROGRESS = 1.0
"""Seconds between two looks at what the terminal's tab is told."""
REMEMBERED = 10.0
"""Seconds for which dropped frames are mentioned."""
FLASH = 5.0
"""Seconds for which it is said what a key has done."""


class Dashboard(App[int], inherit_bindings=False):
    """Renders a source. `clock` gives seconds since the epoch; without a `frame` nothing is repainted by itself."""

    CSS_PATH = Path(__file__).with_name("app.tcss")
    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = {Actions, Runs}
    TITLE = "corral"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "help", "help", key_display="?"),
        Binding("q", "leave", "quit"),
        Binding("d", "doctor", "doctor", show=False),
        Binding("p", "freeze", "freeze the view", show=False),
        Binding("y", "copy", "copy", show=False),
        Binding("o", "export", "export to files", show=False),
        Binding("t", "next_theme", "next theme", show=False),
        Binding("colon,ctrl+p", "command_palette", "commands", show=False),
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
        self.stopwatch = time.perf_counter
        """Measures how long something takes here."""
        self.frozen_at: float | None = None
        """When the view was frozen; None while it is live."""
        self._late: deque[tuple[float, int]] = deque(maxlen=100)
        self._flash: tuple[Line, float] = ((), 0.0)
        self._ticked_at: float | None = None
        self._progress: tuple[int | None, bool] = (None, False)
        self._progress_at = 0.0
        self._shows_progress = shows_progress(os.environ)

    def on_mount(self) -> None:
        for theme in THEMES:
            self.register_theme(theme)
        wished = os.environ.get("CORRAL_THEME", THEMES[0].name)
        self.theme = PLAIN if self.no_color else wished if wished in {t.name for t in THEMES} else THEMES[0].name
        self.source.start()
        self.push_screen(RunsScreen())
        if self._run_id is not None:
            self.push_screen(RunScreen(self._run_id))
        if self._frame is not None:
            self.set_interval(self._frame, self.tick)
        loop = asyncio.get_running_loop()
        # The terminal is gone, or somebody wants us gone: without a handler the process dies without cleaning up.
        for number in (signal.SIGHUP, signal.SIGTERM):
            loop.add_signal_handler(number, self._told_to_end, number)
        self._resume = signal.getsignal(signal.SIGCONT)
        if callable(self._resume):  # the toolkit's; tests have none
            signal.signal(signal.SIGCONT, self._continued)

    def tick(self) -> None:
        """Repaint what is visible, where it has changed."""
        if self.source.failure is not None:
            self.exit(1)
            return
        if self._terminal_is_gone():
            self._told_to_end(signal.SIGHUP)
            return
        self.now = self.clock()
        self._count_late_frames(time.monotonic())
        if self.read_only != self._shown_read_only:
            self._shown_read_only = self.read_only
            self.refresh_bindings()
        with self.source.lock:
            for screen in self._visible_screens():
                # The tick can come while a screen is made or taken down: then some of its widgets are not there.
                with suppress(NoMatches):
                    screen.tick(self.now)
        self._show_progress()

    def _told_to_end(self, number: signal.Signals) -> None:
        """Leave, by a signal or as if one had come."""
        signal.signal(signal.SIGCONT, signal.SIG_DFL)
        if self._terminal_is_gone() and self._driver is not None:
            self._driver._writer_thread = Nowhere()  # type: ignore[attr-defined]  # noqa: SLF001
        self.exit(128 + number)

    def _continued(self, number: int, frame: FrameType | None) -> None:
        """SIGCONT, which who hangs up often says as well (tmux does): the toolkit would begin anew on what is gone."""
        if self._terminal_is_gone():
            self._told_to_end(signal.SIGHUP)
        elif callable(self._resume):
            self._resume(number, frame)

    def _terminal_is_gone(self) -> bool:
        """Whether nobody takes what is drawn: the toolkit's writer would die of it, its queue fill up, and block us."""
        writer = getattr(self._driver, "_writer_thread", None)
        descriptor = getattr(self._driver, "fileno", None)
        return (writer is not None and not writer.is_alive()) or (isinstance(descriptor, int) and hung_up(descriptor))

    def _count_late_frames(self, at: float) -> None:
        before = self._ticked_at if self._ticked_at is not None else at
        left_out = int((at - before) / self._frame) - 1 if self._frame is not None else 0
        if left_out > 0:
            self._late.append((at, left_out))
        self._ticked_at = at

    @property
    def late_frames(self) -> int:
        """Repaints of the last seconds that were left out: the terminal, or this machine, does not keep up."""
        since = (self._ticked_at or 0.0) - REMEMBERED
        return sum(left_out for at, left_out in self._late if at > since)

    def _show_progress(self) -> None:
        """In the terminal's tab: of the watched run, or of all that is live."""
        if not self._shows_progress or self._driver is None or 0 <= self.now - self._progress_at < PROGRESS:
            return
        self._progress_at = self.now
        with self.source.lock:
            shown = self.source.state.progress(self.now, self._run_id)
        if shown != self._progress:
            self._progress = shown
            self._driver.write(progress(shown[0], bad=shown[1]))

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

    def open_run(self, run_id: str) -> None:
        """Show a run in depth, over the list."""
        while isinstance(self.screen, LiveScreen) and not isinstance(self.screen, RunsScreen):
            self.pop_screen()
        self.push_screen(RunScreen(run_id))

    @work
    async def open_replay(self, run_id: str) -> None:
        """Read what is stored of a run, and let it play again."""
        with self.source.lock:
            record = self.source.state.records.get(run_id)
        if record is None:
            return
        self.flash(("reading what is stored of it", "dim"))
        try:
            history, whole = await self.source.history(run_id)
        except CorralError as error:
            self.flash(("no replay: ", "error"), (clean(str(error)), "text"))
            return
        if not history:
            self.flash(("nothing is stored of it any more", "warning"))
            return
        self._flash = ((), 0.0)
        self.push_screen(ReplayScreen(Replay(record, history, whole=whole)))

    # --- orders --------------------------------------------------------------------------------------

    @work
    async def ask_interrupt(self, run_ids: list[str]) -> None:
        """Ask, and interrupt the runs if the answer is yes."""
        await self.ordering.give("interrupt", run_ids)

    @work
    async def ask_retry(self, run_ids: list[str]) -> None:
        """Ask, and bring back what of the runs ended badly if the answer is yes."""
        await self.ordering.give("retry", run_ids)

    @work
    async def ask_retry_some(self, run_id: str, selected: Selected) -> None:
        """Ask, and bring these tasks of a run back if the answer is yes."""
        await self.ordering.retry_some(run_id, selected)

    @work
    async def ask_dismiss(self, how: How, workers: list[str]) -> None:
        """Ask, and tell workers to leave if the answer is yes."""
        await self.ordering.dismiss(how, workers)

    # --- what is said ---------------------------------------------------------------------------------

    def flash(self, *said: Span) -> None:
        """Say something on the notice line for some seconds."""
        self._flash = (said, self.clock() + FLASH)
        self.tick()

    def notice(self, now: float, *, without: str | None = None) -> Line:
        """What was just said, the last order, or what is seriously wrong. The state's lock is held."""
        said, until = self._flash
        if now < until:
            return said
        return self.ordering.notice(now, without=without) or hint(self.source.state.diagnosis, self.size.width)

    # --- actions -------------------------------------------------------------------------------------

    def action_help(self) -> None:
        self.push_screen(HelpScreen(list(self.screen.active_bindings.values())))

    def action_doctor(self) -> None:
        """Why nothing moves: of the run that is looked at, or of all."""
        self.push_screen(DoctorScreen(self.screen.run_id if isinstance(self.screen, RunScreen | TaskScreen) else None))

    def action_freeze(self) -> None:
        """Stop to repaint, while all goes on; or go on."""
        self.frozen_at = self.clock() if self.frozen_at is None else None
        self.tick()

    def action_copy(self) -> None:
        """Put what the cursor is on into the clipboard."""
        text = self.screen.copied() if isinstance(self.screen, LiveScreen) else ""
        if not text or self._driver is None:
            self.flash(("nothing to copy here", "dim"))
            return
        self._driver.write(copying(text, os.environ))
        first = clean(text.splitlines()[0], 40)
        self.flash(("copied ", "success"), (first, "text"), (f"  {figures.plural(len(text), 'character')}", "dim"))

    def action_export(self) -> None:
        """Write what is shown into two files in the current folder: JSON and a picture."""
        screen = self.screen
        if not isinstance(screen, LiveScreen):
            return
        try:
            with self.source.lock:
                shown = screen.exported()
            paths = write(
                Path.cwd(),
                type(screen).__name__.removesuffix("Screen").lower(),
                self.clock(),
                shown,
                self.export_screenshot(),
            )
        except OSError as error:
            self.flash(("not exported: ", "error"), (clean(str(error)), "text"))
        else:
            self.flash(("written: ", "success"), (clean(" ".join(path.name for path in paths)), "text"))

    def action_next_theme(self) -> None:
        """Go through the themes."""
        if self.no_color:
            self.flash(("NO_COLOR is set", "dim"))
            return
        names = [theme.name for theme in THEMES]
        self.theme = names[(names.index(self.theme) + 1) % len(names)] if self.theme in names else names[0]
        self.flash(("theme ", "dim"), (self.theme, "strong"), ("  CORRAL_THEME makes it stay", "dim"))

    def watch_theme(self) -> None:
        """All that is drawn here by hand is drawn again."""
        for screen in self.screen_stack:
            for widget in screen.query("*"):
                widget.refresh()

    def action_leave(self) -> None:
        with self.source.lock:
            self.exit(exit_code(self.source.state, self.clock(), self._run_id))

    def on_unmount(self) -> None:
        if self._progress[0] is not None and self._driver is not None:
            self._driver.write(progress(None))

    def action_break(self) -> None:
        self.exit(130)
