"""Reading what is stored of one run, however much that is: a batch at a time, and nothing of it is kept."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Annotated

import msgspec

from corral import bitmap, events
from corral.bitmap import Bitmap
from corral.decoding import Natural, decoder
from corral.events import Failed, decode_event, kind
from corral.jetstream.connection import Connection
from corral.jetstream.direct import Stored
from corral.jetstream.reader import Reader
from corral.ledger import Ledger
from corral.messages import TaskId
from corral.oddities import Oddities
from corral.subjects import Names

_oddities = Oddities(logging.getLogger(__name__))

BOOKKEEPER = "bookkeeper"
"""The `worker` of what the bookkeeper stores about tasks that are lost."""
LOST = "Lost"
"""Their error: the only one that is stored without the body of its task."""


class Tasks:
    """A set of tasks that grows and shrinks one by one, and takes no more room than bitmaps."""

    def __init__(self, batches: Mapping[int, Bitmap] | None = None) -> None:
        self._batches = {batch: bits.pages() for batch, bits in (batches or {}).items()}

    def add(self, task: TaskId) -> bool:
        """Put a task in; whether it was not in before."""
        page, offset = divmod(task[1], bitmap.PAGE)
        pages = self._batches.setdefault(task[0], {})
        bits = pages.get(page, 0)
        pages[page] = bits | 1 << offset
        return not bits >> offset & 1

    def take(self, task: TaskId) -> bool:
        """Take a task out; whether it was in."""
        page, offset = divmod(task[1], bitmap.PAGE)
        pages = self._batches.get(task[0], {})
        bits = pages.get(page, 0)
        if not bits >> offset & 1:
            return False
        bits &= ~(1 << offset)
        if bits:
            pages[page] = bits
        else:
            del pages[page]
        return True

    def count(self) -> int:
        """How many there are."""
        return sum(bits.count() for bits in self.batches().values())

    def batches(self) -> dict[int, Bitmap]:
        """Batch -> ordinals."""
        return {batch: Bitmap(pages.copy()) for batch, pages in self._batches.items() if pages}


async def read_ledger(connection: Connection, names: Names, run_id: str, topic: str) -> Ledger:
    """The ledger of a run whose root is of `topic`, from all events that are still there. Bodies are not even read."""
    kinds = [kind(each) for each in (events.Ended, events.Retrying, events.Crashed, events.Reopened)]
    kinds += [kind(each) for each in (events.Interrupted, events.RunEnded)]
    subjects = [*(names.event(run_id, each) for each in kinds), names.dispatch_logs(run_id)]
    ledger, generation = Ledger(topic), 0
    reader = Reader(connection, names.events_stream, subjects, start=1)
    try:
        async with aclosing(reader.to_end()) as batches:
            async for batch in batches:
                if reader.generation != generation:  # the stream has lost its tail, and is read anew
                    ledger, generation = Ledger(topic), reader.generation
                for stored in batch:
                    try:
                        ledger.apply(decode_event(stored.data, stored.subject), stored.sequence, stored.time)
                    except msgspec.DecodeError as error:
                        unreadable(stored, error)
    finally:
        await reader.close()
    return ledger


class _Head(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="failed"):
    """What is looked at of each `Failed`; its body and traceback are passed over."""

    task: tuple[Natural, Annotated[int, msgspec.Meta(ge=0, le=events.MOST)]]
    error: str
    worker: str


_decode_head = decoder(_Head, "an event")


class StoredBody(msgspec.Struct, frozen=True, gc=False):
    """A task that ended as error, and whose body is stored with it."""

    task: TaskId
    stored: Stored

    def body(self) -> bytes | None:
        """The body; None if the event cannot be read after all."""
        try:
            event = decode_event(self.stored.data, self.stored.subject)
        except msgspec.DecodeError as error:
            unreadable(self.stored, error)
            return None
        return bytes(event.body) if isinstance(event, Failed) else None


async def stored_bodies(connection: Connection, names: Names, run_id: str) -> AsyncGenerator[list[StoredBody], None]:
    """Tasks of the run that ended as error, in any round, batch by batch; a task may come more than once."""
    reader = Reader(connection, names.events_stream, [names.event(run_id, kind(Failed))], start=1)
    try:
        async with aclosing(reader.to_end()) as batches:
            async for batch in batches:
                found = []
                for stored in batch:
                    try:
                        head = _decode_head(stored.data)
                    except msgspec.DecodeError as error:
                        unreadable(stored, error)
                    else:
                        if (head.error, head.worker) != (LOST, BOOKKEEPER):
                            found.append(StoredBody(head.task, stored))
                yield found
    finally:
        await reader.close()


def unreadable(stored: Stored, error: Exception) -> None:
    """Say that an event is passed over."""
    _oddities.note("an event that cannot be read is ignored", seq=stored.sequence, error=str(error))
