"""The task map on the screen: a cell for so many tasks, a cursor on one of them, and zoom."""

from __future__ import annotations

from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from corral.messages import TaskId
from corral_tui.taskmap import TaskMap
from corral_tui.theme import palette_of, style

MARGIN = 2
LOOKS: tuple[tuple[str, str], ...] = (
    (" ", "text"),
    ("·", "map-pending"),
    ("░", "map-partly"),
    ("▒", "map-partly"),
    ("▓", "map-partly"),
    ("█", "map-success"),
    ("▶", "map-running"),
    ("↻", "map-retrying"),
    ("■", "map-interrupted"),
    ("✗", "map-error"),
)
"""Glyph and role of what a cell shows; understood without colour."""


def steps(per: int) -> int:
    """The smallest of 1, 2, 5, 10, 20, ... that is not less: the map keeps still while a run grows."""
    step = 1
    while step < per:
        step = step * 5 // 2 if str(step)[0] == "2" else step * 2
    return step


class Grid(ScrollView, can_focus=True, inherit_bindings=False):
    """Draws a `TaskMap`. The cursor is on a task and stays on it, however the map is zoomed or grows."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "open", key_display="enter"),
        Binding("plus,equals_sign", "zoom(-1)", "zoom in", key_display="+"),
        Binding("minus", "zoom(1)", "zoom out", key_display="-"),
        Binding("n", "next_bad", "next bad one"),
        Binding("left,h", "move(-1, 0)", "left", show=False),
        Binding("right,l", "move(1, 0)", "right", show=False),
        Binding("down,j", "move(0, 1)", "down", show=False),
        Binding("up,k", "move(0, -1)", "up", show=False),
        Binding("pagedown,ctrl+d", "page(1)", "page down", show=False),
        Binding("pageup,ctrl+u", "page(-1)", "page up", show=False),
        Binding("home,g", "edge(False)", "first", show=False),
        Binding("end,G", "edge(True)", "last", show=False),
        Binding("escape", "fit", "whole map", key_display="esc"),
    ]
    DEFAULT_CSS = """
    Grid { height: 1fr; width: 1fr; scrollbar-size: 1 1; overflow-x: hidden; overflow-y: auto;
        scrollbar-gutter: stable; }
    """

    class Opened(Message):
        """Enter on a task."""

        def __init__(self, task: TaskId) -> None:
            super().__init__()
            self.task_id = task

    class Moved(Message):
        """The cursor, or what is around it, is another one."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._map = TaskMap()
        self._at = 0
        self._chosen: TaskId | None = None
        self._zoom: int | None = None
        """Tasks of a cell; None: as many as it takes for all to be seen."""
        self._per_before = 1
        self._painted: dict[int, bytes] = {}

    # --- what it shows -----------------------------------------------------------------------------

    @property
    def per(self) -> int:
        """Tasks of a cell."""
        return self._zoom if self._zoom is not None else self._whole

    @property
    def chosen(self) -> TaskId | None:
        """The task under the cursor: the first of its cell."""
        return self._chosen

    @property
    def span(self) -> tuple[int, int]:
        """The places of the cell under the cursor: from a first up to and without a last."""
        first = self._at // self.per * self.per
        return first, min(first + self.per, self._map.total)

    def show(self, tasks: TaskMap) -> None:
        """Draw this map from now on; it may be the same one, updated."""
        self._map = tasks
        if self._chosen is not None and (place := tasks.place(self._chosen)) is not None:
            self._at = place
        self._at = max(0, min(self._at, tasks.total - 1))
        self._chosen = tasks.task(self._at)
        size = Size(self.size.width, self._rows)
        if size != self.virtual_size:
            self.virtual_size = size
        if self.per != self._per_before:
            self._per_before = self.per
            self.screen.refresh_bindings()
        for row, painted in list(self._painted.items()):
            if self._row(row) != painted:
                self._refresh_row(row)

    @property
    def _columns(self) -> int:
        return max(1, self.size.width - 2 * MARGIN)

    @property
    def _whole(self) -> int:
        return steps(-(-max(1, self._map.total) // (self._columns * max(1, self.size.height))))

    @property
    def _rows(self) -> int:
        cells = -(-self._map.total // self.per)
        return -(-cells // self._columns)

    def _row(self, row: int) -> bytes:
        """The cells of a row; none below the last one."""
        if row >= self._rows:
            return b""
        return self._map.cells(row * self._columns * self.per, self._columns, self.per)

    # --- the lines ---------------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        width, palette = self.size.width, palette_of(self.app)
        row = int(self.scroll_offset.y) + y
        cells = self._row(row)
        if len(self._painted) > 500:
            self._painted.clear()  # rows that were scrolled away
        self._painted[row] = cells
        if not cells:
            return Strip.blank(width, style("text", palette))
        cursor = self._at // self.per - row * self._columns
        segments = [Segment(" " * MARGIN, style("text", palette))]
        start = 0
        for column in range(1, len(cells) + 1):
            same = column < len(cells) and cells[column] == cells[start] and cursor not in (start, column)
            if not same:
                glyph, role = LOOKS[cells[start]]
                if start == cursor and column == start + 1:
                    segments.append(self._cursor_segment())
                else:
                    segments.append(Segment(glyph * (column - start), style(role, palette)))
                start = column
        return Strip(segments).adjust_cell_length(width, style("text", palette))

    def _cursor_segment(self) -> Segment:
        look = style("strong", palette_of(self.app))
        return Segment("+", look + Style(reverse=True) if self.has_focus else look)

    def _refresh_row(self, row: int) -> None:
        y = row - int(self.scroll_offset.y)
        if 0 <= y < self.size.height:
            self.refresh(Region(0, y, self.size.width, 1))

    # --- moving ------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "fit":
            return self._zoom is not None
        if action == "zoom":
            return self.per > 1 if parameters == (-1,) else self._zoom is not None
        return True

    def go(self, place: int) -> None:
        """Put the cursor on the task at a place, and the task in view."""
        before = self._at // self.per // self._columns
        self._at = max(0, min(place, self._map.total - 1))
        self._chosen = self._map.task(self._at)
        row, first, height = self._at // self.per // self._columns, int(self.scroll_offset.y), max(1, self.size.height)
        if row < first:
            self.scroll_to(y=row, animate=False)
        elif row >= first + height:
            self.scroll_to(y=row - height + 1, animate=False)
        self._refresh_row(before)
        self._refresh_row(row)
        self.post_message(self.Moved())

    def action_move(self, columns: int, rows: int) -> None:
        place = self._at // self.per * self.per + (columns + rows * self._columns) * self.per
        if 0 <= place < self._map.total:
            self.go(place)

    def action_page(self, pages: int) -> None:
        self.go(self._at + pages * self._columns * max(1, self.size.height - 1) * self.per)

    def action_edge(self, last: bool) -> None:  # noqa: FBT001  bindings pass plain values
        self.go(self._map.total - 1 if last else 0)

    def action_next_bad(self) -> None:
        place = self._map.next_bad(self.span[1])
        if place is not None:
            self.go(place)

    def action_zoom(self, by: int) -> None:
        """One step in or out."""
        if by < 0:
            self._set_zoom(steps(max(1, self.per // 2 - self.per // 10)))
        else:
            wider = steps(self.per + 1)
            self._set_zoom(None if wider >= self._whole else wider)

    def action_fit(self) -> None:
        self._set_zoom(None)

    def action_open(self) -> None:
        """Into a cell of many tasks, to the worst of them; or open the one."""
        if self.per > 1:
            worst = self._map.worst_in(*self.span)
            self._set_zoom(1)
            self.go(worst)
        elif self._chosen is not None:
            self.post_message(self.Opened(self._chosen))

    def _set_zoom(self, per: int | None) -> None:
        self._zoom = per
        self._painted.clear()
        self.virtual_size = Size(self.size.width, self._rows)
        row = self._at // self.per // self._columns
        self.scroll_to(y=max(0, row - self.size.height // 2), animate=False)
        self.refresh()
        self.screen.refresh_bindings()
        self.post_message(self.Moved())

    def on_click(self, event: events.Click) -> None:
        column = event.x - MARGIN
        if not 0 <= column < self._columns:
            return
        place = ((int(self.scroll_offset.y) + event.y) * self._columns + column) * self.per
        if place >= self._map.total:
            return
        if place // self.per == self._at // self.per:
            self.action_open()
        else:
            self.go(place)

    def on_resize(self) -> None:
        self._painted.clear()
        self.virtual_size = Size(self.size.width, self._rows)
        self.refresh()

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()
