"""How free slots are shared between topics."""

from hypothesis import given
from hypothesis import strategies as st

from corral.slots import Demand, share


def demand(*, room: int = 100, asked: int = 0, backlog: int = 0, recent: int = 0) -> Demand:
    return Demand(room=room, asked=asked, backlog=backlog, recent=recent)


def test_a_single_topic_is_asked_for_all_free_slots() -> None:
    assert share(100, [demand()]) == [100]
    assert share(100, [demand(asked=60)]) == [40]


def test_quiet_topics_ask_for_one_message_each() -> None:
    assert share(100, [demand(), demand(), demand()]) == [1, 1, 1]


def test_a_busy_topic_gets_all_that_the_quiet_ones_leave() -> None:
    assert share(100, [demand(backlog=5_000), demand(asked=1)]) == [100, 0]


def test_busy_topics_share_fairly_and_none_gets_more_than_it_can_use() -> None:
    assert share(90, [demand(backlog=10), demand(backlog=500), demand(backlog=500)]) == [10, 40, 40]


def test_a_topic_that_was_busy_lately_comes_after_those_that_are() -> None:
    assert share(100, [demand(backlog=500), demand(recent=50)]) == [100, 1]
    assert share(100, [demand(backlog=30), demand(recent=20)]) == [30, 40]


def test_nothing_is_asked_for_without_a_free_slot() -> None:
    assert share(0, [demand(backlog=9), demand(), demand(recent=3)]) == [0, 0, 0]


demands = st.lists(
    st.builds(
        Demand,
        room=st.integers(0, 200),
        asked=st.integers(0, 50),
        backlog=st.integers(0, 1_000),
        recent=st.integers(0, 100),
    ),
    min_size=1,
    max_size=8,
)


@given(free=st.integers(0, 200), wanted=demands)
def test_what_is_asked_for_fits_the_slots_but_for_single_messages(free: int, wanted: list[Demand]) -> None:
    asks = share(free, wanted)
    assert all(0 <= ask <= each.room for ask, each in zip(asks, wanted, strict=True))
    promised = sum(each.asked for each in wanted if each.asked > 1 or len(wanted) == 1)
    more_than_one = sum(ask for ask, each in zip(asks, wanted, strict=True) if ask > 1 or each.backlog or each.recent)
    singles = len(wanted)
    assert more_than_one <= max(0, free - promised) + singles
