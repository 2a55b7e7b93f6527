"""The screen as text that is kept in a file and compared to the letter.

Above a ruler stand the characters. Below it, where the looks are kept too, a letter for each of them says which colour
of the palette it has, a capital that it is bold: a snapshot changes with a meaning, not with a shade.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from rich.color import Color
from rich.style import Style
from textual.app import App
from textual.strip import Strip
from textual.widgets import Input

from corral_tui.theme import PALETTES, palette_of
from tests.tui.drawn import Stage, drawn_lines

FOLDER = Path(__file__).with_name("snapshots")
COMMAND = "python -m pytest tests/tui/test_snapshots.py --make-snapshots"
RULER = "-" * 20
MOST_TURNS = 20

LETTERS = {
    "text": ".",
    "dim": "d",
    "faint": "f",
    "strong": "s",
    "blue": "b",
    "green": "g",
    "red": "r",
    "amber": "a",
    "yellow": "y",
    "accent-dim": "c",
    "bar-running": "n",
    "bar-old": "o",
    "bar-error": "e",
    "bar-stopped": "p",
    "bar-rest": "t",
    "map-success": "m",
    "map-partly": "q",
}
"""Colours of a palette. Where two are the same, the first one's letter stands for both."""
OTHER = "~"
"""A colour that the toolkit has mixed: what lies behind a dialogue."""


def path_of(name: str, size: tuple[int, int]) -> Path:
    """Where the snapshot of a shot is kept."""
    return FOLDER / f"{name}-{size[0]}x{size[1]}.txt"


def compared(path: Path, drawn: str, *, anew: bool) -> list[str]:
    """How it differs from what is kept, line by line; or keep it."""
    if anew:
        FOLDER.mkdir(exist_ok=True)
        path.write_text(drawn, encoding="utf-8")
    kept = path.read_text(encoding="utf-8") if path.exists() else ""
    return list(difflib.unified_diff(kept.splitlines(), drawn.splitlines(), path.name, "drawn", lineterm="", n=1))


async def settled(stage: Stage) -> None:
    """Until nothing moves any more, by the clock as it stands."""
    for box in stage.app.screen.query(Input):
        box.cursor_blink = False
    before: list[str] = []
    for _ in range(MOST_TURNS):
        await stage.tick()
        if before == (before := stage.lines()):
            return
    raise AssertionError("the screen does not come to rest")


def printed(app: App[int], *, looks: bool) -> str:
    """What is on the screen, and how it looks."""
    text = drawn_lines(app)
    if looks:
        letters = _letters(app)
        masks = ["".join(_mask(strip, letters)).rstrip() for strip in app.screen._compositor.render_strips()]
        used = {letter.lower() for letter in "".join(masks)}
        legend = [f"{letter} {name}" for name, letter in LETTERS.items() if letter in used and letters]
        text += [f"{RULER} {'  '.join(legend) or 'B bold  U underlined  R reversed'}", *masks]
    return "\n".join(text) + "\n"


def _letters(app: App[int]) -> Mapping[object, str]:
    """The letter of each colour of the palette in force; none where there are no colours."""
    palette = PALETTES.get(palette_of(app))
    if palette is None:
        return {}
    named = {each.name: getattr(palette, each.name) for each in fields(palette)}
    colours = {**{name: colour for name, colour in named.items() if name in LETTERS}, **palette.soft}
    found: dict[object, str] = {}
    for name, letter in LETTERS.items():
        if name in colours:
            found.setdefault(_key(Style.parse(colours[name]).color), letter)
    return found


def _key(colour: Color | None) -> object:
    return colour and (colour.triplet or colour.name)


def _mask(strip: Strip, letters: Mapping[object, str]) -> list[str]:
    return ["".join(" " if char == " " else _letter(style, letters) for char in text) for text, style, _ in strip]


def _letter(style: Style | None, letters: Mapping[object, str]) -> str:
    assert style is not None
    if letters:
        letter = letters.get(_key(style.color), OTHER)
        return letter.upper() if style.bold else letter
    assert style.color is not None
    assert style.color.is_default, f"a colour where there should be none: {style}"
    return "R" if style.reverse else "B" if style.bold else "U" if style.underline else "."
