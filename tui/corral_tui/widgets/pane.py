"""A text that can be scrolled: a traceback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from corral_tui.spans import Line
from corral_tui.theme import palette_of, style
from corral_tui.widgets.strips import fitted, width_of


class Pane(ScrollView, can_focus=True):
    """Lines, as many as there are; only what is visible is drawn."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll_down", show=False),
        Binding("k", "scroll_up", show=False),
        Binding("g", "scroll_home", show=False),
        Binding("G", "scroll_end", show=False),
    ]
    DEFAULT_CSS = """
    Pane { height: 1fr; width: 1fr; scrollbar-size: 0 1; overflow-x: auto; overflow-y: auto; }
    """

    def __init__(self, *, id: str | None = None, raised: bool = False) -> None:
        super().__init__(id=id)
        self._lines: list[Line] = []
        self._raised = raised

    def show(self, lines: Sequence[Line]) -> None:
        """Another text, from its beginning; the same one stays where it is."""
        new = list(lines)
        if new == self._lines:
            return
        self._lines = new
        self.virtual_size = Size(max((width_of(line) for line in new), default=0) + 3, len(new))
        self.scroll_to(0, 0, animate=False)
        self.refresh()

    def _look(self, role: str) -> Style:
        return style(role, palette_of(self.app), raised=self._raised)

    def render_line(self, y: int) -> Strip:
        left, top = self.scroll_offset
        index = top + y
        spans = self._lines[index] if index < len(self._lines) else ()
        width = max(self.size.width, self.virtual_size.width)
        parts = [Segment("  ", self._look("text")), *fitted(spans, width - 2, self._look)]
        right = left + self.scrollable_content_region.width
        strip = Strip(parts).crop(left, right)
        if width_of(spans) + 2 <= right:
            return strip
        return Strip([*strip.crop(0, right - left - 1), Segment("…", self._look("dim"))])
