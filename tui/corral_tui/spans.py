"""Pieces of text with a role, which is all that a view says about looks; the theme gives roles their colours."""

from __future__ import annotations

from collections.abc import Sequence

from corral.runs import Status
from corral_tui import figures
from corral_tui.values import RunView

Span = tuple[str, str]
"""(text, role). The text is printable, one line, and no markup."""
Line = tuple[Span, ...]

GLYPHS: dict[Status, str] = {
    "queued": "·",
    "running": "▶",
    "interrupting": "■",
    "success": "✓",
    "failed": "✗",
    "interrupted": "■",
}
_EIGHTHS = " ▏▎▍▌▋▊▉"
_LEVELS = "▁▂▃▄▅▆▇█"


def line(*spans: Span | str) -> Line:
    """Spans in a row; plain strings have the role `text`."""
    return tuple((span, "text") if isinstance(span, str) else span for span in spans)


BETWEEN: Span = (" · ", "faint")


def joined(parts: Sequence[Line], between: Span = BETWEEN) -> Line:
    """Parts with something between them; empty ones are left out."""
    out: list[Span] = []
    for part in parts:
        if part:
            out += [between, *part] if out else part
    return tuple(out)


def fitting(parts: Sequence[Line], between: Span, width: int) -> Line:
    """As `joined`, but only as many parts as fit into `width` cells, the first in any case."""
    shown = [part for part in parts if part]
    while len(shown) > 1 and len(plain(joined(shown, between))) > width:
        shown.pop()
    return joined(shown, between)


def wrapped(parts: Sequence[Line], between: Span, width: int) -> list[Line]:
    """As `joined`, on as many lines of `width` cells as it takes; only a part that is longer by itself is cut."""
    lines: list[list[Line]] = []
    for part in filter(None, parts):
        if lines and len(plain(joined([*lines[-1], part], between))) <= width:
            lines[-1].append(part)
        else:
            lines.append([part])
    return [joined(each, between) for each in lines]


def plain(spans: Line) -> str:
    """The text alone."""
    return "".join(text for text, _ in spans)


def status(status: Status, *, word: bool = True) -> Line:
    """Glyph and word, so that it is understood without colour."""
    return ((f"{GLYPHS[status]} {status}" if word else GLYPHS[status], status),)


def number(value: int, role: str = "text") -> Line:
    """A count; nothing is there to see in a zero."""
    return ((figures.count(value), role if value else "faint"),)


def bar(run: RunView, width: int) -> Line:
    """How far a run is, always `width` cells: done, with errors as its last part; running; and what is left.

    Each part has its own glyph too. An error is always visible, and the bar is full only if everything is done. What
    lives is a block, to the eighth of a cell; what has ended is a line, so that a long list stays calm.
    """
    counts = run.counts
    total = max(1, counts.total)
    eighths = width * 8 * run.done // total
    full, part = divmod(eighths, 8)
    part = 0 if run.ended else part
    bad = min(full, max(1, round(width * counts.error / total))) if counts.error else 0
    used = full + bool(part)
    now = 0 if run.ended else min(width - used, -(-width * counts.running // total))
    block, role = ("━", "bar-old") if run.ended else ("█", "bar-live")
    spans = (
        (block * (full - bad), role),
        (block * bad, "bar-error"),
        (_EIGHTHS[part] if part else "", "bar-error" if bad else role),
        ("━" * now, "bar-running"),
        (
            "─" * (width - used - now),
            "bar-stopped" if counts.interrupted or run.status == "interrupting" else "bar-rest",
        ),
    )
    return tuple(span for span in spans if span[0])


def percent(run: RunView) -> Line:
    """What share of the tasks has ended by itself: four cells."""
    share = figures.percent(run.done, run.counts.total)
    return ((f"{share:>3}%", "dim" if run.ended else "text"),)


def spark(values: Sequence[float], role: str = "running") -> Line:
    """A column for each value, scaled to the largest. A zero is a faint base line."""
    top = max(values, default=0.0)
    out: list[Span] = []
    for value in values:
        level = _LEVELS[min(7, int(value / top * 7.999))] if value > 0 else "▁"
        kind = role if value > 0 else "faint"
        if out and out[-1][1] == kind:
            out[-1] = (out[-1][0] + level, kind)
        else:
            out.append((level, kind))
    return tuple(out)
