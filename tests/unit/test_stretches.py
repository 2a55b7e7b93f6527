"""Stretches say of each ordinal what an entry for each would."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral import stretches
from corral.stretches import Stretches

MOST = 40
ordinals = st.integers(0, MOST)
changes = st.lists(st.tuples(st.booleans(), ordinals, ordinals, st.sampled_from(["a", "b", None])), max_size=20)


@settings(deadline=None)
@given(changes=changes, page=st.sampled_from([1, 4, 16, 100]))
def test_stretches_are_a_dict_of_ordinals(changes: list[tuple[bool, int, int, Any]], page: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stretches, "PAGE", page)
        slow: dict[int, str] = {}
        fast: Stretches[str] = Stretches()
        for fills, first, last, said in changes:
            if fills and said is not None:
                fast.fill(first, last, said)
                slow.update({ordinal: said for ordinal in range(first, last) if ordinal not in slow})
            else:
                fast.put(first, last, said)
                slow = {ordinal: value for ordinal, value in slow.items() if not first <= ordinal < last}
                slow.update(dict.fromkeys(range(first, last), said) if said is not None else {})
            assert [fast.get(ordinal) for ordinal in range(MOST)] == [slow.get(ordinal) for ordinal in range(MOST)]
            assert fast.top() == max(slow, default=-1) + 1
            over = list(fast.over(first, last))
            assert [ordinal for start, end, _ in over for ordinal in range(start, end)] == list(range(first, last))
            assert all(start < end for start, end, _ in over)
            # No more of them than there have to be.
            for (_, end, one), (start, _, other) in pairwise(fast.all()):
                assert end < start or one != other or start % page == 0
