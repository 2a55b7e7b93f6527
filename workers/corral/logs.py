"""How processes of a pool log: a line to standard error, with the facts of the record behind its message."""

from __future__ import annotations

import logging
import sys

_PLAIN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class _Lines(logging.Formatter):
    def __init__(self, who: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)-7s {who} %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the standard library's name
        facts = " ".join(f"{name}={value}" for name, value in vars(record).items() if name not in _PLAIN)
        return f"{super().formatMessage(record)} {facts}".rstrip()


def _worth_saying(record: logging.LogRecord) -> bool:
    """Not what asyncio says whenever a connection with TLS ends, and nobody can change."""
    return "eof_received" not in record.getMessage()


def log_to_stderr(who: str, level: int = logging.INFO) -> None:
    """Let this process log to standard error; `who` stands in every line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(who))
    handler.addFilter(_worth_saying)
    logging.basicConfig(level=level, handlers=[handler], force=True)
