"""Lines of spans that stand still: headers, notes, the big words of an empty screen."""

from __future__ import annotations

from collections.abc import Sequence

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from corral_tui.spans import Line
from corral_tui.theme import palette_of, style
from corral_tui.widgets.strips import fitted, width_of

GAP = 2
"""Cells between what stands on the left and what stands on the right."""


class Lines(Widget):
    """Some lines; only those that changed are drawn again."""

    DEFAULT_CSS = """
    Lines { height: auto; width: 1fr; padding: 0; }
    """

    def __init__(self, *, id: str | None = None, indent: int = 1, raised: bool = False) -> None:
        super().__init__(id=id)
        self._lines: list[tuple[Line, Line]] = []
        self._indent = indent
        self._raised = raised

    def show(self, lines: Sequence[Line], rights: Sequence[Line] = ()) -> None:
        """Draw these lines from now on; `rights` stand at the right edge, where there is room."""
        new = [(left, rights[y] if y < len(rights) else ()) for y, left in enumerate(lines)]
        old, self._lines = self._lines, new
        if len(old) != len(new) or self._lacks_room:
            self.refresh(layout=True)
            return
        changed = [Region(0, y, self.size.width, 1) for y, pair in enumerate(new) if pair != old[y]]
        if changed:
            self.refresh(*changed)

    @property
    def _lacks_room(self) -> bool:
        """Whether it has another height than it takes: the toolkit may forget a layout that is asked for during one."""
        height = self.styles.height
        return height is not None and height.is_auto and self.size.height not in (0, len(self._lines))

    def get_content_height(self, container: object, viewport: object, width: int) -> int:
        del container, viewport, width
        return len(self._lines)

    def look(self, role: str) -> Style:
        return style(role, palette_of(self.app), raised=self._raised)

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        left, right = self._lines[y] if y < len(self._lines) else ((), ())
        room = max(0, width - self._indent - 1)
        taken = width_of(right)
        edge = Segment(" " * min(self._indent, width), self.look("text"))
        end = Segment(" ", self.look("text"))
        if taken + 8 > room:
            taken, right = 0, ()
        if taken:
            taken, right = taken + GAP, ((" " * GAP, "text"), *right)
        parts = [edge, *fitted(left, room - taken, self.look), *fitted(right, taken, self.look), end]
        return Strip(parts).adjust_cell_length(width, self.look("text"))


class Centred(Lines):
    """Lines in the middle of the room that there is."""

    DEFAULT_CSS = """
    Centred { height: 1fr; width: 1fr; }
    """

    def show(self, lines: Sequence[Line], rights: Sequence[Line] = ()) -> None:
        before = self._lines
        super().show(lines, rights)
        if before != self._lines:
            self.refresh()

    def render_line(self, y: int) -> Strip:
        width, height = self.size
        index = y - max(0, (height - len(self._lines)) * 2 // 5)
        spans = self._lines[index][0] if 0 <= index < len(self._lines) else ()
        left = max(0, (width - width_of(spans)) // 2)
        pad = Segment(" " * left, self.look("text"))
        return Strip([pad, *fitted(spans, width - left, self.look)]).adjust_cell_length(width, self.look("text"))
