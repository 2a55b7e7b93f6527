"""What a bookkeeper has folded, kept in the bucket, so that the next one reads only what was stored since.

Loads once, then saves from time to time. How the keys fit together, and why two bookkeepers at once do no harm, stands
at the top of `checkpoint_reading`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from corral.book import Book
from corral.checkpoint_reading import VERSION, Anchor, Head, Loaded, decode_head, read_checkpoint
from corral.errors import Conflict
from corral.jetstream.connection import Connection
from corral.jetstream.records import Entry, Records
from corral.ledger import Ledger
from corral.runs import Record
from corral.snapshot import freeze
from corral.subjects import LEDGER_ANCHOR_KEY, LEDGER_KEYS, Names, ledger_key, ledger_part_key

log = logging.getLogger(__name__)

PART = 512 * 1024
"""Bytes of a ledger that are written under one key."""
_AT_ONCE = 200
_encode_anchor = msgspec.json.Encoder().encode
_encode_head = msgspec.msgpack.Encoder().encode


class _Saved(NamedTuple):
    """What is stored of one run."""

    revision: int
    sequence: int
    round: int
    parts: list[tuple[str, int]]
    """Keys and revisions."""


class Checkpoints:
    """Loads once, then saves from time to time. Two bookkeepers at once do no harm: see `_save`."""

    def __init__(self, connection: Connection, records: Records, names: Names) -> None:
        self._connection = connection
        self._records = records
        self._names = names
        self._saved: dict[str, _Saved] = {}
        self._anchor_revision = 0
        self._anchored = 0
        """Sequence of the last anchor that was written."""
        self._part = min(PART, connection.max_payload // 2)

    # --- loading -----------------------------------------------------------------------------------

    async def load(self, live: Mapping[str, Record]) -> Loaded:
        """The ledgers of the runs that are live, by their records. What is of no use is removed."""
        entries = {entry.key: entry for entry in await self._records.entries(LEDGER_KEYS)}
        loaded = await read_checkpoint(self._connection, self._names, entries.values(), live, leader=True)
        used = set()
        if loaded.anchor is not None:
            self._anchor_revision = entries[LEDGER_ANCHOR_KEY].revision
            used.add(LEDGER_ANCHOR_KEY)
        elif LEDGER_ANCHOR_KEY in entries:
            log.warning("the event stream has lost its tail; all counts are folded anew")
        if loaded.doubtful:
            log.warning("runs are folded from their histories", extra={"runs": len(loaded.doubtful)})
        for number, (run_id, ledger) in enumerate(loaded.ledgers.items()):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)  # as in `read_checkpoint`
            saved = self._saved[run_id] = _saved(run_id, ledger, entries)
            used |= {ledger_key(run_id), *(key for key, _ in saved.parts)}
        await self._remove([(entry.key, entry.revision) for key, entry in entries.items() if key not in used])
        return loaded

    # --- saving ------------------------------------------------------------------------------------

    async def save(self, books: Iterable[Book], anchor: Anchor | None) -> None:
        """Write what has changed of the books, then the anchor, up to which all of them were folded.

        Without an anchor nothing was folded in this reign. Ledgers may have changed all the same: of runs that have
        ended, or whose history was read.
        """
        live = {book.run_id: book for book in books if book.live}
        gone = {run_id: self._saved.pop(run_id) for run_id in list(self._saved) if run_id not in live}
        heads = [(ledger_key(run_id), saved.revision) for run_id, saved in gone.items()]
        await self._remove([*heads, *(part for saved in gone.values() for part in saved.parts)])
        changed = [book for book in live.values() if self._has_changed(book)]
        for start in range(0, len(changed), _AT_ONCE):
            await asyncio.gather(*[self._save(book) for book in changed[start : start + _AT_ONCE]])
        if anchor is not None and anchor.sequence != self._anchored:
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
        head, parts = await self._store_parts(book.run_id, Head(VERSION, round, sequence, data))
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
        else:
            self._anchored = anchor.sequence

    async def _write(self, key: str, value: bytes, revision: int) -> int:
        if revision:
            return await self._records.update(key, value, revision)
        return await self._records.create(key, value)

    async def _remove(self, keys: Sequence[tuple[str, int]]) -> None:
        for start in range(0, len(keys), _AT_ONCE):
            await asyncio.gather(*[self._remove_one(*each) for each in keys[start : start + _AT_ONCE]])

    async def _remove_one(self, key: str, revision: int) -> None:
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


def _saved(run_id: str, ledger: Ledger, entries: Mapping[str, Entry]) -> _Saved:
    """What is stored of a run whose ledger was read from these."""
    entry = entries[ledger_key(run_id)]
    head = decode_head(entry.value)
    parts = [(key, entries[key].revision) for key in head.part_keys(run_id)]
    return _Saved(entry.revision, ledger.sequence, head.round, parts)
