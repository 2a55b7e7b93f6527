"""How a retry says what it brings back: in one `Reopened`, or in several where one would be too long. Pure.

Half a million scattered ordinals are megabytes as ranges, and some 170 kB as bits; a few neighbours are shortest as a
range. So each page of ordinals is written in the way that is shorter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import TypeVar

import msgspec

from corral import bitmap
from corral.bitmap import EMPTY, Bitmap
from corral.events import Range, Reopened

_T = TypeVar("_T")


class Parts:
    """The events of one round that have been said so far. Those that were split in another way are kept apart."""

    def __init__(self, said: Iterable[Reopened] = ()) -> None:
        self._said: dict[tuple[int, str], dict[int, Reopened]] = {}
        for event in said:
            self.add(event)

    def __iter__(self) -> Iterator[Reopened]:
        return (event for said in self._said.values() for event in said.values())

    def add(self, event: Reopened) -> list[Reopened] | None:
        """Take a part in; all of them, if it was the last that was missing."""
        said = self._said.setdefault((event.parts, event.digest), {})
        if event.part < event.parts:
            said.setdefault(event.part, event)
        return list(said.values()) if len(said) == event.parts else None

    def has(self, event: Reopened) -> bool:
        """Whether this part was said."""
        return event.part in self._said.get((event.parts, event.digest), {})


def named(event: Reopened) -> Iterator[tuple[int, Bitmap]]:
    """(batch, ordinals) of what an event names."""
    for _, batch, spans in event.tasks:
        yield batch, Bitmap.of_ranges(spans)
    for _, batch, pages in event.bits:
        bits = EMPTY
        for first, page in pages:
            bits = bits.plus(Bitmap.of_int(int.from_bytes(page, "little"), first))
        yield batch, bits


def split(round: int, back: Iterable[tuple[str, int, Bitmap]], limit: int) -> list[Reopened]:
    """The events that name all of (topic, batch, ordinals), each of at most about `limit` bytes."""
    parts: list[_Part] = [_Part()]
    for topic, batch, bits in back:
        for piece in pieces(bits):
            parts[-1].add(topic, batch, piece)
            if parts[-1].size >= limit:
                parts.append(_Part())
    if len(parts) > 1 and not parts[-1].size:
        parts.pop()
    if len(parts) == 1:
        return [Reopened(round=round, tasks=parts[0].tasks, bits=parts[0].bits)]
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(msgspec.json.encode((part.tasks, part.bits)))
    return [
        Reopened(
            round=round, tasks=part.tasks, bits=part.bits, part=number, parts=len(parts), digest=digest.hexdigest()
        )
        for number, part in enumerate(parts)
    ]


Piece = list[Range] | tuple[int, bytes]
"""One page of ordinals, as ranges or as bits."""


def pieces(bits: Bitmap) -> Iterator[Piece]:
    """Page by page, each as ranges or as (first, bits), whichever is shorter."""
    for page, packed in sorted(bits.packed().items()):
        first = page * bitmap.PAGE
        number = int.from_bytes(packed, "little")
        runs = (number & ~(number << 1)).bit_count()
        if runs * len(f"[{first},{first}],") <= len(packed) * 4 // 3 + len(f'[{first},""],'):
            yield list(Bitmap.of_int(number, first).ranges())
        else:
            yield first, packed


def append(spans: list[Range], piece: list[Range]) -> None:
    """Add the ranges of the next page; if it goes on from the page before, the range does."""
    if spans and spans[-1][1] == piece[0][0]:
        piece = [(spans.pop()[0], piece[0][1]), *piece[1:]]
    spans.extend(piece)


class _Part:
    """A part that is being written."""

    def __init__(self) -> None:
        self.size = 0
        self.tasks: list[tuple[str, int, list[Range]]] = []
        self.bits: list[tuple[str, int, list[tuple[int, bytes]]]] = []

    def add(self, topic: str, batch: int, piece: Piece) -> None:
        if isinstance(piece, list):
            append(self._of(self.tasks, topic, batch), piece)
        else:
            self._of(self.bits, topic, batch).append(piece)
        self.size += len(msgspec.json.encode(piece))

    def _of(self, lists: list[tuple[str, int, list[_T]]], topic: str, batch: int) -> list[_T]:
        """The list of a batch; a new one unless it is the last."""
        if not lists or lists[-1][:2] != (topic, batch):
            lists.append((topic, batch, []))
            self.size += len(topic.encode()) + len(f'["",{batch},[]],')
        return lists[-1][2]
