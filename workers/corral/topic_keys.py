"""What a pool says of its topics' unique keys, for who starts runs without the app: stored, and kept there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from corral.errors import Conflict, CorralError
from corral.jetstream.records import Records

log = logging.getLogger(__name__)

LOOK = 30.0
"""Seconds between two looks whether it is still there."""


async def publish(records: Records, key: str, value: bytes) -> None:
    """Store it, over what another pool says. Where several do that at once, one of them is the last.

    Raises:
        Unconfirmed, StorageFull: as `Records.create`.
    """
    for _ in range(5):
        entry = await records.get(key, leader=True)
        try:
            if entry is None:
                await records.create(key, value)
            elif entry.value != value:
                await records.update(key, value, entry.revision)
        except Conflict:
            continue
        return


async def keep_published(records: Records, values: Mapping[str, bytes]) -> None:
    """Store it again where it is gone, because somebody has erased the bucket, until cancelled. `values` is by key.

    What another pool says instead, of a newer app perhaps, is left alone.
    """
    while True:
        await asyncio.sleep(LOOK)
        try:
            for key, value in values.items():
                if await records.get(key) is None:
                    await publish(records, key, value)
        except CorralError as error:
            log.warning("what is said of topics could not be looked at", extra={"error": str(error)})
