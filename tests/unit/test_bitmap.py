"""A bitmap is a set of ints, and behaves as one."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.bitmap import EMPTY, PAGE, Bitmap

# Near the edges of pages is where an operation on pages can be wrong.
edges = st.builds(lambda page, offset: max(0, page * PAGE + offset), st.integers(0, 4), st.integers(-3, 3))
ordinals = edges | st.integers(0, 5 * PAGE)
spans = st.lists(st.tuples(ordinals, ordinals), max_size=6)


def members(spans: list[tuple[int, int]]) -> set[int]:
    return {ordinal for first, last in spans for ordinal in range(first, last)}


@given(spans)
def test_it_holds_what_its_ranges_hold(spans: list[tuple[int, int]]) -> None:
    bitmap, expected = Bitmap.of_ranges(spans), members(spans)
    assert list(bitmap) == sorted(expected)
    assert bitmap.count() == len(expected)
    assert bitmap.top() == max(expected, default=-1) + 1
    assert bool(bitmap) == bool(expected)


@given(spans, ordinals)
def test_membership(spans: list[tuple[int, int]], ordinal: int) -> None:
    assert (ordinal in Bitmap.of_ranges(spans)) == (ordinal in members(spans))


@given(spans)
def test_ranges_are_sorted_and_never_touch(spans: list[tuple[int, int]]) -> None:
    ranges = list(Bitmap.of_ranges(spans).ranges())
    assert members(ranges) == members(spans)
    assert all(first < last for first, last in ranges)
    assert all(ranges[i][1] < ranges[i + 1][0] for i in range(len(ranges) - 1))


@given(spans, spans)
def test_set_operations(left: list[tuple[int, int]], right: list[tuple[int, int]]) -> None:
    a, b = Bitmap.of_ranges(left), Bitmap.of_ranges(right)
    assert set(a.plus(b)) == members(left) | members(right)
    assert set(a.both(b)) == members(left) & members(right)
    assert a.shared(b) == len(members(left) & members(right))
    assert set(a.minus(b)) == members(left) - members(right)
    assert (a == b) == (members(left) == members(right))
    assert (set(a), set(b)) == (members(left), members(right)), "an operation changed what it worked on"


@given(spans, spans)
def test_an_empty_result_is_equal_to_the_empty_bitmap(
    left: list[tuple[int, int]], right: list[tuple[int, int]]
) -> None:
    a, b = Bitmap.of_ranges(left), Bitmap.of_ranges(right)
    assert a.minus(a.plus(b)) == EMPTY
    assert not a.minus(a.plus(b))
    assert hash(a.both(b)) == hash(b.both(a))


@given(spans, ordinals | st.none())
def test_within_a_cap_and_beyond_a_floor(spans: list[tuple[int, int]], edge: int | None) -> None:
    bitmap, expected = Bitmap.of_ranges(spans), members(spans)
    assert set(bitmap.within(edge)) == {ordinal for ordinal in expected if edge is None or ordinal < edge}
    if edge is not None:
        assert set(bitmap.beyond(edge)) == {ordinal for ordinal in expected if ordinal >= edge}


@given(st.sets(st.integers(0, 3 * PAGE), max_size=20), ordinals)
def test_the_bits_of_an_int_stand_for_ordinals_from_a_first_one_on(places: set[int], first: int) -> None:
    bits = sum(1 << place for place in places)
    assert set(Bitmap.of_int(bits, first)) == {first + place for place in places}


@given(ordinals)
def test_one_ordinal_alone(ordinal: int) -> None:
    assert Bitmap.of_one(ordinal) == Bitmap.of_range(ordinal, ordinal + 1)


@given(spans)
def test_it_is_the_same_after_pickling(spans: list[tuple[int, int]]) -> None:
    bitmap = Bitmap.of_ranges(spans)
    assert pickle.loads(pickle.dumps(bitmap)) == bitmap


@pytest.mark.parametrize("span", [(5, 5), (7, 3)])
def test_an_empty_or_reversed_range_holds_nothing(span: tuple[int, int]) -> None:
    assert Bitmap.of_range(*span) == EMPTY


def test_a_million_neighbours_take_few_pages() -> None:
    million = Bitmap.of_range(0, 1_000_000)
    assert million.count() == 1_000_000
    assert len(pickle.dumps(million)) < 140_000
