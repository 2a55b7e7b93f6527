"""All keys that work here, from the bindings themselves, and what the signs mean."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, zip_longest
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import ActiveBinding, Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen

from corral_tui.spans import GLYPHS, Line, line, plain
from corral_tui.widgets.lines import Lines

_NAMES = {
    "slash": "/",
    "question_mark": "?",
    "colon": ":",
    "asterisk": "*",
    "plus": "+",
    "equals_sign": "=",
    "minus": "-",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "left_curly_bracket": "{",
    "right_curly_bracket": "}",
    "less_than_sign": "<",
    "greater_than_sign": ">",
    "escape": "esc",
    "pagedown": "pgdn",
    "pageup": "pgup",
}

BOX, EDGE = 74, 7
"""Cells of the help at most, and those of its edges."""


class HelpScreen(ModalScreen[None], inherit_bindings=False):
    """Opened over a screen, about that screen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q,enter", "dismiss", "close", key_display="esc"),
        Binding("down,j", "scroll(1)", show=False),
        Binding("up,k", "scroll(-1)", show=False),
        Binding("pagedown,space", "scroll(10)", show=False),
        Binding("pageup", "scroll(-10)", show=False),
    ]

    def __init__(self, bindings: Iterable[ActiveBinding]) -> None:
        super().__init__()
        self._about = list(bindings)

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            yield Lines(id="help", raised=True)

    def on_mount(self) -> None:
        self.on_resize()

    def on_resize(self) -> None:
        room = min(BOX, self.app.size.width * 96 // 100) - EDGE
        self.query_one(Lines).show(help_lines(self._about, room))

    def action_scroll(self, lines: int) -> None:
        """Where there is less room than it takes."""
        self.query_one("#box").scroll_relative(y=lines, animate=False)


def help_lines(bindings: Iterable[ActiveBinding], room: int) -> list[Line]:
    """The keys of each action and what it does, two actions a line if they fit; then the signs."""
    actions: dict[tuple[str, str], list[str]] = {}
    sorts: list[tuple[str, str]] = []
    for active in bindings:
        binding = active.binding
        if binding.action.startswith("sort("):
            sorts.append((_name(binding.key), binding.description.removeprefix("sort by ")))
            continue
        if binding.description and active.enabled:
            keys = actions.setdefault((binding.action, binding.description), [])
            if (name := _name(binding.key)) not in keys:
                keys.append(name)
    said = [(" ".join(keys), description) for (_, description), keys in actions.items()]
    half = (len(said) + 1) // 2
    left, right = _column(said[:half], gap=3), _column(said[half:])
    rows = [(*one, *other) for one, other in zip_longest(left, right, fillvalue=())]
    if max(len(plain(row)) for row in rows) > room:
        rows = _column(said)
    in_lines = (sorts[:4], sorts[4:]) if room < BOX - EDGE else (sorts, [])
    for begin, part in zip(("sort by  ", " " * 9), in_lines, strict=True):
        spans = [span for key, word in part for span in ((f"{key} ", "accent"), (f"{word} ", "dim"))]
        rows += [((begin, "text"), *spans)] if part else []
    return [line(("Keys", "strong")), (), *rows, (), line(("Signs", "strong")), (), *_signs()]


def _column(said: list[tuple[str, str]], gap: int | None = None) -> list[Line]:
    """Keys and what they do; with a gap as wide as the longest and so many cells more."""
    keys_width = max((len(keys) for keys, _ in said), default=0) + 2
    width = max((len(description) for _, description in said), default=0) + gap if gap else 0
    return [((f"{keys:<{keys_width}}", "accent"), (f"{description:<{width}}", "text")) for keys, description in said]


def _signs() -> list[Line]:
    signs = [((f"{glyph} ", status), (f"{status:<15}", "dim")) for status, glyph in GLYPHS.items()]
    parts = [("█ ", "bar-live", "done"), ("█ ", "bar-error", "errors"), ("━ ", "bar-running", "running")]
    parts += [("─ ", "bar-rest", "to do"), ("─ ", "bar-stopped", "stopped")]
    bar = [((glyph, role), (f"{word}   ", "dim")) for glyph, role, word in parts]
    return [tuple(chain(*signs[:3])), tuple(chain(*signs[3:])), tuple(chain(*bar))]


def _name(key: str) -> str:
    return _NAMES.get(key, key.replace("upper_", "").replace("ctrl+", "^"))
