"""Colours: one calm dark theme, and what each role of a span looks like in it.

Where colours are unwanted (`NO_COLOR`), roles are weights alone: glyphs and words carry the meaning.
"""

from __future__ import annotations

from functools import lru_cache

from rich.color import Color
from rich.style import Style
from textual.theme import Theme

BACKGROUND = "#11151a"
CURSOR = "#212a35"
RAISED = "#181e25"

_TEXT, _DIM, _FAINT, _STRONG = "#c3cad3", "#7d8894", "#414b57", "#eef2f6"
_BLUE, _GREEN, _RED, _AMBER, _YELLOW = "#6cb0ee", "#86bd84", "#ea6a6a", "#d6a35c", "#dcc46e"

ROLES: dict[str, str] = {
    "text": _TEXT,
    "dim": _DIM,
    "faint": _FAINT,
    "strong": f"bold {_STRONG}",
    "title": f"bold {_BLUE}",
    "head": _DIM,
    "accent": _BLUE,
    "accent-dim": "#6a8cab",
    "success": _GREEN,
    "running": _BLUE,
    "queued": _DIM,
    "error": _RED,
    "failed": _RED,
    "interrupted": _AMBER,
    "interrupting": f"bold {_AMBER}",
    "warning": _YELLOW,
    "bar-live": _BLUE,
    "bar-running": "#9fd0ff",
    "bar-old": "#4f6b57",
    "bar-error": "#c95a5a",
    "bar-stopped": "#8a6c42",
    "bar-rest": "#36414d",
}
_PLAIN: dict[str, str] = {
    "strong": "bold",
    "title": "bold",
    "head": "underline",
    "error": "bold",
    "failed": "bold",
    "warning": "bold",
    "running": "bold",
}

THEME = Theme(
    name="corral",
    primary=_BLUE,
    secondary=_GREEN,
    warning=_YELLOW,
    error=_RED,
    success=_GREEN,
    accent=_BLUE,
    foreground=_TEXT,
    background=BACKGROUND,
    surface=RAISED,
    panel=RAISED,
    dark=True,
    variables={
        "scrollbar": "#2b343e",
        "scrollbar-hover": "#3a4653",
        "scrollbar-active": "#4c5b6b",
        "scrollbar-background": BACKGROUND,
        "scrollbar-background-hover": BACKGROUND,
        "scrollbar-background-active": BACKGROUND,
        "scrollbar-corner-color": BACKGROUND,
        "block-cursor-background": CURSOR,
        "input-selection-background": "#2f4358",
    },
)


@lru_cache(maxsize=512)
def style(role: str, *, colour: bool, cursor: bool = False, ground: str | None = None) -> Style:
    """The look of a role. Every style has both colours: filters of the toolkit fail on what has none."""
    if not colour:
        default = Color.default()
        plain = Style.parse(_PLAIN.get(role, "none"))
        return plain + Style.from_color(default, default) + (Style(bold=True) if cursor else Style.null())
    return Style.parse(ROLES[role]) + Style(bgcolor=CURSOR if cursor else ground or BACKGROUND)
