"""Reading what a bookkeeper has folded, as it lies in the bucket. Nothing is changed.

    ledger.run.<run>           a live run's ledger as it was after the event of some sequence, or a list of its parts
    ledger.part.<run>.<..>.<n> the parts of a ledger that does not fit in one value; always written before the above
    ledger.anchor              one event: everything up to it is in the ledgers of the live runs; written last

So each run's ledger is at least as new as the anchor, and one that is newer does no harm: a ledger passes over events
that it has folded already. A live run without one had no event before the anchor. Both is checked here, since two
bookkeepers may have written at once.

A server that lost its tail in a power failure may have other events under the same sequences now. So the anchor names
its event by sequence, time and digest, and if that is another one now, nothing here is believed. A ledger that is newer
than the anchor is compared by its own last event.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Annotated, NamedTuple

import msgspec

from corral.decoding import decoder, packed_decoder
from corral.jetstream import direct
from corral.jetstream.connection import Connection
from corral.jetstream.direct import Stored
from corral.jetstream.records import Entry
from corral.jetstream.topology import last_sequence
from corral.ledger import Ledger
from corral.runs import Record
from corral.snapshot import thaw
from corral.subjects import LEDGER_ANCHOR_KEY, Names, ledger_key, ledger_part_key

log = logging.getLogger(__name__)

VERSION = 1
_AT_ONCE = 200
_SAME_TIME = 1e-5
"""Seconds by which two readings of the same stored time may differ: a float of today's time is exact to a
microsecond."""


class Anchor(msgspec.Struct, frozen=True):
    """An event that was folded, and all before it."""

    sequence: int
    time: float
    digest: str
    version: int = VERSION

    @classmethod
    def of(cls, stored: Stored) -> Anchor:
        """The anchor at a stored event."""
        return cls(stored.sequence, stored.time, _digest(stored))

    def holds(self, stored: Stored) -> bool:
        """Whether this is the event."""
        return abs(stored.time - self.time) < _SAME_TIME and _digest(stored) == self.digest


class Head(msgspec.Struct, frozen=True, array_like=True):
    """What stands under `ledger.run.<run>`."""

    version: int
    round: int
    """The round of the run's record at that time: what was left behind by an earlier round is of no use."""
    sequence: int
    data: bytes
    parts: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 0
    """If not 0, the data is in as many parts."""
    token: str = ""
    """A part of their keys."""

    def part_keys(self, run_id: str) -> list[str]:
        """The keys of the parts."""
        return [ledger_part_key(run_id, self.token, number) for number in range(self.parts)]


class Loaded(NamedTuple):
    """What was found."""

    anchor: Anchor | None
    """Read on behind it; from the beginning without one."""
    ledgers: dict[str, Ledger]
    """A live run that is neither here nor doubtful had no event before the anchor."""
    doubtful: set[str]
    """Runs whose ledger cannot be used: their history has to be read."""


decode_anchor: Callable[[bytes], Anchor] = decoder(Anchor, "an anchor")
decode_head: Callable[[bytes], Head] = packed_decoder(Head, "a ledger")


async def read_checkpoint(
    connection: Connection, names: Names, entries: Iterable[Entry], live: Mapping[str, Record], *, leader: bool = False
) -> Loaded:
    """The ledgers of the runs that are live, by their records, from all `entries` under LEDGER_KEYS.

    Without `leader` it is compared with a replica of the events, which may be behind: good enough to be shown.

    Raises:
        CorralError: the events cannot be read; PermissionDenied at once where this user may not.
    """
    get = partial(direct.leader_get if leader else direct.get, connection, names.events_stream)
    stored = {entry.key: entry for entry in entries}
    anchor, event = await _sure_anchor(connection, names, get, stored.get(LEDGER_ANCHOR_KEY))
    loaded = Loaded(anchor, {}, set())
    if anchor is None:
        return loaded

    async def take(run_id: str, record: Record) -> None:
        ledger = _ledger(record, stored)
        if ledger is not None and await _is_sure(ledger, anchor, get):
            loaded.ledgers[run_id] = ledger
        else:
            loaded.doubtful.add(run_id)

    kept = [(run_id, record) for run_id, record in live.items() if ledger_key(run_id) in stored]
    # Many take longer than the lease lasts, which has to be renewed meanwhile.
    for start in range(0, len(kept), _AT_ONCE):
        await asyncio.gather(*[take(*each) for each in kept[start : start + _AT_ONCE]])
    look = _Look(connection, names, anchor, get)
    seen = {run_id: loaded.ledgers[run_id].sequence if run_id in loaded.ledgers else 0 for run_id in live}
    behind = [run_id for run_id in live if run_id not in loaded.doubtful and seen[run_id] < anchor.sequence]
    for start in range(0, len(behind), _AT_ONCE):
        some = {run_id: seen[run_id] for run_id in behind[start : start + _AT_ONCE]}
        newest = await look.newest(some, event)
        for run_id in some:
            # Of two bookkeepers the one that comes home late may write its anchor after its successor has removed the
            # ledgers that lie before it.
            if newest.get(run_id, 0) > seen[run_id]:
                loaded.doubtful.add(run_id)
                loaded.ledgers.pop(run_id, None)
    return loaded


