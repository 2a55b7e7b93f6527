"""From spans to what the toolkit draws."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style

from corral_tui.spans import Line
from corral_tui.text import clean
from corral_tui.theme import style

Look = Callable[[str], Style]
"""The style of a role, on the ground where it is drawn."""


def width_of(spans: Line) -> int:
    """Cells that the spans take."""
    return sum(cell_len(text) for text, _ in spans)


def fitted(spans: Line, width: int, look: Look, *, right: bool = False) -> Iterable[Segment]:
    """The spans in exactly `width` cells: padded, or cut with an ellipsis in the last cell."""
    if not all(text.isprintable() for text, _ in spans):  # whoever made them has forgotten it
        spans = tuple((clean(text), role) for text, role in spans)
    length = width_of(spans)
    if length <= width:
        pad = Segment(" " * (width - length), look("text"))
        drawn = [Segment(text, look(role)) for text, role in spans if text]
        return [pad, *drawn] if right else [*drawn, pad]
    return list(_cut(spans, width, look))


@lru_cache(maxsize=4096)
def drawn_cell(cell: Line, gap: int, width: int, palette: str, *, cursor: bool, right: bool) -> tuple[Segment, ...]:
    """A cell of a table, with the gap before it. Kept: of a row that changes, most cells do not.

    Blanks belong to the text beside them: all that the toolkit does with a row it does for each segment.
    """

    def look(role: str) -> Style:
        return style(role, palette, cursor=cursor)

    return tuple(_joined([Segment(" " * gap, look("text")), *fitted(cell, width, look, right=right)]))


def _joined(segments: Iterable[Segment]) -> list[Segment]:
    """The same to look at, in fewer segments."""
    joined: list[Segment] = []
    for segment in segments:
        if not segment.text:
            continue
        if joined and (style := _common(joined[-1], segment)) is not None:
            joined[-1] = Segment(joined[-1].text + segment.text, style)
        else:
            joined.append(segment)
    return joined


def _common(left: Segment, right: Segment) -> Style | None:
    """A style in which both look as they do; None if there is none."""
    if left.style == right.style:
        return left.style
    for blank, other in ((left, right), (right, left)):
        style = other.style
        if style is not None and blank.text.isspace() and not (style.reverse or style.underline):
            return style
    return None


def _cut(spans: Line, width: int, look: Look) -> Iterable[Segment]:
    room = width - 1
    for text, role in spans:
        length = cell_len(text)
        if length > room:
            yield Segment(set_cell_size(text, room), look(role))
            yield Segment("…", look(role))
            return
        room -= length
        yield Segment(text, look(role))
