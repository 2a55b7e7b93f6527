"""The options that several commands have. They all stand after the command's name."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated

import typer


class StatusName(StrEnum):
    """The statuses of a run, for --status."""

    QUEUED = "queued"
    RUNNING = "running"
    INTERRUPTING = "interrupting"
    SUCCESS = "success"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class OnDuplicateName(StrEnum):
    """What to do while another run holds the key, for --on-duplicate."""

    REJECT = "reject"
    JOIN = "join"
    REPLACE = "replace"


def _a_number(seconds: float | None) -> float | None:
    """Refuse what is a number only by name."""
    if seconds is not None and not math.isfinite(seconds):
        raise typer.BadParameter(f"{seconds} is no number of seconds")
    return seconds


Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        "-s",
        metavar="URL",
        help="The NATS server, or several with commas between. Default: NATS_URL, else your embedded server.",
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        "-n",
        metavar="NAME",
        help="Which system on that server. Default: CORRAL_NAMESPACE, else 'corral'.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Write JSON to standard output, for programs.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="An id, its first characters, or 'last'.")]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="S",
        min=0,
        callback=_a_number,
        help="Seconds to wait at most; then the exit code is 6.",
    ),
]
KillAfter = Annotated[
    float | None,
    typer.Option(
        "--kill-after",
        metavar="S",
        min=0,
        callback=_a_number,
        help="Replace workers in which something still runs after so many seconds.",
    ),
]
Limit = Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="At most so many.")]
App = Annotated[str, typer.Argument(metavar="APP", help="The processors: module, module:attribute or file.py.")]
Workers = Annotated[
    int | None,
    typer.Option("--processes", "-p", metavar="N", min=1, help="Worker processes. Default: one for each core."),
]
Slots = Annotated[
    int, typer.Option("--concurrency", "-c", metavar="N", min=1, help="Tasks that a worker process runs at once.")
]
NoTui = Annotated[bool, typer.Option("--no-tui", help="Lines of progress instead of the dashboard.")]
