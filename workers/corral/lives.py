"""Which runs a worker knows to be live, so that it asks only once.

The marker of a run that has ended goes long before its record does, and a message of such a run may still turn up: a
process that was stopped in the middle of its fan-out, and comes back after hours, sends the rest. So the first task
of a run that a worker is given is compared with the run's record. After that its marker will tell.
"""

from __future__ import annotations

import asyncio
import logging

from corral.jetstream.records import Records
from corral.runs import decode_record
from corral.subjects import run_key

log = logging.getLogger(__name__)


class Lives:
    """Remembers live runs until their marker is seen: `forget`."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._live: set[str] = set()
        self._asking: dict[str, asyncio.Task[bool]] = {}

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._live

    def add(self, run_id: str) -> None:
        """The run is live for sure."""
        self._live.add(run_id)

    def forget(self, run_id: str) -> None:
        """The run is stopped, or over."""
        self._live.discard(run_id)
        # An answer that is on its way may be older than this.
        self._asking.pop(run_id, None)

    async def look_up(self, run_id: str) -> bool:
        """Whether tasks of the run's first round may be executed. Errors as `Records.get`, and DecodeError."""
        asking = self._asking.get(run_id)
        if asking is None:
            asking = self._asking[run_id] = asyncio.create_task(self._ask(run_id), name="look up a run")
        return await asyncio.shield(asking)

    async def _ask(self, run_id: str) -> bool:
        me = asyncio.current_task()
        try:
            entry = await self._records.get(run_key(run_id), leader=True)
            record = decode_record(entry.value) if entry is not None else None
            live = record is not None and record.round == 0 and record.state in ("queued", "running")
            if live and self._asking.get(run_id) is me:
                self._live.add(run_id)
        finally:
            if self._asking.get(run_id) is me:
                del self._asking[run_id]
        if not live:
            log.warning("tasks of a run that is over are dropped", extra={"run": run_id})
        return live