_Get = Callable[[Mapping[str, object]], Awaitable[Stored | None]]


async def _sure_anchor(
    connection: Connection, names: Names, get: _Get, entry: Entry | None
) -> tuple[Anchor | None, Stored | None]:
    """The anchor and its event, if that is still there; without the event if that was removed on purpose."""
    if entry is None:
        return None, None
    try:
        anchor = decode_anchor(entry.value)
    except msgspec.DecodeError:
        return None, None
    if anchor.version != VERSION:
        return None, None
    stored = await get({"seq": anchor.sequence})
    if stored is None:
        # A stream that has grown again has something there; one that has not may have expired, or been purged.
        purged = await last_sequence(connection, names.events_stream) >= anchor.sequence
        return (anchor if purged else None), None
    return (anchor, stored) if anchor.holds(stored) else (None, None)


def _ledger(record: Record, entries: Mapping[str, Entry]) -> Ledger | None:
    try:
        head = decode_head(entries[ledger_key(record.id)].value)
        if (head.version, head.round) != (VERSION, record.round):
            return None  # of a round that is over, the ledger was not brought up to date any more
        parts = b"".join([entries[key].value for key in head.part_keys(record.id)])
        return thaw(parts if head.parts else head.data)
    except (ValueError, KeyError) as error:
        log.debug("a ledger cannot be read", extra={"run": record.id, "error": str(error)})
        return None


async def _is_sure(ledger: Ledger, anchor: Anchor, get: _Get) -> bool:
    if ledger.sequence <= anchor.sequence:
        return True
    stored = await get({"seq": ledger.sequence})
    return stored is not None and abs(stored.time - ledger.stored_at) < _SAME_TIME


class _Look(NamedTuple):
    """Looks for the last events of many runs, up to the anchor."""

    connection: Connection
    names: Names
    anchor: Anchor
    get: _Get

    async def newest(self, seen: Mapping[str, int], event: Stored | None) -> dict[str, int]:
        """The sequence of each run's last event up to the anchor, or of one behind what was `seen` of it, if there is.

        One question for all of them, since each of its own makes the server search from the run's last event on. It
        needs the anchor's own `event` to be there: a replica that does not give it is behind.
        """
        if event is None:
            return await self._one_by_one(seen)
        wanted = [event.subject, *(self.names.run_events(run_id) for run_id in seen)]
        found = await direct.last_of_each(self.connection, self.names.events_stream, wanted, self.anchor.sequence)
        if found is None and len(seen) > 1:
            runs = list(seen)
            halves = (runs[: len(runs) // 2], runs[len(runs) // 2 :])
            parts = [await self.newest({run_id: seen[run_id] for run_id in half}, event) for half in halves]
            return parts[0] | parts[1]
        if found is None or not any(stored.sequence == self.anchor.sequence for stored in found):
            return await self._one_by_one(seen)
        newest: dict[str, int] = {}
        for stored in found:
            run_id = self.names.run_of_event(stored.subject)
            newest[run_id] = max(newest.get(run_id, 0), stored.sequence)
        return newest

    async def _one_by_one(self, seen: Mapping[str, int]) -> dict[str, int]:
        async def following(run_id: str, sequence: int) -> Stored | None:
            return await self.get({"seq": sequence + 1, "next_by_subj": self.names.run_events(run_id)})

        found = await asyncio.gather(*[following(run_id, sequence) for run_id, sequence in seen.items()])
        return {
            run_id: stored.sequence
            for run_id, stored in zip(seen, found, strict=True)
            if stored is not None and stored.sequence <= self.anchor.sequence
        }


def _digest(stored: Stored) -> str:
    return hashlib.blake2b(stored.subject.encode() + b"\0" + stored.data, digest_size=16).hexdigest()
