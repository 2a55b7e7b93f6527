"""A dashboard that says what it took: `python -m benchmarks.watching URL FILE SECONDS [RUN]`, inside of a terminal.

After its warm-up it measures for so many seconds, writes what it found to the file, and leaves.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from corral.events import AnyEvent
from corral_tui.app import Dashboard
from corral_tui.feed import Feed

WARM_UP = 2.0
STEP = 0.005
"""Seconds for which the loop is asked to sleep, again and again: what it sleeps longer is its lag."""


class Watching(Dashboard):
    """The dashboard, with a stop watch."""

    def __init__(self, feed: Feed, file: Path, seconds: float, run_id: str | None) -> None:
        super().__init__(feed, run_id=run_id)
        self._file, self._seconds = file, seconds
        self._waiting: list[float] = []
        self._shown: list[float] = []
        self._folded = 0
        self._apply = feed.state.apply
        feed.state.apply = self._noted  # type: ignore[method-assign]
        self._measures = False

    def _noted(self, run_id: str, sequence: int, at: float, event: AnyEvent, now: float) -> None:
        self._apply(run_id, sequence, at, event, now)
        self._folded += 1
        if self._measures:
            self._waiting.append(at)

    def on_ready(self) -> None:  # noqa: D102  Textual's
        self.run_worker(self._measure())

    def tick(self) -> None:  # noqa: D102  see the base
        with self.source.lock:
            waiting, self._waiting = self._waiting, []
        super().tick()
        now = time.time()
        self._shown += [now - at for at in waiting]

    async def _measure(self) -> None:
        opening, began = [], time.perf_counter()
        while not self.source.state.link.ready or not self._read():
            opening.append(await _lag())
        opened = time.perf_counter() - began
        await asyncio.sleep(WARM_UP)
        # What was stored before is read first.
        while not self._abreast():  # noqa: ASYNC110  known by looking
            await asyncio.sleep(STEP)
        await asyncio.sleep(WARM_UP)
        # First without the stop watch, which takes some of the core itself.
        used, began = time.process_time(), time.perf_counter()
        await asyncio.sleep(self._seconds)
        cpu = (time.process_time() - used) / (time.perf_counter() - began)
        self._measures = True
        lags, folded, began = [], self._folded, time.perf_counter()
        while time.perf_counter() - began < self._seconds:
            lags.append(await _lag())
        took = time.perf_counter() - began
        self._file.write_text(
            json.dumps(
                {
                    "seconds": took,
                    "cpu": cpu,
                    "lag": _p99(lags),
                    "longest": max(lags),
                    "opened": opened,
                    "opening": _p99(opening),
                    "opening longest": max(opening, default=0.0),
                    "shown": _p99(self._shown),
                    "folded": self._folded - folded,
                    "all": self._folded,
                    "dropped": self.late_frames,
                }
            )
        )
        self.exit(0)

    def _abreast(self) -> bool:
        """Whether what flows is read as it comes; of a run that is looked at nothing flows here."""
        return self._run_id is not None or self.source.state.abreast

    def _read(self) -> bool:
        detail = self.source.state.detail
        return self._run_id is None or (detail is not None and detail.caught_up)


async def _lag() -> float:
    """Seconds by which the loop is late once."""
    before = time.perf_counter()
    await asyncio.sleep(STEP)
    return time.perf_counter() - before - STEP


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)] if values else 0.0


def main(arguments: list[str]) -> Any:
    url, file, seconds, *run = arguments
    feed = Feed(url, None)
    app = Watching(feed, Path(file), float(seconds), run[0] if run else None)
    try:
        return app.run()
    finally:
        feed.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
