"""What a retry is limited to is kept in the record of its run, without a loss and in little room."""

from __future__ import annotations

import tracemalloc

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.bitmap import Bitmap
from corral.errors import Unreadable
from corral.runs import decode_record, encode
from corral.selection import Selection, selection_of
from tests.unit.targets import RECORD

bitmaps = st.builds(
    lambda dense, sparse: Bitmap.of_int(dense, 4000).plus(Bitmap.of_ranges((n, n + 1) for n in sparse)),
    st.integers(0, 2**300),
    st.sets(st.integers(0, 20_000), max_size=20),
)
Tasks = dict[int, Bitmap]
tasks = st.dictionaries(st.integers(0, 5), bitmaps, max_size=5)


def stored(selection: Selection | None) -> Selection:
    """As whoever reads the record gets it."""
    read = decode_record(encode(msgspec.structs.replace(RECORD, selection=selection)))
    assert read.selection == selection
    assert read.selection is not None
    return read.selection


@given(tasks, tasks)
def test_what_is_selected_is_found_among_whatever_there_is(some: Tasks, there: Tasks) -> None:
    found = stored(selection_of(some)).within(there)
    both = {batch: bits.both(there[batch]) for batch, bits in some.items() if batch in there}
    assert found == {batch: bits for batch, bits in both.items() if bits}


@pytest.mark.parametrize(
    ("ordinals", "most"),
    [(range(1_000_000), 60), (range(0, 1_000_000, 2), 180_000), (range(0, 1_000_000, 10_000), 2_000)],
)
def test_neighbours_and_many_scattered_ones_take_little_room(ordinals: range, most: int) -> None:
    bits = Bitmap.of_ranges([(0, 1_000_000)] if ordinals.step == 1 else ((n, n + 1) for n in ordinals))
    selection = selection_of({7: bits})
    assert len(msgspec.json.encode(selection)) < most
    assert selection.within({7: bits, 8: bits}) == {7: bits}


def test_an_older_record_is_limited_to_nothing() -> None:
    older = msgspec.json.decode(encode(RECORD))
    del older["selection"]
    assert decode_record(msgspec.json.encode(older)).selection is None
    assert b"selection" not in encode(msgspec.structs.replace(RECORD, selection=None))


@pytest.mark.parametrize(
    "wrong",
    [
        b'{"ranges":[[1,[[5,3]]]]}',
        b'{"ranges":[[1,[[0,2],[1,4]]]]}',
        b'{"ranges":[[1,[[-1,4]]]]}',
        b'{"ranges":[[-1,[[1,4]]]]}',
        b'{"ranges":[[1,[[0,1099511627776]]]]}',
        b'{"bits":[[1,[[16777216,"AQ=="]]]]}',
        b'{"bits":[[1,[[0,"?"]]]]}',
        b"[]",
    ],
)
def test_a_selection_that_is_none_makes_the_record_unreadable(wrong: bytes) -> None:
    bare = encode(msgspec.structs.replace(RECORD, selection=None))
    with pytest.raises(Unreadable):
        decode_record(bare[:-1] + b',"selection":' + wrong + b"}")


def test_the_most_that_a_forged_selection_can_say_costs_little_memory() -> None:
    forged = Selection([(batch, [(0, 1 << 24)]) for batch in range(100)])
    tracemalloc.start()
    try:
        assert forged.within({7: Bitmap.of_one(3)}) == {7: Bitmap.of_one(3)}
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
