"""The way in: open the dashboard, and leave a summary behind."""

from __future__ import annotations

import contextlib
import gc
import sys
import time
from typing import TYPE_CHECKING

from corral_tui.feed import Feed
from corral_tui.source import Source
from corral_tui.summary import summary

if TYPE_CHECKING:
    from corral_tui.app import Dashboard


def run_dashboard(
    *, url: str | None = None, namespace: str | None = None, read_only: bool = False, run_id: str | None = None
) -> int:
    """Show the dashboard until it is left, then a summary on the normal screen; returns the exit code of the process.

    `url` and `namespace` as for a client. With `run_id` that run is opened, and the code is 0, 1 or 5 for its success,
    failure or interruption, 0 while it is live. It is 130 after Ctrl-C, and 128 and the signal's number after SIGHUP or
    SIGTERM. `read_only` hides all that changes anything.

    Raises:
        NoServer, PermissionDenied: there is nothing to show.
    """
    feed = Feed(url, namespace)
    feed.start()  # so that it has connected, and read the first runs, when there is something to show them on
    try:
        return show(feed, read_only=read_only, run_id=run_id)
    finally:
        feed.stop()


def show(source: Source, *, read_only: bool = False, run_id: str | None = None) -> int:
    """Run the dashboard on a source until it is left; returns the exit code."""
    app = _dashboard()(source, run_id=run_id, read_only=read_only)
    try:
        code = app.run()
    finally:
        source.stop()
    if source.failure is not None:
        raise source.failure
    # The terminal may be gone.
    with contextlib.suppress(OSError):
        for text in summary(source.state, time.time(), run_id):
            sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    return code if code is not None else (app.return_code or 0)


def _dashboard() -> type[Dashboard]:
    """The dashboard with the toolkit that it is made with, which takes longer to load than all else.

    Nothing of that is ever garbage, and it is a lot to look through for some: now, and whenever garbage is collected.
    """
    gc.disable()
    try:
        from corral_tui.app import Dashboard  # noqa: PLC0415  what this is about
    finally:
        gc.freeze()
        gc.enable()
    return Dashboard
