"""Why is nothing moving? What `corral doctor` says, looked at again while it is open."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.widget import Widget

from corral.errors import CorralError
from corral.runs import plain
from corral_tui.diagnosis import Diagnosis, findings_lines, heading, vitals
from corral_tui.screens.base import LiveScreen
from corral_tui.spans import Line, line
from corral_tui.text import clean
from corral_tui.widgets.lines import Lines
from corral_tui.widgets.pane import Pane

AGAIN = 5.0
"""Seconds between two looks while the screen is open."""


class DoctorScreen(LiveScreen):
    """The findings, and below them what there is to know of storage, bookkeeper and clocks."""

    AUTO_FOCUS = "Pane"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,d", "app.back", "back", key_display="esc"),
        Binding("R,f5", "again", "look again", key_display="R"),
    ]

    def __init__(self, run_id: str | None = None) -> None:
        super().__init__()
        self.run_id = run_id
        self._diagnosis: Diagnosis | None = None
        self._failure = ""
        self._wake = asyncio.Event()

    def body(self) -> Iterable[Widget]:
        yield Lines(id="heading")
        yield Pane(id="findings")

    def on_mount(self) -> None:
        super().on_mount()
        self.watch_it()

    @work(exclusive=True)
    async def watch_it(self) -> None:
        """Look, and again after a while or when it is asked for."""
        while True:
            self._wake.clear()
            try:
                self._diagnosis = await self.dashboard.source.diagnose(self.run_id)
                self._failure = ""
            except CorralError as error:
                self._failure = str(error)
            self.dashboard.tick()
            try:
                async with asyncio.timeout(AGAIN):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def repaint(self, now: float) -> None:
        about = f"run {self.run_id}" if self.run_id else ""
        self.query_one("#heading", Lines).show(
            [(), heading(self._diagnosis, now, about, failed=bool(self._failure)), ()]
        )
        pane = self.query_one(Pane)
        top = pane.scroll_offset.y
        pane.show(self._lines())
        pane.scroll_to(y=top, animate=False)

    def _lines(self) -> list[Line]:
        lines: list[Line] = []
        if self._failure:
            lines += [line(("could not look: ", "error"), (clean(self._failure, 300), "text")), ()]
        if self._diagnosis is not None:
            lines += [*findings_lines(self._diagnosis.findings, self.size.width), *vitals(self._diagnosis.facts)]
        return lines

    def notice(self, now: float) -> Line:
        """Orders, but not the hint that leads here."""
        return self.dashboard.ordering.notice(now)

    def action_again(self) -> None:
        self._wake.set()

    def copied(self) -> str:
        found = self._diagnosis
        return "\n".join(f"{each.severity}: {each.text}\n  {each.help}" for each in found.findings) if found else ""

    def exported(self) -> Any:
        return plain({"findings": list(self._diagnosis.findings)}) if self._diagnosis else None
