"""What a worker takes in: one pull loop a topic, for exactly the slots that are free."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from corral.errors import CorralError
from corral.jetstream.connection import Connection
from corral.jetstream.puller import Delivery, Puller
from corral.jetstream.streams import ensure_consumer
from corral.processor import Processor
from corral.settings import Settings
from corral.slots import Demand, share
from corral.subjects import Names

log = logging.getLogger(__name__)

PROMISE = 0.5
"""Seconds for which more than one slot is kept for a topic that does not fill them."""
AGAIN = 1.0
"""Seconds before something that failed is tried again, or a pause is looked at again."""
REFUSED_AGAIN = 5.0
"""Seconds before something is tried again that somebody else has to set right."""
LENT = 2
"""So many times its slots a worker may hold of topics whose tasks wait for room: most of them lend their slots."""


class Intake:
    """Pulls tasks, and counts the slots that they take until `release`."""

    def __init__(
        self,
        connection: Connection,
        names: Names,
        settings: Settings,
        topics: Mapping[str, Processor[Any, ..., Any]],
        *,
        slots: int,
        isolated: int,
        deliver: Callable[[Delivery], None],
        paused: Callable[[], bool],
    ) -> None:
        self._connection = connection
        self._names = names
        self._settings = settings
        self._slots = slots
        self._isolated = isolated
        self._deliver = deliver
        self._paused = paused
        self._sources = {
            topic: _Source(self._cap(processor), lends=processor.concurrency is None)
            for topic, processor in topics.items()
        }
        self._shared = [source for topic, source in self._sources.items() if _uses_shared_threads(topics[topic])]
        self._busy = 0
        self._lent = 0
        self._room = asyncio.Event()
        self._stopped = False
        self.waiting = False
        """Free slots are not offered, because outcomes are stored too slowly."""

    @property
    def over_full(self) -> bool:
        """More was delivered than there are slots."""
        return self._busy - self._lent > self._slots

    async def run(self) -> None:
        """Pull until `stop`."""
        async with asyncio.TaskGroup() as group:
            for topic, source in self._sources.items():
                await ensure_consumer(self._connection, self._names, topic, self._settings)
                source.puller = Puller(
                    self._connection,
                    self._names.tasks_stream,
                    self._names.consumer(topic),
                    on_delivery=partial(self._on_delivery, source),
                    on_room=self.refill,
                    on_missing=partial(self._on_missing, group, topic),
                    on_error=partial(self._on_error, topic),
                )
            self._room.set()
            await self._pull()

    async def _pull(self) -> None:
        while not self._stopped:
            await self._room.wait()
            self._room.clear()
            try:
                await self._ask()
            except CorralError as error:
                log.warning("tasks could not be asked for", extra={"error": str(error)})
                asyncio.get_running_loop().call_later(AGAIN, self.refill)

    async def stop(self) -> None:
        """Ask for nothing more; what is on its way is still delivered before this returns."""
        self._stopped = True
        self._room.set()
        for source in self._sources.values():
            if source.puller is not None:
                await source.puller.stop()

    def lend(self, topic: str) -> None:
        """A task waits for room in the queue. Others make room, for which they need its slot.

        From now on until its end it takes none. Other topics get all slots that are lent; its own, which would send
        and wait too, not more than there are.
        """
        self._lent += 1
        self._sources[topic].lent += 1
        self._room.set()

    def release(self, topic: str, *, lent: bool = False) -> None:
        """A task has ended; `lent` says that its slot was free before."""
        source = self._sources[topic]
        self._busy -= 1
        source.busy -= 1
        self._lent -= lent
        source.lent -= lent
        self._room.set()

    def refill(self) -> None:
        """Look again at what can be asked for."""
        self._room.set()

    # --- how ---------------------------------------------------------------------------------------

    def _on_delivery(self, source: _Source, delivery: Delivery) -> None:
        self._busy += 1
        source.busy += 1
        source.recent += 1
        if source.puller is not None and source.puller.outstanding <= 0:
            self._room.set()  # more may wait behind it, and the tasks that run now may take long
        self._deliver(delivery)

    async def _ask(self) -> None:
        self.waiting = self._paused()
        if self.waiting:
            asyncio.get_running_loop().call_later(AGAIN, self.refill)
            return
        sources = [source for source in self._sources.values() if source.puller is not None]
        asks = share(self._slots - self._busy + self._lent, [self._demand(source) for source in sources])
        for source, ask in zip(sources, asks, strict=True):
            if ask > 0 and not self._stopped and source.puller is not None:
                source.recent = 0
                # What one topic was promised and does not use must soon be free for the others.
                await source.puller.request(ask, expires=PROMISE if ask > 1 and len(sources) > 1 else None)

    def _demand(self, source: _Source) -> Demand:
        assert source.puller is not None
        asked = source.puller.outstanding
        room = source.cap - source.busy - asked
        if source.lends:
            room += source.lent
        if source.lent:
            room = min(room, LENT * self._slots - self._busy - asked)
        if source in self._shared:
            # The single messages that quiet topics have asked for hold no thread: one that comes may wait for a moment.
            asks = [each.puller.outstanding for each in self._shared if each.puller is not None and each is not source]
            busy = sum(each.busy - each.lent for each in self._shared)
            taken = asked + busy + sum(ask for ask in asks if ask > 1)
            room = min(room, self._settings.threads - taken)
            if source.lent:  # a thread that waits is not lent: others are made, for the other topics
                room = min(room, self._settings.threads - source.busy - asked)
        return Demand(room=max(0, room), asked=asked, backlog=source.puller.backlog, recent=source.recent)

    def _on_missing(self, group: asyncio.TaskGroup, topic: str) -> None:
        """Somebody deleted the topic's consumer, or the stream."""
        if not self._stopped:
            group.create_task(self._restore(topic), name=f"restore {topic}")

    async def _restore(self, topic: str) -> None:
        try:
            await ensure_consumer(self._connection, self._names, topic, self._settings)
        except CorralError as error:
            # Without the stream its messages are gone too. Who starts or watches pools has to know, and makes it again.
            log.error(
                "no tasks of a topic: its consumer is gone and cannot be made; a new pool makes what is missing",
                extra={"topic": topic, "error": str(error)},
            )
            asyncio.get_running_loop().call_later(REFUSED_AGAIN, self.refill)
        else:
            log.warning("the consumer of a topic was gone, and is made again", extra={"topic": topic})
            self.refill()

    def _on_error(self, topic: str, error: CorralError) -> None:
        """The server lets this user pull no longer: rights were changed."""
        log.error(
            "no tasks of a topic: this worker's user may not pull them; it needs the rights of the role `worker`",
            extra={"topic": topic, "error": str(error)},
        )
        asyncio.get_running_loop().call_later(REFUSED_AGAIN, self.refill)

    def _cap(self, processor: Processor[Any, ..., Any]) -> int:
        most = min(self._slots, self._isolated) if processor.isolate else self._slots
        return min(most, processor.concurrency or most)


class _Source:
    """One topic's pull loop."""

    __slots__ = ("busy", "cap", "lends", "lent", "puller", "recent")

    def __init__(self, cap: int, *, lends: bool) -> None:
        self.cap = cap
        self.lends = lends
        """Nobody has said how many of them may be executed at once."""
        self.busy = 0
        self.lent = 0
        self.recent = 0
        self.puller: Puller | None = None


def _uses_shared_threads(processor: Processor[Any, ..., Any]) -> bool:
    return processor.kind == "sync" and processor.concurrency is None and not processor.isolate
