"""Which columns a list has at a given width, and how wide they are. Rows are made for exactly these columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

NARROW, WIDE = 100, 160
"""Columns of a terminal below which only the essential is shown, and from which on there is room."""
SMALL = 76
"""Columns below which times and intervals get shorter, and lists lose what can be missed."""
PERCENT = 5
"""Cells of the percentage behind a bar, with the space before it."""


@dataclass(frozen=True, slots=True)
class Column:
    """`gap` is the number of spaces before it."""

    name: str
    title: str
    width: int
    right: bool = False
    gap: int = 2


def total_width(columns: tuple[Column, ...]) -> int:
    """Cells of a row: the mark of the cursor, the columns, and a space at the end."""
    return 2 + sum(column.width + column.gap for column in columns)


def run_columns(
    width: int, widest: Mapping[str, int], *, id_width: int, topic_width: int, name_width: int = 0
) -> tuple[Column, ...]:
    """The columns of the list of runs.

    `widest` has the largest counts to make room for, `id_width` and `topic_width` are those of the longest shown, and
    `name_width` that of the longest topic with a unique key behind it. When it is narrow, gaps shrink first, then the
    status is its glyph alone, then the least important columns go, and the bar as the last of them.
    """
    topic_width = max(topic_width, name_width)
    columns = _all_run_columns(widest, id_width, max(len("TOPIC"), min(topic_width, 16)))
    if width < NARROW:
        columns = _narrow(_without(columns, "total", "stopped", "rate", "eta", "age"))
    if total_width(columns) > width:
        columns = _tight(columns)
    if total_width(columns) > width:
        columns = _narrow(columns)
    for name in ("stopped", "age", "eta", "rate", "total"):
        if total_width(columns) > width:
            columns = _without(columns, name)
    for name, least in (("topic", 8), ("run", 6)):
        columns = _squeezed(columns, name, least, total_width(columns) - width)
    if total_width(columns) > width:
        columns = _without(columns, "bar")
    return _stretch(columns, width, topic_width)


def _all_run_columns(widest: Mapping[str, int], id_width: int, topic_width: int) -> tuple[Column, ...]:
    tasks = len(f"{widest.get('total', 0):,}")

    def numeric(name: str, title: str, most: int) -> Column:
        return Column(name, title, max(len(title), most), right=True)

    return (
        Column("status", "STATUS", 14, gap=1),
        Column("run", "RUN", max(3, id_width)),
        Column("topic", "TOPIC", topic_width),
        Column("bar", "PROGRESS", 8 + PERCENT),
        numeric("total", "TOTAL", tasks),
        numeric("pending", "PENDING", tasks),
        numeric("running", "RUNNING", len(f"{widest.get('running', 0):,}")),
        numeric("success", "SUCCESS", tasks),
        numeric("error", "ERROR", max(6, len(f"{widest.get('error', 0):,}"))),
        numeric("stopped", "STOPPED", len(f"{widest.get('interrupted', 0):,}")),
        numeric("rate", "RATE", 7),
        numeric("eta", "ETA", 5),
        numeric("age", "AGE", 4),
    )


def _without(columns: tuple[Column, ...], *names: str) -> tuple[Column, ...]:
    return tuple(column for column in columns if column.name not in names)


def _tight(columns: tuple[Column, ...]) -> tuple[Column, ...]:
    return tuple(replace(column, gap=1) if column.right else column for column in columns)


def _narrow(columns: tuple[Column, ...]) -> tuple[Column, ...]:
    return tuple(
        replace(c, title="", width=1) if c.name == "status" else replace(c, gap=1) if c.name == "run" else c
        for c in columns
    )


def _squeezed(columns: tuple[Column, ...], name: str, least: int, by: int) -> tuple[Column, ...]:
    return tuple(
        replace(c, width=max(min(c.width, least), c.width - max(0, by))) if c.name == name else c for c in columns
    )


def _stretch(columns: tuple[Column, ...], width: int, topic_width: int) -> tuple[Column, ...]:
    """Give the room that is left to the topic, as far as it needs it, then to the bar, then to the gaps."""
    room = width - total_width(columns)
    grown = []
    for column in columns:
        more = 0
        if column.name == "topic":
            more = min(room, max(0, min(topic_width, 40) - column.width))
        elif column.name == "bar":
            more = min(room, 24)
        more = max(0, more)
        room -= more
        grown.append(replace(column, width=column.width + more))
    extra = min(2, max(0, room) // max(1, len(grown) - 1))
    return tuple(replace(column, gap=column.gap + extra) if i else column for i, column in enumerate(grown))


def filling(width: int, columns: tuple[Column, ...], last: str) -> tuple[Column, ...]:
    """The columns, with the named one as wide as there is room."""
    room = width - total_width(columns)
    return tuple(replace(c, width=max(8, c.width + room)) if c.name == last else c for c in columns)


def topic_columns(width: int, widest: int, topic_width: int) -> tuple[Column, ...]:
    """The columns of a run's topics; `widest` is the largest count."""
    digits = len(f"{widest:,}")
    titles = ("TOTAL", "PENDING", "RUNNING", "RETRYING", "SUCCESS", "ERROR", "STOPPED")
    numbers = [Column(t.lower(), t, max(len(t), digits), right=True) for t in titles]
    if width < NARROW:
        numbers = [c for c in numbers if c.name not in ("retrying", "stopped", "total")]
    columns = (Column("topic", "TOPIC", 12, gap=1), Column("bar", "PROGRESS", 8 + PERCENT), *numbers)
    return _stretch(columns, width, topic_width)


