"""A bookkeeper without workers: it keeps the books of pools that may not, and starts runs for producers."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable

from corral.bookkeeper import Bookkeeper
from corral.credentials import Access
from corral.election import stand
from corral.gate import Gate
from corral.jetstream.connection import Connection
from corral.jetstream.publisher import Publisher
from corral.jetstream.records import Records
from corral.jetstream.streams import ensure, keep_events
from corral.jetstream.topology import consumers
from corral.roster import Roster
from corral.settings import Settings
from corral.subjects import Names


async def keep_books(access: Access, settings: Settings, on_ready: Callable[[], None] = lambda: None) -> None:
    """Stand for election, and while elected keep the books, until cancelled.

    `on_ready` is called when the streams are there.

    Raises:
        NoServer, PermissionDenied, BadName: as `Connection.open`.
        StorageFull, Misconfigured, ApiError: the streams cannot be made.
    """
    names = Names(settings.namespace)
    connection = await Connection.open(access, name="corral bookkeeper")
    publisher = Publisher(connection, timeout=settings.publish_timeout)
    try:
        roster = Roster(settings.death)
        bookkeeper = Bookkeeper(connection, settings, roster)
        await bookkeeper.listen()
        await ensure(connection, names, settings)
        await keep_events(connection, names, settings)
        # As in a pool: where no consumer is, no worker has been there before.
        alone = not await consumers(connection, names)
        roster.listening_since = time.monotonic() - (settings.death if alone else 0.0)
        on_ready()

        async def lead() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(Gate(connection, settings).serve())
                group.create_task(bookkeeper.lead())

        name = f"bookkeeper-{secrets.token_hex(3)}"
        await stand(
            Records(connection, publisher, names),
            name,
            settings.lease,
            lead,
            make_room=bookkeeper.make_room,
            write_anew=bookkeeper.write_anew,
            only=True,
        )
    finally:
        await publisher.close()
        await connection.close()
