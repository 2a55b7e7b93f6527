"""A set of ordinals, kept as pages of bits: a million neighbours are 125 kB, and a range costs its pages.

A page is one Python int of `PAGE` bits: set operations on it are single machine-speed operations, and
`int.bit_count` counts it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

PAGE = 4096


class Bitmap:
    """An immutable set of non-negative ints."""

    __slots__ = ("_pages",)

    def __init__(self, pages: dict[int, int] | None = None) -> None:
        """`pages` is taken over as it is: page number -> its bits, without empty pages."""
        self._pages: dict[int, int] = {} if pages is None else pages

    @classmethod
    def of_ranges(cls, ranges: Iterable[tuple[int, int]]) -> Bitmap:
        """Everything from each first up to and without each last."""
        pages: dict[int, int] = {}
        for first, last in ranges:
            page, offset = divmod(first, PAGE)
            left = last - first
            while left > 0:
                width = min(left, PAGE - offset)
                pages[page] = pages.get(page, 0) | ((1 << width) - 1) << offset
                left, page, offset = left - width, page + 1, 0
        return _shared(pages)

    @classmethod
    def of_range(cls, first: int, last: int) -> Bitmap:
        """Everything from `first` up to and without `last`."""
        return cls.of_ranges(((first, last),))

    @classmethod
    def of_one(cls, ordinal: int) -> Bitmap:
        """This ordinal alone."""
        page, offset = divmod(ordinal, PAGE)
        return _shared({page: 1 << offset})

    @classmethod
    def of_int(cls, bits: int, first: int) -> Bitmap:
        """The set bits of `bits`, the lowest of which stands for `first`."""
        page, offset = divmod(first, PAGE)
        bits <<= offset
        pages: dict[int, int] = {}
        while bits:
            if low := bits & ((1 << PAGE) - 1):
                pages[page] = low
            bits >>= PAGE
            page += 1
        return cls(pages)

    @classmethod
    def of_packed(cls, packed: dict[int, bytes]) -> Bitmap:
        """What `packed` gave."""
        return _shared({page: int.from_bytes(bits, "little") for page, bits in packed.items()})

    def packed(self) -> dict[int, bytes]:
        """Page number -> its bits, the lowest first."""
        return {page: bits.to_bytes((bits.bit_length() + 7) // 8, "little") for page, bits in self._pages.items()}

    def pages(self) -> dict[int, int]:
        """A copy of its pages: page number -> its bits."""
        return self._pages.copy()

    def __contains__(self, ordinal: int) -> bool:
        page, offset = divmod(ordinal, PAGE)
        return bool(self._pages.get(page, 0) >> offset & 1)

    def __bool__(self) -> bool:
        return bool(self._pages)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bitmap) and self._pages == other._pages

    def __hash__(self) -> int:
        return hash(frozenset(self._pages.items()))

    def __repr__(self) -> str:
        return f"Bitmap({list(self.ranges())})"

    def __iter__(self) -> Iterator[int]:
        for first, last in self.ranges():
            yield from range(first, last)

    def count(self) -> int:
        """How many ordinals are in it."""
        return sum(map(int.bit_count, self._pages.values()))

    def top(self) -> int:
        """One past the highest ordinal; 0 when empty."""
        if not self._pages:
            return 0
        page = max(self._pages)
        return page * PAGE + self._pages[page].bit_length()

    def plus(self, other: Bitmap) -> Bitmap:
        """What is in one of them or in both."""
        if not other or not self:
            return self or other
        few, many = self._by_size(other)
        pages = many.copy()
        for page, bits in few.items():
            pages[page] = pages.get(page, 0) | bits
        return Bitmap(pages)

    def both(self, other: Bitmap) -> Bitmap:
        """What is in both."""
        if not self._pages or not other._pages:
            return EMPTY
        few, many = self._by_size(other)
        pages: dict[int, int] = {}
        for page, bits in few.items():
            if common := bits & many.get(page, 0):
                pages[page] = common
        return Bitmap(pages)

    def shared(self, other: Bitmap) -> int:
        """How many are in both."""
        if not self._pages or not other._pages:
            return 0
        few, many = self._by_size(other)
        return sum([(bits & many.get(page, 0)).bit_count() for page, bits in few.items()])

    def minus(self, other: Bitmap) -> Bitmap:
        """What is in this one and not in the other."""
        theirs = other._pages
        if not theirs or not self._pages:
            return self
        pages: dict[int, int] = {}
        for page, bits in self._pages.items():
            if left := bits & ~theirs.get(page, 0):
                pages[page] = left
        return Bitmap(pages)

    def within(self, cap: int | None) -> Bitmap:
        """What is below `cap`; all of it for None."""
        if cap is None:
            return self
        edge, offset = divmod(cap, PAGE)
        pages: dict[int, int] = {}
        for page, bits in self._pages.items():
            if page < edge:
                pages[page] = bits
            elif page == edge and (low := bits & ((1 << offset) - 1)):
                pages[page] = low
        return Bitmap(pages)

    def beyond(self, floor: int) -> Bitmap:
        """What is not below `floor`."""
        edge, offset = divmod(floor, PAGE)
        pages: dict[int, int] = {}
        for page, bits in self._pages.items():
            if page > edge:
                pages[page] = bits
            elif page == edge and (high := bits >> offset << offset):
                pages[page] = high
        return Bitmap(pages)

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Its ordinals in order, neighbours put together: from a first up to and without a last."""
        start = end = 0
        for page in sorted(self._pages):
            at, bits = page * PAGE, self._pages[page]
            while bits:
                zeros = (bits & -bits).bit_length() - 1
                bits >>= zeros
                ones = (~bits & (bits + 1)).bit_length() - 1
                bits >>= ones
                first = at + zeros
                at = first + ones
                if first == end:
                    end = at
                else:
                    if start < end:
                        yield start, end
                    start, end = first, at
        if start < end:
            yield start, end

    def _by_size(self, other: Bitmap) -> tuple[dict[int, int], dict[int, int]]:
        """The pages of both, the fewer ones first."""
        mine, theirs = self._pages, other._pages
        return (mine, theirs) if len(mine) <= len(theirs) else (theirs, mine)


EMPTY = Bitmap()
_ONE = {0: 1}
_FIRST = Bitmap(_ONE)


def _shared(pages: dict[int, int]) -> Bitmap:
    """A bitmap of these pages. Most are of a run of one task, or of a root: all of these are the same two."""
    if not pages:
        return EMPTY
    return _FIRST if pages == _ONE else Bitmap(pages)
