"""A dashboard on plain values, and what stands on its screen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from textual.app import App
from textual.pilot import Pilot

from corral_tui.app import Dashboard
from tests.tui.scenes import NOW, PlainSource


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class Stage:
    """A dashboard that is up, without a timer of its own."""

    def __init__(self, app: Dashboard, source: PlainSource, pilot: Pilot[int], clock: Clock) -> None:
        self.app = app
        self.source = source
        self.pilot = pilot
        self.clock = clock

    async def press(self, *keys: str) -> None:
        """Press keys, one after the other, and let all of it happen."""
        for key in keys:
            await self.pilot.press(key)
            await self.pilot.pause()

    async def type(self, text: str) -> None:
        """Press the keys of a text."""
        names = {"/": "slash", ":": "colon", "!": "exclamation_mark", "-": "minus"}
        await self.press(*(names.get(char, char) for char in text))

    async def tick(self, seconds: float = 0.0) -> None:
        """Let time pass, and repaint."""
        self.clock.now += seconds
        self.app.tick()
        await self.pilot.pause()

    def lines(self) -> list[str]:
        """What is on the screen, by line."""
        return drawn_lines(self.app)

    def text(self) -> str:
        return "\n".join(self.lines())

    def line_with(self, text: str) -> str:
        """The first line that has this text."""
        found = next((line for line in self.lines() if text in line), None)
        assert found is not None, f"{text!r} is not in:\n{self.text()}"
        return found

    def cursor_line(self) -> str:
        return self.line_with("▌")


def drawn_lines(app: App[int]) -> list[str]:
    """The screen on top as text."""
    strips = app.screen._compositor.render_strips()
    return ["".join(segment.text for segment in strip).rstrip() for strip in strips]


@asynccontextmanager
async def dashboard(
    source: PlainSource,
    size: tuple[int, int] = (120, 40),
    *,
    run_id: str | None = None,
    read_only: bool = False,
) -> AsyncIterator[Stage]:
    """A dashboard that is drawn once; it is left when this ends."""
    clock = Clock()
    app = Dashboard(source, run_id=run_id, read_only=read_only, clock=clock, frame=None)
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        app.tick()
        await pilot.pause()
        yield Stage(app, source, pilot, clock)
