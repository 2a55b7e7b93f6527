"""Colours: what each role of a span looks like in each theme, and the toolkit's themes that go with them.

`corral` is calm and dark, `corral-light` is for paper-white terminals, `corral-ansi` takes the terminal's own sixteen
colours. Where colours are unwanted (`NO_COLOR`, or `corral-plain`), roles are weights alone: glyphs and words carry
the meaning anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from rich.color import Color
from rich.style import Style
from textual.app import App
from textual.theme import BUILTIN_THEMES, Theme

DEFAULT, PLAIN = "corral", "corral-plain"


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours that a theme is made of; `ground` lies below everything, `raised` below what stands out.

    Without a `cursor` the row under it is in reverse.
    """

    ground: str
    raised: str
    cursor: str
    text: str
    dim: str
    faint: str
    strong: str
    blue: str
    green: str
    red: str
    amber: str
    yellow: str
    soft: Mapping[str, str] = field(default_factory=dict)
    """Looks of roles that are not one of these colours."""

    def roles(self) -> dict[str, str]:
        """The look of each role."""
        return {
            "text": self.text,
            "dim": self.dim,
            "faint": self.faint,
            "strong": f"bold {self.strong}",
            "title": f"bold {self.blue}",
            "head": self.dim,
            "accent": self.blue,
            "success": self.green,
            "running": self.blue,
            "queued": self.dim,
            "error": self.red,
            "failed": self.red,
            "interrupted": self.amber,
            "interrupting": f"bold {self.amber}",
            "warning": self.yellow,
            "shout": f"bold {self.red}",
            "marked": f"bold {self.yellow}",
            "bar-live": self.blue,
            "map-ended": self.dim,
            "map-retrying": self.yellow,
            "map-error": f"bold {self.red}",
            "map-interrupted": self.amber,
            "map-pending": self.faint,
            "code-keyword": self.amber,
            "code-string": self.green,
            "code-number": self.yellow,
            "code-name": self.blue,
            "code-comment": self.faint,
            **self.soft,
        }


_DARK = Palette(
    ground="#11151a",
    raised="#181e25",
    cursor="#212a35",
    text="#c3cad3",
    dim="#8a95a1",
    faint="#5b6673",
    strong="#eef2f6",
    blue="#6cb0ee",
    green="#86bd84",
    red="#ea6a6a",
    amber="#d6a35c",
    yellow="#dcc46e",
    soft={
        "accent-dim": "#7b9dbd",
        "bar-running": "#9fd0ff",
        "bar-old": "#4f6b57",
        "bar-error": "#c95a5a",
        "bar-stopped": "#8a6c42",
        "bar-rest": "#36414d",
        "map-success": "#4f7d62",
        "map-partly": "#4a789f",
        "map-running": "#9fd0ff",
        "map-pending": "#414b57",
        "code-comment": "#8a95a1",
    },
)
_LIGHT = Palette(
    ground="#fbfaf7",
    raised="#f0eee8",
    cursor="#dfe6ee",
    text="#33393f",
    dim="#5c646c",
    faint="#8f969d",
    strong="#0c0f12",
    blue="#1d62a8",
    green="#266e33",
    red="#b8262b",
    amber="#875407",
    yellow="#715900",
    soft={
        "accent-dim": "#436585",
        "bar-running": "#0b3f78",
        "bar-old": "#9bb8a3",
        "bar-error": "#c9595c",
        "bar-stopped": "#c9a874",
        "bar-rest": "#d5d8da",
        "map-success": "#8fbf9c",
        "map-partly": "#86aed4",
        "map-running": "#0b3f78",
        "map-pending": "#bcc2c7",
        "code-comment": "#5c646c",
    },
)
_ANSI = Palette(
    ground="default",
    raised="default",
    cursor="",
    text="default",
    dim="bright_black",
    faint="bright_black",
    strong="default",
    blue="blue",
    green="green",
    red="red",
    amber="magenta",
    yellow="yellow",
    soft={
        "accent-dim": "cyan",
        "bar-running": "cyan",
        "bar-old": "green",
        "bar-error": "red",
        "bar-stopped": "magenta",
        "bar-rest": "bright_black",
        "map-success": "green",
        "map-partly": "blue",
        "map-running": "cyan",
    },
)
PALETTES = {DEFAULT: _DARK, "corral-light": _LIGHT, "corral-ansi": _ANSI}
_WEIGHTS = {
    "strong": "bold",
    "title": "bold",
    "head": "underline",
    "error": "bold",
    "failed": "bold",
    "warning": "bold",
    "running": "bold",
    "shout": "bold reverse",
    "marked": "bold",
    "map-error": "bold reverse",
}


def _theme(name: str, palette: Palette, *, dark: bool) -> Theme:
    ground, raised, cursor, faint = palette.ground, palette.raised, palette.cursor, palette.faint
    return Theme(
        name=name,
        primary=palette.blue,
        secondary=palette.green,
        warning=palette.yellow,
        error=palette.red,
        success=palette.green,
        accent=palette.blue,
        foreground=palette.text,
        background=ground,
        surface=raised,
        panel=raised,
        dark=dark,
        variables={
            "scrollbar": faint,
            "scrollbar-hover": palette.dim,
            "scrollbar-active": palette.dim,
            "scrollbar-background": ground,
            "scrollbar-background-hover": ground,
            "scrollbar-background-active": ground,
            "scrollbar-corner-color": ground,
            "block-cursor-background": cursor,
            "input-selection-background": cursor,
        },
    )


def _terminals_own(name: str) -> Theme:
    """A theme of the terminal's own colours, from the toolkit's one."""
    return replace(BUILTIN_THEMES["ansi-dark"], name=name)


THEMES: tuple[Theme, ...] = (
    _theme(DEFAULT, _DARK, dark=True),
    _theme("corral-light", _LIGHT, dark=False),
    _terminals_own("corral-ansi"),
    _terminals_own(PLAIN),
)
"""In the order in which a key goes through them."""


def palette_of(app: App[Any]) -> str:
    """The name of the palette that is in force: `corral-plain` is none."""
    return PLAIN if app.no_color or app.theme not in PALETTES else app.theme


@lru_cache(maxsize=2048)
def style(role: str, palette: str, *, cursor: bool = False, raised: bool = False) -> Style:
    """The look of a role. Every style has both colours: filters of the toolkit fail on what has none."""
    colours = PALETTES.get(palette)
    if colours is None:
        default = Color.default()
        plain = Style.parse(_WEIGHTS.get(role, "none"))
        return plain + Style.from_color(default, default) + (Style(bold=True) if cursor else Style.null())
    if cursor and not colours.cursor:
        return Style(color=colours.text, bgcolor=colours.ground, reverse=True)
    ground = colours.cursor if cursor else colours.raised if raised else colours.ground
    return Style.parse(_roles(palette)[role]) + Style(bgcolor=ground)


@lru_cache(maxsize=8)
def _roles(palette: str) -> dict[str, str]:
    return PALETTES[palette].roles()