def error_columns(width: int) -> tuple[Column, ...]:
    """The columns of a run's errors."""
    columns: tuple[Column, ...] = (
        Column("at", "TIME", 8, gap=1),
        Column("topic", "TOPIC", 14 if width < NARROW else 20),
        Column("task", "TASK", 12),
        Column("attempt", "TRY", 3, right=True),
        Column("error", "ERROR", 10),
    )
    if width < NARROW:
        columns = _without(columns, "attempt", "task")
    return filling(width, columns, "error")


def group_columns(width: int) -> tuple[Column, ...]:
    """The columns of a run's groups of errors."""
    columns: tuple[Column, ...] = (
        Column("count", "TASKS", 9, right=True, gap=1),
        Column("spark", "WHEN", 24),
        Column("first", "FIRST", 8),
        Column("last", "LAST", 8),
        Column("error", "ERROR", 10),
        Column("place", "WHERE", 34),
    )
    if width < NARROW:
        columns = _without(columns, "spark", "first", "place")
    elif width < WIDE:
        columns = _without(columns, "place")
    return filling(width, columns, "error")


def share_columns(width: int, most: int) -> tuple[Column, ...]:
    """The columns of the workers on a run; `most` is the largest count."""
    digits = max(7, len(f"{most:,}"))
    columns: tuple[Column, ...] = (
        Column("state", "STATE", 9, gap=1),
        Column("worker", "WORKER", 18),
        Column("host", "HOST", 14),
        Column("running", "RUNNING", 7, right=True),
        Column("rate", "RATE", 7, right=True),
        Column("success", "SUCCESS", digits, right=True),
        Column("error", "ERROR", 7, right=True),
        Column("stopped", "STOPPED", 7, right=True),
        Column("last", "LAST END", 9, right=True),
        Column("longest", "AT WORK FOR LONGEST", 20),
    )
    if width < NARROW:
        columns = _without(columns, "host", "stopped", "longest")
    elif width < WIDE:
        columns = _without(columns, "host")
    return columns if width < NARROW else filling(width, columns, "longest")


def event_columns(width: int) -> tuple[Column, ...]:
    """The columns of a run's events."""
    columns = (
        Column("sequence", "EVENT", 9, right=True, gap=1),
        Column("at", "TIME", 12),
        Column("kind", "KIND", 11),
        Column("text", "WHAT", 10),
    )
    return filling(width, columns, "text")
