"""The tasks that a retry is limited to, as its record keeps them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from corral.bitmap import EMPTY, Bitmap
from corral.decoding import Natural
from corral.events import Ordinal, Range, check_bits, check_ranges
from corral.parts import append, pieces


class Selection(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tasks by batch; each page of ordinals in the way that is shorter, as in a `Reopened`."""

    ranges: list[tuple[Natural, list[Range]]] = []
    bits: list[tuple[Natural, list[tuple[Ordinal, bytes]]]] = []

    def __post_init__(self) -> None:
        for _, spans in self.ranges:
            check_ranges(spans)
        for _, pages in self.bits:
            check_bits(pages)

    def within(self, tasks: Mapping[int, Bitmap]) -> dict[int, Bitmap]:
        """What of these tasks (batch -> ordinals) is selected."""
        found: dict[int, Bitmap] = {}
        for batch, bits in self._pieces():
            # Only one piece at a time is a bitmap: a forged selection may name more than fits into memory.
            if these := bits.both(tasks.get(batch, EMPTY)):
                found[batch] = found.get(batch, EMPTY).plus(these)
        return found

    def _pieces(self) -> Iterator[tuple[int, Bitmap]]:
        for batch, spans in self.ranges:
            yield batch, Bitmap.of_ranges(spans)
        for batch, pages in self.bits:
            for first, page in pages:
                yield batch, Bitmap.of_int(int.from_bytes(page, "little"), first)


def selection_of(tasks: Mapping[int, Bitmap]) -> Selection:
    """The selection of these tasks: batch -> ordinals."""
    ranges: list[tuple[int, list[Range]]] = []
    bits: list[tuple[int, list[tuple[int, bytes]]]] = []
    for batch, ordinals in sorted(tasks.items()):
        spans: list[Range] = []
        pages: list[tuple[int, bytes]] = []
        for piece in pieces(ordinals):
            if isinstance(piece, list):
                append(spans, piece)
            else:
                pages.append(piece)
        if spans:
            ranges.append((batch, spans))
        if pages:
            bits.append((batch, pages))
    return Selection(ranges, bits)
