"""Saying that something is there that should not be, without a line for each.

Who stores a million of them is not to fill a disk with what is said about it.
"""

from __future__ import annotations

import logging


class Oddities:
    """Logs each kind the first time, the tenth, the hundredth and so on."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._seen: dict[str, int] = {}

    def note(self, kind: str, **details: object) -> None:
        """One of a kind was met. Kinds are few, and said in the code; `details` come from anywhere."""
        times = self._seen[kind] = self._seen.get(kind, 0) + 1
        if times == 10 ** (len(str(times)) - 1):
            self._log.error(kind, extra={**details, "times": times})
