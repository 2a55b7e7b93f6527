"""Which pool is the bookkeeper: a lease in the bucket, renewed while its holder lives.

Safety does not rest on it: all that a bookkeeper writes is idempotent or compare-and-set, so that two of them do no
harm.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine

from corral.errors import Conflict, CorralError, PermissionDenied, StorageFull
from corral.jetstream.records import Records
from corral.subjects import LEADER_KEY

log = logging.getLogger(__name__)

NOT_ALLOWED = 300.0
"""Seconds until somebody who may not be the bookkeeper tries again: rights can change."""


async def stand(
    records: Records,
    name: str,
    lease: float,
    lead: Callable[[], Awaitable[None]],
    *,
    make_room: Callable[[], Awaitable[None]],
    write_anew: Callable[[], Coroutine[None, None, None]],
    only: bool = False,
) -> None:
    """Stand for election until cancelled; while elected, run `lead`. `lease` is in seconds.

    `make_room` is called when there is none for the lease; `write_anew` when somebody has erased the bucket while this
    one was elected.

    Raises:
        PermissionDenied: this user may not be elected, and `only` for that was it started.
    """
    while True:
        try:
            revision = await records.create(LEADER_KEY, name.encode(), ttl=lease)
        except PermissionDenied:
            if only:
                raise
            log.info("the books are kept elsewhere: this pool may not", extra={"pool": name})
            await asyncio.sleep(NOT_ALLOWED)
            continue
        except CorralError as error:
            if not isinstance(error, Conflict):
                log.warning("the election is out of reach", extra={"error": str(error)})
            if isinstance(error, StorageFull):
                await make_room()
            await asyncio.sleep(lease / 3)
            continue
        log.info("elected as bookkeeper", extra={"pool": name})
        leading = asyncio.ensure_future(lead())
        try:
            await _renew(records, name, lease, revision, leading, write_anew)
        finally:
            leading.cancel()
            await asyncio.wait({leading})
        if not leading.cancelled() and (failure := leading.exception()) is not None:
            log.error("the bookkeeper failed, and stands again", exc_info=failure)
            await asyncio.sleep(lease / 3)  # another one may have better luck


async def _renew(  # noqa: PLR0917
    records: Records,
    name: str,
    lease: float,
    revision: int,
    leading: asyncio.Future[None],
    write_anew: Callable[[], Coroutine[None, None, None]],
) -> None:
    """Keep the lease while `leading` goes on; returns when either is over, and what had to be written anew is."""
    loop = asyncio.get_running_loop()
    good_until = loop.time() + lease
    async with asyncio.TaskGroup() as writing:
        try:
            while not leading.done():
                await asyncio.wait({leading}, timeout=lease / 3)
                until = loop.time() + lease
                try:
                    async with asyncio.timeout_at(good_until):
                        revision = await records.update(LEADER_KEY, name.encode(), revision, ttl=lease)
                except (CorralError, TimeoutError) as error:
                    regained = None
                    if isinstance(error, Conflict) and await _was_erased(records, lease):
                        # Before anything else, so that nobody is elected who knows nothing of the runs.
                        regained = await _take_again(records, name, lease)
                        # Also if another one was quicker: this is the only copy.
                        writing.create_task(write_anew())
                    if regained is not None:
                        revision, good_until = regained, until
                    elif isinstance(error, Conflict) or loop.time() >= good_until:
                        log.warning("no longer the bookkeeper", extra={"pool": name, "error": str(error)})
                        return
                else:
                    good_until = until
        finally:
            if loop.time() < good_until:
                await _resign(records, revision)


async def _was_erased(records: Records, lease: float) -> bool:
    """Whether the lease was erased with all that is stored. One that has ended, or was given back, leaves a mark."""
    while True:
        try:
            return await records.is_blank(LEADER_KEY)
        except CorralError as error:
            log.warning("whether the bucket was erased is not known yet", extra={"error": str(error)})
            await asyncio.sleep(lease / 3)


async def _take_again(records: Records, name: str, lease: float) -> int | None:
    """The revision of a new lease; None if it is refused."""
    try:
        return await records.create(LEADER_KEY, name.encode(), ttl=lease)
    except CorralError as error:
        log.warning("the lease could not be taken again", extra={"pool": name, "error": str(error)})
        return None


async def _resign(records: Records, revision: int) -> None:
    """Let the next one begin at once instead of after the lease."""
    try:
        async with asyncio.timeout(1.0):
            await records.delete(LEADER_KEY, revision)
    except (CorralError, TimeoutError) as error:
        log.info("the lease was not given back", extra={"error": str(error)})
