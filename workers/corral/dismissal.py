"""Telling workers to leave, and hearing from each of them that it does.

The order is said on core NATS, which stores nothing and promises nothing: so it is said again until every worker has
confirmed it by its heartbeat.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from corral.errors import PermissionDenied, Unconfirmed
from corral.leaving import Departure, How, Leave, chosen, encode_leave
from corral.operations import Operations
from corral.roles import LEAVE
from corral.rollcall import listen, roll_call
from corral.runs import Beat

AGAIN = 1.0
"""Seconds after which the order is said once more."""
PATIENCE = 15.0
"""Seconds that workers have to confirm it. One whose loop is blocked does not: told to stop, its pool kills it."""


async def dismiss(operations: Operations, how: How, names: Sequence[str], *, by: str, wait: bool) -> list[Departure]:
    """Tell the workers and pools that `names` mean; see `Client.drain`."""
    workers, pools = chosen(names, [beat for beat, _ in await roll_call(operations)])
    order = Leave(how=how, workers=[beat.id for beat in workers], pools=pools, by=by)
    dismissal = _Dismissal(operations, order, workers)
    close = await listen(operations, dismissal.hear)
    try:
        return await dismissal.carry_out(wait=wait)
    finally:
        await close()


class _Dismissal:
    """One order to `workers`, as they were last heard, and to all of its pools. `hear` has to hear every heartbeat."""

    def __init__(self, operations: Operations, order: Leave, workers: Sequence[Beat]) -> None:
        self._connection = operations.connection
        self._death = operations.settings.death
        self._subject = operations.names.control(LEAVE)
        self._order = order
        self._workers = {beat.id: beat for beat in workers}
        self._confirmed: dict[str, float] = {}
        self._gone: set[str] = set()
        self._told_at = time.monotonic()
        self._heard_at = dict.fromkeys(self._workers, self._told_at)
        self._news = asyncio.Event()

    def hear(self, beat: Beat, at: float) -> None:
        """A heartbeat, of any worker."""
        del at
        if beat.id not in self._workers:
            if beat.leaving or beat.pool not in self._order.pools:
                return
            self._workers[beat.id] = beat  # it was too slow for the roll call, and is told with its pool
        self._heard_at[beat.id] = time.monotonic()
        if beat.leaving or beat.leaves in (self._order.how, "stop"):
            self._confirmed.setdefault(beat.id, time.monotonic() - self._told_at)
        if beat.leaving:
            self._gone.add(beat.id)
        self._news.set()

    async def carry_out(self, *, wait: bool) -> list[Departure]:
        """Tell them, and return when each has confirmed it; with `wait` when all are gone.

        Raises:
            PermissionDenied: this user may not tell them.
            Unconfirmed: some have not confirmed it in time. They may leave all the same.
        """
        self._told_at = time.monotonic()
        while (silent := self._silent()) or (wait and len(self._gone) < len(self._workers)):
            if silent:
                if time.monotonic() - self._told_at > PATIENCE:
                    raise Unconfirmed(f"the order to {self._order.how}, by {_listed(silent)}")
                await self._tell()
            await self._next(AGAIN if silent else self._death / 2)
            # A machine that is gone says no last word.
            now = time.monotonic()
            self._gone.update(worker for worker, at in self._heard_at.items() if now - at > self._death)
        return [
            Departure(
                id=beat.id,
                pool=beat.pool,
                host=beat.host,
                running=beat.busy,
                confirmed=self._confirmed[beat.id],
                gone=beat.id in self._gone,
            )
            for beat in self._workers.values()
        ]

    def _silent(self) -> list[str]:
        return [worker for worker in self._workers if worker not in self._confirmed]

    async def _tell(self) -> None:
        denied: list[str] = []
        forget = self._connection.on_denied(lambda action, subject: denied.append(f"{action} {subject}"))
        try:
            await self._connection.publish(self._subject, encode_leave(self._order))
            await self._connection.flush()  # the server says that it refuses before it says that it has taken it
        finally:
            forget()
        if f"publish {self._subject.lower()}" in denied:
            raise PermissionDenied("publish to", self._subject)

    async def _next(self, seconds: float) -> None:
        """Return when another worker has confirmed or is gone, or after so many seconds."""
        before = len(self._confirmed), len(self._gone)
        try:
            async with asyncio.timeout(seconds):
                while (len(self._confirmed), len(self._gone)) == before:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return


def _listed(workers: list[str]) -> str:
    more = f" and {len(workers) - 5} more" if len(workers) > 5 else ""
    return f"{', '.join(workers[:5])}{more}"
