"""The message on the command line: text, a file, or standard input; in any case JSON."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO

import msgspec

from corral.errors import BadMessage

_MOST = 64 * 1024 * 1024
"""Bytes; no NATS server can be told to take more in one message."""


def read_message(topic: str, given: str | None) -> bytes:
    """The message as compact JSON: `given` itself, `@FILE`, `-` for standard input, `null` if there is none.

    Raises:
        BadMessage: it cannot be read, or is not JSON.
    """
    match given:
        case None:
            return b"null"
        case "-":
            text = _read(topic, "standard input", sys.stdin.buffer)
        case str() if given.startswith("@"):
            try:
                with Path(given[1:]).open("rb") as file:
                    text = _read(topic, given[1:], file)
            except (OSError, ValueError) as error:
                raise BadMessage(topic, f"{given[1:]!r} cannot be read: {_reason(error)}") from None
        case _:
            text = given.encode(errors="surrogateescape")
    return _compact(topic, text, given)


def _read(topic: str, name: str, file: IO[bytes]) -> bytes:
    text = file.read(_MOST + 1)
    if len(text) > _MOST:
        raise BadMessage(topic, f"{name} has more than {_MOST:,} bytes")
    return text.removeprefix(b"\xef\xbb\xbf")  # editors on Windows mark UTF-8 with it


def _compact(topic: str, text: bytes, given: str) -> bytes:
    """Without spaces, as a program encodes it, so that the same message is the same bytes. Numbers stay as written."""
    try:
        msgspec.json.decode(text)
        return msgspec.json.format(text, indent=-1)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise BadMessage(topic, f"it is not JSON: {_reason(error)}{_hint(text, given)}") from None


def _hint(text: bytes, given: str) -> str:
    if not text.strip():
        return " (it is empty)"
    if given != "-" and not given.startswith("@") and text[:1] not in b'{["':
        return """; a text needs its quotes too: '"like this"'"""
    return ""


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
