"""The table behind every list: drawn a line at a time, and only where something has changed.

The owner says which rows there are (keys) and how to make one (cells); cells are made for visible rows only, so a list
may be as long as it likes. The cursor stays on its key, whatever happens to the list around it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import ClassVar

from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.filter import ANSIToTruecolor, LineFilter
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from corral_tui.columns import Column
from corral_tui.spans import Line
from corral_tui.theme import palette_of, style
from corral_tui.widgets.strips import drawn_cell

Cells = Sequence[Line]
MakeRow = Callable[[str], Cells | None]
"""The cells of a row, one for each column; None for a key that is gone."""


class Table(ScrollView, can_focus=True, inherit_bindings=False):
    """A list with a fixed line of titles, and a cursor."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "open", key_display="enter"),
        Binding("down,j", "move(1)", "down", show=False),
        Binding("up,k", "move(-1)", "up", show=False),
        Binding("space", "mark", "mark", show=False),
        Binding("pagedown,ctrl+d", "page(1)", "page down", show=False),
        Binding("pageup,ctrl+u", "page(-1)", "page up", show=False),
        Binding("home,g", "edge(False)", "first", show=False),
        Binding("end,G", "edge(True)", "last", show=False),
    ]
    DEFAULT_CSS = """
    Table { height: 1fr; width: 1fr; scrollbar-size: 1 1; overflow-x: hidden; overflow-y: auto;
        scrollbar-gutter: stable; }
    """

    class Opened(Message):
        """Enter, or a click on the row under the cursor."""

        def __init__(self, table: Table, key: str) -> None:
            super().__init__()
            self.table, self.key = table, key

        @property
        def control(self) -> Table:
            return self.table

    class Moved(Message):
        """The cursor is on another row."""

        def __init__(self, table: Table, key: str) -> None:
            super().__init__()
            self.table, self.key = table, key

        @property
        def control(self) -> Table:
            return self.table

    class Titled(Message):
        """A click on the title of a column."""

        def __init__(self, table: Table, column: str) -> None:
            super().__init__()
            self.table, self.column = table, column

        @property
        def control(self) -> Table:
            return self.table

    def __init__(
        self,
        *,
        id: str | None = None,
        empty: str = "",
        opens: bool = False,
        marks: bool = False,
        follows: bool = False,
    ) -> None:
        super().__init__(id=id)
        self._empty = empty
        """What stands in an empty list."""
        self.opens = opens
        """Whether there is something behind a row; who changes it has the bindings looked at again."""
        self._takes_marks = marks
        self.filling = False
        """What there is already is still being read, in any order: the cursor waits on the first row for all of it."""
        self._follows = follows
        """A cursor on the first row stays there: of something that goes on, the newest is what is watched."""
        self._marked: set[str] = set()
        self._columns: tuple[Column, ...] = ()
        self._keys: Sequence[str] = ()
        self._index: dict[str, int] = {}
        self._make: MakeRow = lambda _: None
        self._cursor: str | None = None
        self._cells: dict[str, Cells | None] = {}
        """The rows in view, by key, as they are on the screen or about to be."""

    # --- what it shows -----------------------------------------------------------------------------

    @property
    def cursor(self) -> str | None:
        """The key under the cursor; None in an empty list."""
        return self._cursor

    @property
    def keys(self) -> Sequence[str]:
        """The rows that there are."""
        return self._keys

    @property
    def marked(self) -> frozenset[str]:
        """The rows that are marked, shown or not."""
        return frozenset(self._marked)

    def clear_marks(self) -> None:
        """Nothing is marked any more."""
        self._marked.clear()
        self.refresh()

    def mark(self, keys: Sequence[str]) -> None:
        """Mark these too."""
        self._marked.update(keys)
        self.refresh()

    def unmark(self, keys: Collection[str]) -> None:
        """Mark these no more."""
        if not self._marked.isdisjoint(keys):
            self._marked.difference_update(keys)
            self.refresh()

    def say_empty(self, text: str) -> None:
        """What stands in the list when it is empty."""
        if text != self._empty:
            self._empty = text
            self.refresh()

    def show(self, columns: tuple[Column, ...], keys: Sequence[str], make: MakeRow) -> None:
        """Show these rows from now on, and draw again what differs from what is on the screen."""
        self._make = make
        if columns != self._columns:
            self._columns = columns
            self.refresh()
        if keys is not self._keys and keys != self._keys:
            self._replace(keys)
        before, self._cells = self._cells, {}
        changed: list[int] = []
        for index in self._visible():
            key = self._keys[index]
            self._cells[key] = cells = make(key)
            if key not in before or before[key] != cells:
                changed.append(index)
        self._refresh_rows(changed)

    def select(self, key: str) -> None:
        """Put the cursor on a row, and the row in view."""
        if key not in self._index:
            return
        before, self._cursor = self._cursor, key
        self._refresh_rows([self._index[each] for each in (before, key) if each is not None and each in self._index])
        self._reveal()
        if before != key:
            self.post_message(self.Moved(self, key))

    def _replace(self, keys: Sequence[str]) -> None:
        top = self._first_visible()
        in_view = self._cursor is not None and self._place() in self._visible()
        anchor = self._keys[top] if top and top < len(self._keys) else None
        old_place = self._index.get(self._cursor, 0) if self._cursor is not None else 0
        follow = bool(keys) and (self.filling or (self._follows and old_place == 0 and top == 0))
        self._keys = keys
        self._index = {key: index for index, key in enumerate(keys)}
        self.virtual_size = Size(self.size.width, len(keys) + 1)
        if anchor is not None and anchor in self._index and not self.filling:
            # Rows that come in above do not push away what is being read.
            self._scroll(self._index[anchor])
        if follow:
            self._cursor = keys[0]
            self.post_message(self.Moved(self, keys[0]))
        elif self._cursor not in self._index:
            place = min(old_place, len(keys) - 1)
            self._cursor = keys[place] if keys else None
            if self._cursor is not None:
                self.post_message(self.Moved(self, self._cursor))
        elif in_view:
            self._reveal()  # rows that come in above do not push it out of sight either
        self.refresh()

    # --- the lines ---------------------------------------------------------------------------------

    def _first_visible(self) -> int:
        return int(self.scroll_offset.y)

    def _visible(self) -> range:
        first = self._first_visible()
        return range(first, min(len(self._keys), first + max(0, self.size.height - 1)))

    def _refresh_rows(self, indices: Sequence[int]) -> None:
        first, (width, height) = self._first_visible() - 1, self.size
        regions = [Region(0, index - first, width, 1) for index in indices if 1 <= index - first < height]
        if regions:  # without one all of it would be drawn
            self.refresh(*regions)

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Without the translation of the terminal's own colours: where it is in force, no role has any."""
        return [each for each in super().get_line_filters() if not isinstance(each, ANSIToTruecolor)]

    def render_line(self, y: int) -> Strip:
        width, palette = self.size.width, palette_of(self.app)
        text = style("text", palette)
        if y == 0:
            return self._strip([((c.title, "head"),) for c in self._columns], width, palette)
        index = self._first_visible() + y - 1
        if index >= len(self._keys):
            if index == 1 and not self._keys:
                segments = [Segment("  ", text), Segment(self._empty, style("dim", palette))]
                return Strip(segments).adjust_cell_length(width, text)
            return Strip.blank(width, text)
        key = self._keys[index]
        if key not in self._cells:  # it has just come into view
            self._cells[key] = self._make(key)
        cells = self._cells[key]
        if cells is None:
            return Strip.blank(width, text)
        return self._strip(cells, width, palette, cursor=key == self._cursor, marked=key in self._marked)

    def _strip(self, cells: Cells, width: int, palette: str, *, cursor: bool = False, marked: bool = False) -> Strip:
        lit = cursor and self.has_focus
        segments = [Segment("▌" if cursor else " ", style("accent", palette, cursor=lit))]
        for index, (column, cell) in enumerate(zip(self._columns, cells, strict=True)):
            gap = column.gap
            if marked and index == 0:
                segments.append(Segment("•".ljust(gap), style("marked", palette, cursor=lit)))
                gap = 0
            segments += drawn_cell(cell, gap, column.width, palette, cursor=lit, right=column.right)
        taken = 1 + sum(column.gap + column.width for column in self._columns)
        return Strip(segments, taken).adjust_cell_length(width, style("text", palette, cursor=lit))

    # --- moving ------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        del parameters
        return (self.opens or action != "open") and (self._takes_marks or action != "mark")

    def action_open(self) -> None:
        if self._cursor is not None:
            self.post_message(self.Opened(self, self._cursor))

    def action_mark(self) -> None:
        if self._cursor is None:
            return
        self._marked ^= {self._cursor}
        self._refresh_rows([self._place()])
        self.action_move(1)

    def action_move(self, by: int) -> None:
        self._go(self._place() + by)

    def action_page(self, pages: int) -> None:
        self._go(self._place() + pages * max(1, self.size.height - 2))

    def action_edge(self, last: bool) -> None:  # noqa: FBT001  bindings pass plain values
        self._go(len(self._keys) - 1 if last else 0)

    def _place(self) -> int:
        return self._index.get(self._cursor, 0) if self._cursor is not None else 0

    def _go(self, place: int) -> None:
        self.filling = False  # whoever looks around already is not to be brought back
        if self._keys:
            self.select(self._keys[max(0, min(place, len(self._keys) - 1))])

    def _reveal(self) -> None:
        place, first, rows = self._place(), self._first_visible(), max(1, self.size.height - 1)
        if place < first:
            self._scroll(place)
        elif place >= first + rows:
            self._scroll(place - rows + 1)

    def _scroll(self, top: int) -> None:
        """Put a row on top; by force, because a list that has just grown has no scroll bar yet."""
        self.scroll_to(y=top, animate=False, force=True)

    def on_click(self, event: events.Click) -> None:
        index = self._first_visible() + event.y - 1
        if event.y == 0:
            if (column := self._column_at(event.x)) is not None:
                self.post_message(self.Titled(self, column))
            return
        if index >= len(self._keys):
            return
        key = self._keys[index]
        self.filling = False
        if key == self._cursor and self.opens:
            self.action_open()
        else:
            self.select(key)

    def _column_at(self, x: int) -> str | None:
        right = 1
        for column in self._columns:
            right += column.gap + column.width
            if x < right:
                return column.name
        return None

    def on_resize(self) -> None:
        self.virtual_size = Size(self.size.width, len(self._keys) + 1)
        self._reveal()

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()
