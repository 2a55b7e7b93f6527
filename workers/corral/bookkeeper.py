"""A candidate for bookkeeper: the one elected pool that folds all events, keeps the records, and ends runs.

Whatever a bookkeeper writes is idempotent or compare-and-set, and says up to which event it was folded. So it can die
at any step, and the next one goes on; even two at once do no harm. Without one, work goes on, redelivered tasks wait,
and records stand still. What it does while it is elected is in `reign`.
"""

from __future__ import annotations

import asyncio
import time

import msgspec

from corral.jetstream.connection import Connection, Message
from corral.jetstream.publisher import Publisher
from corral.jetstream.records import Records
from corral.reign import Reign
from corral.roster import Roster
from corral.runs import decode_beat
from corral.settings import Settings
from corral.subjects import Names
from corral.trimming import Trimming


class Bookkeeper:
    """One candidate. `roster` hears from the moment of `listen`; the rest begins with `lead`."""

    def __init__(self, connection: Connection, settings: Settings, roster: Roster) -> None:
        self._connection = connection
        self._settings = settings
        self._names = Names(settings.namespace)
        self._publisher = Publisher(connection, timeout=settings.publish_timeout)
        self.records = Records(connection, self._publisher, self._names)
        self._roster = roster
        self._heard = asyncio.Event()
        self._reign: Reign | None = None

    async def listen(self) -> None:
        """Hear heartbeats from now on, elected or not."""
        await self._connection.subscribe(self._names.all_beats, self._on_beat)

    async def next_beat(self) -> None:
        """Return when the next heartbeat is heard, of any worker."""
        self._heard.clear()
        await self._heard.wait()

    async def make_room(self) -> None:
        """Forget old runs, where not even an election fits."""
        await Trimming(self._connection, self._names, lambda _: None).try_to_look()

    async def write_anew(self) -> None:
        """Write anew what is known of live runs: somebody has erased the bucket."""
        if self._reign is not None:
            await self._reign.write_anew()

    async def lead(self) -> None:
        """Keep the books until cancelled."""
        async with asyncio.TaskGroup() as group:
            reign = self._reign = Reign(
                connection=self._connection,
                records=self.records,
                publisher=self._publisher,
                names=self._names,
                settings=self._settings,
                roster=self._roster,
                group=group,
            )
            try:
                await reign.begin()
                await asyncio.Future()
            finally:
                self._reign = None
                await reign.close()

    def _on_beat(self, message: Message) -> None:
        try:
            beat = decode_beat(message.data)
        except msgspec.DecodeError:
            return  # not one of ours
        if message.subject != self._names.beat(beat.id):
            return  # in another's name, or what the server delivered because somebody named this as the reply subject
        self._roster.hear(beat, time.monotonic())
        self._heard.set()
        if self._reign is not None:
            self._reign.heard([*beat.running, *beat.roots])
