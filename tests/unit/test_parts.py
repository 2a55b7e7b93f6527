"""What a retry brings back is said in as many events as it takes, and read again without a loss."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.bitmap import EMPTY, Bitmap
from corral.events import Reopened, decode_event, encode_event
from corral.parts import Parts, named, split

Named = list[tuple[str, int, Bitmap]]
bitmaps = st.builds(
    lambda dense, sparse: Bitmap.of_int(dense, 4000).plus(Bitmap.of_ranges((n, n + 1) for n in sparse)),
    st.integers(0, 2**300),
    st.sets(st.integers(0, 20_000), max_size=20),
)
some = st.lists(
    st.tuples(st.sampled_from(["a", "bc"]), st.integers(0, 5), bitmaps), max_size=6, unique_by=lambda each: each[:2]
)


def together(parts: list[Reopened]) -> dict[int, Bitmap]:
    found: dict[int, Bitmap] = {}
    for part in parts:
        for batch, bits in named(part):
            found[batch] = found.get(batch, EMPTY).plus(bits)
    return {batch: bits for batch, bits in found.items() if bits}


@given(some, st.sampled_from([1, 50, 500, 100_000]))
def test_all_parts_together_name_what_was_split(back: Named, limit: int) -> None:
    parts = split(3, back, limit)
    read = [decode_event(encode_event(part)) for part in parts]
    assert read == parts
    assert [(part.round, part.part, part.parts) for part in parts] == [(3, n, len(parts)) for n in range(len(parts))]
    assert together(parts) == together([Reopened(3, [(topic, n, list(bits.ranges())) for topic, n, bits in back])])


@given(some, st.randoms(use_true_random=False))
def test_parts_are_complete_with_the_last_that_was_missing_whatever_the_order(
    back: Named, chance: random.Random
) -> None:
    parts = split(1, back, 50)
    order = [*parts, *chance.choices(parts, k=3)]
    chance.shuffle(order)
    said = Parts(split(1, [*back, ("z", 99, Bitmap.of_one(1))], 50)[1:])  # of another whole
    left = {part.part for part in parts}
    for part in order:
        done = said.add(part)
        left.discard(part.part)
        assert said.has(part)
        assert (done is not None) == (not left)
        if done is not None:
            assert together(done) == together(parts)
            break


@pytest.mark.parametrize(
    ("ordinals", "most"),
    [(range(1_000_000), 100), (range(0, 1_000_000, 2), 200_000), (range(0, 1_000_000, 10_000), 2_000)],
)
def test_each_page_is_written_in_the_way_that_is_shorter(ordinals: range, most: int) -> None:
    bits = Bitmap.of_ranges([(0, 1_000_000)] if ordinals.step == 1 else ((n, n + 1) for n in ordinals))
    (part,) = split(1, [("a", 7, bits)], 1 << 20)
    assert len(encode_event(part)) < most
    assert together([part]) == {7: bits}


def test_a_part_is_hardly_longer_than_the_limit() -> None:
    bits = Bitmap.of_ranges((n, n + 1) for n in range(0, 1_000_000, 2))
    parts = split(1, [("a", 7, bits), *((f"topic.{n}", n, Bitmap.of_one(n)) for n in range(8, 2_000))], 10_000)
    assert len(parts) > 10
    assert max(len(encode_event(part)) for part in parts) < 11_000
    assert together(parts) == {7: bits, **{n: Bitmap.of_one(n) for n in range(8, 2_000)}}


def test_a_part_beyond_their_number_is_none() -> None:
    said = Parts()
    assert said.add(Reopened(1, [], part=5, parts=2)) is None
    assert said.add(Reopened(1, [], part=1, parts=2)) is None
    assert said.add(Reopened(1, [], part=0, parts=2)) is not None
