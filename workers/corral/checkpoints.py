"""What a bookkeeper has folded, kept in the bucket, so that the next one reads only what was stored since.

    ledger.run.<run>           a live run's ledger as it was after the event of some sequence, or a list of its parts
    ledger.part.<run>.<..>.<n> the parts of a ledger that does not fit in one value; always written before the above
    ledger.anchor              one event: everything up to it is in the ledgers of the live runs; written last

So each run's ledger is at least as new as the anchor, and one that is newer does no harm: a ledger passes over events
that it has folded already. A live run without one had no event before the anchor. Both is checked when they are loaded,
since two bookkeepers may have written at once.

A server that lost its tail in a power failure may have other events under the same sequences now. So the anchor names
its event by sequence, time and digest, and if that is another one now, everything here is thrown away and folded anew.
A ledger that is newer than the anchor is compared by its own last event.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, NamedTuple

import msgspec

from corral.book import Book
from corral.decoding import decoder, packed_decoder
from corral.errors import Conflict
from corral.jetstream import direct
from corral.jetstream.connection import Connection
from corral.jetstream.direct import Stored
from corral.jetstream.records import Entry, Records
from corral.jetstream.topology import last_sequence
from corral.ledger import Ledger
from corral.runs import Record
from corral.snapshot import freeze, thaw
from corral.subjects import LEDGER_ANCHOR_KEY, LEDGER_KEYS, Names, ledger_key, ledger_part_key

log = logging.getLogger(__name__)

_VERSION = 1
PART = 512 * 1024
"""Bytes of a ledger that are written under one key."""
_AT_ONCE = 200
_SAME_TIME = 1e-5
"""Seconds by which two readings of the same stored time may differ: a float of today's time is exact to a
microsecond."""


class Anchor(msgspec.Struct, frozen=True):
    """An event that was folded, and all before it."""

    sequence: int
    time: float
    digest: str
    version: int = _VERSION

    @classmethod
    def of(cls, stored: Stored) -> Anchor:
        """The anchor at a stored event."""
        return cls(stored.sequence, stored.time, _digest(stored))

    def holds(self, stored: Stored) -> bool:
        """Whether this is the event."""
        return abs(stored.time - self.time) < _SAME_TIME and _digest(stored) == self.digest


class Loaded(NamedTuple):
    """What was found."""

    anchor: Anchor | None
    """Read on behind it; from the beginning without one."""
    ledgers: dict[str, Ledger]
    doubtful: set[str]
    """Runs whose ledger cannot be used: their history has to be read."""


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


class _Saved(NamedTuple):
    """What is stored of one run."""

    revision: int
    sequence: int
    round: int
    parts: list[tuple[str, int]]
    """Keys and revisions."""


decode_anchor: Callable[[bytes], Anchor] = decoder(Anchor, "an anchor")
_encode_anchor = msgspec.json.Encoder().encode
decode_head: Callable[[bytes], Head] = packed_decoder(Head, "a ledger")
_encode_head = msgspec.msgpack.Encoder().encode


class Checkpoints:
    """Loads once, then saves from time to time. Two bookkeepers at once do no harm: see `_save`."""

    def __init__(self, connection: Connection, records: Records, names: Names) -> None:
        self._connection = connection
        self._records = records
        self._names = names
        self._saved: dict[str, _Saved] = {}
        self._anchor_revision = 0
        self._part = min(PART, connection.max_payload // 2)

    # --- loading -----------------------------------------------------------------------------------

    async def load(self, live: Mapping[str, Record]) -> Loaded:
        """The ledgers of the runs that are live, by their records."""
        entries = {entry.key: entry for entry in await self._records.entries(LEDGER_KEYS)}
        anchor = await self._sure_anchor(entries.pop(LEDGER_ANCHOR_KEY, None))
        if anchor is None:
            await self._remove((entry.key, entry.revision) for entry in entries.values())
            return Loaded(None, {}, set())
        loaded = Loaded(anchor, {}, set())
        for run_id, record in live.items():
            head = entries.get(ledger_key(run_id))
            if head is not None:
                await self._load_one(loaded, record, head, entries)
        runs = [run_id for run_id in live if run_id not in loaded.doubtful]
        for start in range(0, len(runs), _AT_ONCE):
            await asyncio.gather(*[self._look_for_a_gap(loaded, run_id) for run_id in runs[start : start + _AT_ONCE]])
        used = {ledger_key(run_id) for run_id in self._saved}
        used |= {key for saved in self._saved.values() for key, _ in saved.parts}
        await self._remove((entry.key, entry.revision) for key, entry in entries.items() if key not in used)
        return loaded

    async def _sure_anchor(self, entry: Entry | None) -> Anchor | None:
        """The anchor, if its event is still there, or was removed on purpose."""
        if entry is None:
            return None
        try:
            anchor = decode_anchor(entry.value)
        except msgspec.DecodeError:
            anchor = None
        if anchor is not None and anchor.version == _VERSION:
            stream = self._names.events_stream
            stored = await direct.leader_get(self._connection, stream, {"seq": anchor.sequence})
            # A stream that has grown again has something there; one that has not may have expired, or been purged.
            gone = stored is None and await last_sequence(self._connection, stream) >= anchor.sequence
            if gone or (stored is not None and anchor.holds(stored)):
                self._anchor_revision = entry.revision
                return anchor
            log.warning("the event stream has lost its tail; all counts are folded anew")
        await self._remove([(entry.key, entry.revision)])
        return None

    async def _load_one(self, loaded: Loaded, record: Record, entry: Entry, entries: Mapping[str, Entry]) -> None:
        try:
            head = decode_head(entry.value)
            keys = [ledger_part_key(record.id, head.token, number) for number in range(head.parts)]
            data = b"".join([entries[key].value for key in keys]) if keys else head.data
            # Of a round that is over, the ledger was not brought up to date any more.
            ledger = thaw(data) if (head.version, head.round) == (_VERSION, record.round) else None
        except (ValueError, KeyError) as error:
            log.warning("a ledger cannot be read", extra={"run": record.id, "error": str(error)})
            ledger = None
        if ledger is None or not await self._is_sure(ledger, loaded.anchor):
            loaded.doubtful.add(record.id)
            return
        parts = [(key, entries[key].revision) for key in keys]
        self._saved[record.id] = _Saved(entry.revision, ledger.sequence, head.round, parts)
        loaded.ledgers[record.id] = ledger

    async def _look_for_a_gap(self, loaded: Loaded, run_id: str) -> None:
        """Doubt a ledger that lacks an event before the anchor, and the lack of one where there is such an event.

        Of two bookkeepers the one that comes home late may write its anchor after its successor has removed the
        ledgers that lie before it.
        """
        ledger = loaded.ledgers.get(run_id)
        wanted = {"seq": 1 + (ledger.sequence if ledger else 0), "next_by_subj": self._names.run_events(run_id)}
        following = await direct.leader_get(self._connection, self._names.events_stream, wanted)
        if following is not None and loaded.anchor is not None and following.sequence <= loaded.anchor.sequence:
            loaded.doubtful.add(run_id)
            loaded.ledgers.pop(run_id, None)
            self._saved.pop(run_id, None)

    async def _is_sure(self, ledger: Ledger, anchor: Anchor | None) -> bool:
        if anchor is not None and ledger.sequence <= anchor.sequence:
            return True
        stored = await direct.leader_get(self._connection, self._names.events_stream, {"seq": ledger.sequence})
        return stored is not None and abs(stored.time - ledger.stored_at) < _SAME_TIME

    # --- saving ------------------------------------------------------------------------------------

    async def save(self, books: Iterable[Book], anchor: Anchor) -> None:
        """Write what has changed of the books, then the anchor, up to which all of them were folded."""
        live = {book.run_id: book for book in books if book.live}
        changed = [book for book in live.values() if self._has_changed(book)]
        for start in range(0, len(changed), _AT_ONCE):
            await asyncio.gather(*[self._save(book) for book in changed[start : start + _AT_ONCE]])
        gone = {run_id: saved for run_id, saved in self._saved.items() if run_id not in live}
        for run_id, saved in gone.items():
            del self._saved[run_id]
            await self._remove([(ledger_key(run_id), saved.revision), *saved.parts])
        await self._drop_anchor(anchor)

    def _has_changed(self, book: Book) -> bool:
        saved = self._saved.get(book.run_id)
        if saved is None:
            return book.ledger.sequence > 0
        return book.ledger.sequence > saved.sequence or (book.record is not None and book.record.round != saved.round)

    async def _save(self, book: Book) -> None:
        """Write a ledger, over the one that was written last, but never over a newer one.

        Another bookkeeper, which does not know yet that it is none any more, may write too, and its anchor may lie
        further on. It has folded the same events, so that its ledger is as good as this one, if it is as new.
        """
        if book.record is None or not book.live:
            return
        key, before = ledger_key(book.run_id), self._saved.get(book.run_id)
        round, sequence, data = book.record.round, book.ledger.sequence, freeze(book.ledger)
        head, parts = await self._store_parts(book.run_id, Head(_VERSION, round, sequence, data))
        try:
            revision = await self._write(key, _encode_head(head), before.revision if before else 0)
        except Conflict:
            found = await self._records.get(key, leader=True)
            if found is not None and _is_newer(found.value, head):
                self._saved[book.run_id] = _Saved(found.revision, sequence, round, [])
                await self._remove(parts)
                return
            revision = await self._write(key, _encode_head(head), found.revision if found else 0)
        self._saved[book.run_id] = _Saved(revision, sequence, round, parts)
        if before is not None:
            await self._remove(before.parts)

    async def _store_parts(self, run_id: str, head: Head) -> tuple[Head, list[tuple[str, int]]]:
        """The head to write; what does not fit into it is written already, under keys of its own."""
        if len(head.data) <= self._part:
            return head, []
        token = secrets.token_hex(4)
        parts = []
        for number, start in enumerate(range(0, len(head.data), self._part)):
            key = ledger_part_key(run_id, token, number)
            parts.append((key, await self._records.create(key, head.data[start : start + self._part])))
        return msgspec.structs.replace(head, data=b"", parts=len(parts), token=token), parts

    async def _drop_anchor(self, anchor: Anchor) -> None:
        try:
            self._anchor_revision = await self._write(LEDGER_ANCHOR_KEY, _encode_anchor(anchor), self._anchor_revision)
        except Conflict:
            found = await self._records.get(LEDGER_ANCHOR_KEY, leader=True)
            self._anchor_revision = found.revision if found else 0  # next time

    async def _write(self, key: str, value: bytes, revision: int) -> int:
        if revision:
            return await self._records.update(key, value, revision)
        return await self._records.create(key, value)

    async def _remove(self, keys: Iterable[tuple[str, int]]) -> None:
        for key, revision in keys:
            try:
                await self._records.delete(key, revision)
            except Conflict:
                log.debug("a ledger was written meanwhile", extra={"key": key})


def _is_newer(value: bytes, than: Head) -> bool:
    try:
        head = decode_head(value)
    except msgspec.DecodeError:
        return False
    return (head.version, head.round) == (than.version, than.round) and head.sequence >= than.sequence


def _digest(stored: Stored) -> str:
    return hashlib.blake2b(stored.subject.encode() + b"\0" + stored.data, digest_size=16).hexdigest()
