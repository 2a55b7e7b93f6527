"""All keys that work here, from the bindings themselves, and what the signs mean."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, zip_longest
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import ActiveBinding, Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen

from corral_tui.spans import GLYPHS, Line, line
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
        self._lines = help_lines(bindings)

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            yield Lines(id="help", raised=True)

    def on_mount(self) -> None:
        self.query_one(Lines).show(self._lines)

    def action_scroll(self, lines: int) -> None:
        """Where there is less room than it takes."""
        self.query_one("#box").scroll_relative(y=lines, animate=False)


def help_lines(bindings: Iterable[ActiveBinding]) -> list[Line]:
    """The keys of each action and what it does, two actions a line; then the signs."""
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
    rows = [(*left, *right) for left, right in zip_longest(_column(said[:half]), _column(said[half:]), fillvalue=())]
    if sorts:
        spans = [span for key, word in sorts for span in ((f"{key} ", "accent"), (f"{word} ", "dim"))]
        rows.append((("sort by ", "text"), *spans))
    return [line(("Keys", "strong")), (), *rows, (), line(("Signs", "strong")), (), *_signs()]


def _column(said: list[tuple[str, str]]) -> list[Line]:
    """Keys and what they do, as wide as the longest."""
    keys_width = max((len(keys) for keys, _ in said), default=0) + 2
    width = max((len(description) for _, description in said), default=0) + 3
    return [((f"{keys:<{keys_width}}", "accent"), (f"{description:<{width}}", "text")) for keys, description in said]


def _signs() -> list[Line]:
    signs = [((f"{glyph} ", status), (f"{status:<15}", "dim")) for status, glyph in GLYPHS.items()]
    parts = [("█ ", "bar-live", "done"), ("█ ", "bar-error", "errors"), ("━ ", "bar-running", "running")]
    parts += [("─ ", "bar-rest", "to do"), ("─ ", "bar-stopped", "stopped")]
    bar = [((glyph, role), (f"{word}   ", "dim")) for glyph, role, word in parts]
    return [tuple(chain(*signs[:3])), tuple(chain(*signs[3:])), tuple(chain(*bar))]


def _name(key: str) -> str:
    return _NAMES.get(key, key.replace("upper_", "").replace("ctrl+", "^"))
