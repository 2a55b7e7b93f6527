"""What commands write: data to standard output, everything else to standard error."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import msgspec

from corral.errors import CorralError, DuplicateRun
from corral.runs import plain

Cell = str | int
WIDEST = 60
"""Characters of a table's cell; a unique key may have a thousand."""


class CannotWrite(CorralError):
    """Standard output takes nothing more: its disk is full, for example."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"standard output cannot be written: {self.reason}"


def note(text: str) -> None:
    """A line for whoever watches, on standard error."""
    sys.stderr.write(f"{printable(text)}\n")
    sys.stderr.flush()


def say(text: str) -> None:
    """A line of data for people; it may have several lines itself, but nothing that moves a terminal's cursor."""
    with _writing():
        sys.stdout.write(f"{printable(text)}\n")


def write_json(value: object) -> None:
    """One JSON document: indented for eyes, a single line for programs."""
    text = msgspec.json.encode(plain(value))
    _write(msgspec.json.format(text, indent=2) if sys.stdout.isatty() else text)


def write_json_line(value: object) -> None:
    """One of many JSON documents, each a line."""
    _write(msgspec.json.encode(plain(value)))


def refusal(held: DuplicateRun) -> dict[str, str]:
    """For programs: which run holds the unique key."""
    return {"error": "duplicate_run", "unique": held.key, "run": held.run_id}


def _write(text: bytes) -> None:
    # JSON is UTF-8, whatever the terminal's language is.
    with _writing():
        sys.stdout.flush()
        sys.stdout.buffer.write(text + b"\n")


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read it has stopped reading, which is no failure
        raise
    except OSError as error:
        raise CannotWrite(error.strerror or str(error)) from None


def say_table(headings: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    """Columns under headings; numbers stand to the right."""
    say("\n".join(table(headings, rows)))


def table(headings: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[str]:
    """The lines of a table, without spaces at their ends."""
    texts = [list(headings)] + [[_cell(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in texts) for column in range(len(headings))]
    right = [bool(rows) and all(isinstance(row[column], int) for row in rows) for column in range(len(headings))]
    return [
        "  ".join(
            text.rjust(width) if is_right else text.ljust(width)
            for text, width, is_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in texts
    ]


def _cell(cell: Cell) -> str:
    if isinstance(cell, int):
        return f"{cell:,}"
    text = printable(cell).replace("\n", "\\n")
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


def printable(text: str) -> str:
    """The text without what a terminal would obey: keys and errors come from anywhere. Line ends and tabs stay."""
    if text.isprintable():
        return text
    return "".join(
        char if char in "\n\t" or not unicodedata.category(char).startswith("C") else ascii(char)[1:-1] for char in text
    )


def clock(at: datetime) -> str:
    """A moment as this machine's clocks show it."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def ago(at: datetime | None) -> str:
    """How long ago that was; empty if it never was."""
    return "" if at is None else duration((datetime.now(UTC) - at).total_seconds())


def duration(seconds: float) -> str:
    """A length of time in the two units that matter."""
    seconds = max(0.0, seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 1:
        return f"{minutes} min {rest} s"
    days, hours = divmod(hours, 24)
    return f"{hours} h {minutes} min" if days < 1 else f"{days} d {hours} h"


def plural(count: int, what: str) -> str:
    """`1 error`, `2 errors`."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def size(count: int) -> str:
    """Bytes in MiB."""
    return f"{count / 2**20:.0f} MiB"
