"""What is said of ordinals, kept as stretches of neighbours of which the same is said. Pure.

It is for the recount, which shares nothing with the ledger and its bitmaps. One event can name sixteen million tasks:
that is as few stretches as the event has ranges, or neighbours among its bits, and not an entry for each task. Only
scattered tasks, of which each neighbour is of another kind, cost an entry each.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Generic, TypeVar

S = TypeVar("S")

PAGE = 1 << 16
"""Stretches end where a page does, so that a change moves only those of its page."""


class Stretches(Generic[S]):
    """Ordinals from 0 on, and what is said of each, which is never None."""

    def __init__(self) -> None:
        self._pages: dict[int, list[tuple[int, int, S]]] = {}
        """Page number -> (first, one past the last, what is said), in order."""

    def __bool__(self) -> bool:
        return bool(self._pages)

    def get(self, ordinal: int) -> S | None:
        """What is said of an ordinal; None if nothing is."""
        return next(said for _, _, said in self.over(ordinal, ordinal + 1))

    def over(self, first: int, last: int) -> Iterator[tuple[int, int, S | None]]:
        """All from `first` up to and without `last`, in order, as stretches; None where nothing is said."""
        at = first
        for page in range(first // PAGE, (last - 1) // PAGE + 1):
            stretches = self._pages.get(page, [])
            for index in range(_place(stretches, at), len(stretches)):
                start, end, said = stretches[index]
                if max(start, at) >= last:
                    break
                if start > at:
                    yield at, start, None
                yield max(start, at), min(end, last), said
                at = min(end, last)
        if at < last:
            yield at, last, None

    def all(self) -> Iterator[tuple[int, int, S]]:
        """All of which something is said."""
        for page in sorted(self._pages):
            yield from self._pages[page]

    def top(self) -> int:
        """One past the highest of which something is said; 0 if there is none."""
        return self._pages[max(self._pages)][-1][1] if self._pages else 0

    def put(self, first: int, last: int, said: S | None) -> None:
        """Say this of all from `first` up to and without `last`, whatever was said before; None takes that back."""
        for page in range(first // PAGE, (last - 1) // PAGE + 1) if first < last else ():
            low, high = max(first, page * PAGE), min(last, (page + 1) * PAGE)
            stretches = self._pages.setdefault(page, [])
            # With the neighbours, of which the same may be said.
            begin, end = max(0, _place(stretches, low) - 1), bisect_left(stretches, (high + 1,))
            around = stretches[begin:end]
            pieces = [(start, min(stop, low), old) for start, stop, old in around if start < low]
            if said is not None:
                pieces.append((low, high, said))
            pieces += [(max(start, high), stop, old) for start, stop, old in around if stop > high]
            stretches[begin:end] = _joined(pieces)
            if not stretches:
                del self._pages[page]

    def fill(self, first: int, last: int, said: S) -> None:
        """Say this where nothing is said yet."""
        for start, end, old in list(self.over(first, last)):
            if old is None:
                self.put(start, end, said)


def _place(stretches: list[tuple[int, int, S]], ordinal: int) -> int:
    """The index of the stretch that holds the ordinal, or of the first one behind it."""
    index = bisect_left(stretches, (ordinal,))
    return index - 1 if index and stretches[index - 1][1] > ordinal else index


def _joined(pieces: list[tuple[int, int, S]]) -> list[tuple[int, int, S]]:
    joined: list[tuple[int, int, S]] = []
    for start, end, said in pieces:
        if joined and joined[-1][1:] == (start, said):
            joined[-1] = (joined[-1][0], end, said)
        else:
            joined.append((start, end, said))
    return joined
