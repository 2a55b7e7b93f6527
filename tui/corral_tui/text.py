"""Text from outside (topics, messages, tracebacks) made harmless: what a terminal would obey is taken out.

Nothing here is parsed as markup anywhere; these functions see to escape sequences, control and bidirectional
characters, and to lines that are too long to be laid out.
"""

from __future__ import annotations

import unicodedata

LINE_LIMIT = 2_000
"""Characters of one line that are kept."""
_DROPPED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_COMBINING = frozenset({"Mn", "Me"})


def clean(text: str, limit: int = LINE_LIMIT) -> str:
    """`text` as one printable line of at most `limit` characters; line breaks and tabs are spaces."""
    cut = text[: limit + 1]
    if not (cut.isascii() and cut.isprintable()):
        cut = _printable(cut)
    return cut if len(cut) <= limit else f"{cut[: limit - 1]}…"


def clean_lines(text: str, limit: int = 2_000) -> list[str]:
    """`text` as at most `limit` printable lines; tabs are four spaces, and a cut is said."""
    lines = text[: limit * LINE_LIMIT].splitlines()
    kept = [clean(line.replace("\t", "    ")) for line in lines[:limit]]
    if len(lines) > limit:
        kept.append(f"… {len(lines) - limit:,} more lines")
    return kept


def _printable(text: str) -> str:
    out: list[str] = []
    combining = 0
    for char in text:
        if char in "\n\r\t":
            char = " "  # noqa: PLW2901  what a reader sees of it
        category = unicodedata.category(char)
        if category in _DROPPED:
            continue
        # A letter may carry one mark: towers of them leave their line.
        combining = combining + 1 if category in _COMBINING else 0
        if combining <= 1:
            out.append(char)
    return "".join(out)
