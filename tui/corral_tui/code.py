"""Syntax colours for lines of Python as they stand in a traceback: line by line, by a few patterns, never executed."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator

from corral_tui.spans import Line, Span

_TOKEN = re.compile(
    r"""(?P<comment>\#.*)
    |(?P<string>[rbfuRBFU]{0,2}(?:"(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?))
    |(?P<number>\b\d[\w.]*)
    |(?P<word>[^\W\d]\w*)(?P<call>\s*\()?""",
    re.VERBOSE,
)
_FRAME = re.compile(r'^(\s*File )("[^"]*")(, line )(\d+)(?:(, in )(.*))?$')
_WORDS = frozenset(keyword.kwlist) | {"self", "cls"}


def trace_line(text: str) -> Line:
    """One line of a traceback."""
    if frame := _FRAME.match(text):
        start, file, word, number, within, function = frame.groups()
        spans: list[Span] = [(start, "dim"), (file, "accent-dim"), (word, "dim"), (number, "code-number")]
        if function is not None:
            spans += [(within, "dim"), (function, "code-name")]
        return tuple(spans)
    if text.startswith("Traceback") or not text.strip(" ^~"):
        return ((text, "dim" if text.startswith("T") else "error"),)
    if text.startswith("    "):
        return tuple(_coloured(text))
    kind, colon, message = text.partition(":")
    return ((kind, "error"), (colon + message, "strong"))


def json_line(text: str) -> Line:
    """One line of JSON, as it is indented here."""
    return tuple(_coloured(text))


def _coloured(text: str) -> Iterator[Span]:
    done = 0
    for token in _TOKEN.finditer(text):
        if token.start() > done:
            yield text[done : token.start()], "text"
        done = token.end()
        if token["word"] is None:
            yield token[0], f"code-{token.lastgroup}"
            continue
        role = "code-keyword" if token["word"] in _WORDS else "code-name" if token["call"] else "text"
        yield token["word"], role
        if token["call"]:
            yield token["call"], "text"
    if done < len(text):
        yield text[done:], "text"
