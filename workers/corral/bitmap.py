"""A set of ordinals, kept as pages of bits: a million neighbours are 125 kB, and a range costs its pages.

A page is one Python int of `PAGE` bits: set operations on it are single machine-speed operations, and
`int.bit_count` counts it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

PAGE = 4096
_FULL = (1 << PAGE) - 1


class Bitmap:
    """A set of non-negative ints. Operations that return a Bitmap make a new one; `add` and `remove` change this one."""

    __slots__ = ("_pages",)

    def __init__(self, pages: dict[int, int] | None = None) -> None:
        self._pages: dict[int, int] = {} if pages is None else pages

    @classmethod
    def of_ranges(cls, ranges: Iterable[tuple[int, int]]) -> Bitmap:
        """Everything from each first up to and without each last."""
        pages: dict[int, int] = {}
        for first, last in ranges:
            page, offset = divmod(first, PAGE)
            while first < last:
                width = min(last - first, PAGE - offset)
                pages[page] = pages.get(page, 0) | ((1 << width) - 1) << offset
                first, page, offset = first + width, page + 1, 0
        return cls(pages)

    @classmethod
    def of_range(cls, first: int, last: int) -> Bitmap:
        return cls.of_ranges(((first, last),))

    @classmethod
    def of_int(cls, bits: int, first: int) -> Bitmap:
        """The set bits of `bits`, the lowest of which stands for `first`."""
        page, offset = divmod(first, PAGE)
        bits <<= offset
        pages: dict[int, int] = {}
        while bits:
            if low := bits & _FULL:
                pages[page] = low
            bits >>= PAGE
            page += 1
        return cls(pages)

    def __contains__(self, ordinal: int) -> bool:
        page, offset = divmod(ordinal, PAGE)
        return bool(self._pages.get(page, 0) >> offset & 1)

    def __bool__(self) -> bool:
        return bool(self._pages)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bitmap) and self._pages == other._pages

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"Bitmap({list(self.ranges())})"

    def count(self) -> int:
        """How many ordinals are in it."""
        return sum(map(int.bit_count, self._pages.values()))

    def top(self) -> int:
        """One past the highest ordinal; 0 when empty."""
        if not self._pages:
            return 0
        page = max(self._pages)
        return page * PAGE + self._pages[page].bit_length()

    def add(self, other: Bitmap) -> None:
        pages = self._pages
        for page, bits in other._pages.items():
            pages[page] = pages.get(page, 0) | bits

    def remove(self, other: Bitmap) -> None:
        pages = self._pages
        for page, bits in other._pages.items():
            if left := pages.get(page, 0) & ~bits:
                pages[page] = left
            else:
                pages.pop(page, None)

    def both(self, other: Bitmap) -> Bitmap:
        """What is in both."""
        few, many = (self, other) if len(self._pages) <= len(other._pages) else (other, self)
        pages: dict[int, int] = {}
        for page, bits in few._pages.items():
            if common := bits & many._pages.get(page, 0):
                pages[page] = common
        return Bitmap(pages)

    def minus(self, other: Bitmap) -> Bitmap:
        """What is in this one and not in the other."""
        theirs = other._pages
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
        start: int | None = None
        end = 0
        for page in sorted(self._pages):
            base, bits = page * PAGE, self._pages[page]
            offset = 0
            while bits:
                zeros = (bits & -bits).bit_length() - 1
                bits >>= zeros
                ones = (~bits & (bits + 1)).bit_length() - 1
                bits >>= ones
                first = base + offset + zeros
                if start is not None and first == end:
                    end = first + ones
                else:
                    if start is not None:
                        yield start, end
                    start, end = first, first + ones
                offset += zeros + ones
        if start is not None:
            yield start, end

    def __iter__(self) -> Iterator[int]:
        for first, last in self.ranges():
            yield from range(first, last)
