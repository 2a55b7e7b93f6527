"""What ends a worker whose loop is blocked, when something that it executes is ordered to be killed.

The loop sees to that by itself as long as it runs. This is for a processor that never lets go of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Sequence

import msgspec

from corral.errors import CorralError
from corral.events import Ended, encode_event, kind
from corral.jetstream.publisher import Publisher
from corral.jetstream.reader import Stored
from corral.runs import decode_marker
from corral.subjects import Names

log = logging.getLogger(__name__)

LOOK_AGAIN = 0.5
"""Seconds between two looks at a task that does not stop."""
LAST_WORD = 2.0
"""Seconds that storing its end may take."""


class LastResort:
    """Lives in the lifeline's thread.

    `stuck(run, round)` is the end, as killed, of what is executed of a run that was ordered to stop; None if nothing
    is. `is_blocked` says whether the loop is.
    """

    def __init__(
        self,
        publisher: Publisher,
        names: Names,
        stuck: Callable[[str, int], Ended | None],
        is_blocked: Callable[[], bool],
    ) -> None:
        self._publisher = publisher
        self._names = names
        self._stuck = stuck
        self._is_blocked = is_blocked
        self._waiting: set[asyncio.Task[None]] = set()

    def see(self, batch: Sequence[Stored]) -> None:
        """Take note of markers that say when to kill."""
        for stored in batch:
            if stored.operation is not None:
                continue
            try:
                marker = decode_marker(stored.data)
            except msgspec.DecodeError:
                continue  # the loop says so
            if marker.kill_after is not None:
                run_id = self._names.key_of(stored.subject).partition(".")[2]
                waiting = asyncio.create_task(self._wait(run_id, marker.round, marker.kill_after))
                self._waiting.add(waiting)
                waiting.add_done_callback(self._waiting.discard)

    def close(self) -> None:
        """The worker leaves."""
        for waiting in self._waiting:
            waiting.cancel()

    async def _wait(self, run_id: str, round: int, seconds: float) -> None:
        await asyncio.sleep(seconds)
        while (end := self._stuck(run_id, round)) is not None:
            if self._is_blocked():
                await self._kill(run_id, end)
            await asyncio.sleep(LOOK_AGAIN)

    async def _kill(self, run_id: str, end: Ended) -> None:
        log.error("the worker is killed, because a task that blocks its loop does not stop", extra={"run": run_id})
        with contextlib.suppress(CorralError, TimeoutError):
            async with asyncio.timeout(LAST_WORD):
                await self._publisher.store(self._names.event(run_id, kind(end)), encode_event(end))
        os.kill(os.getpid(), signal.SIGKILL)  # its pool says what else died with it, and gives that back
