"""Which records are kept, however many there are, and what is said of the others."""

from __future__ import annotations

import msgspec
import pytest

from corral.ledger import Counts
from corral.runs import Record
from corral_tui.kept import BODY, Kept
from corral_tui.spans import plain
from corral_tui.state import State
from corral_tui.summary import summary
from corral_tui.values import Link, Unlisted
from corral_tui.view import unlisted_line
from tests.tui.drawn import dashboard
from tests.tui.scenes import NOW, PlainSource, final, live_events, record
from tests.tui.test_runs_screen import filtered


def ended(number: int, **counts: int) -> Record:
    """The record of the run of this number, each of which has begun and ended a second after the one before."""
    return final(f"e{number:03d}", "nightly", ago=1_000 - number, took=1, **(counts or {"success": 1}))


def test_of_the_runs_that_ended_the_last_ones_are_kept_and_the_others_counted() -> None:
    kept = Kept(most=3)
    for number in range(10):
        kept.put(ended(number))
    assert kept.order() == ["e009", "e008", "e007"]
    assert kept.unlisted() == Unlisted(success=7)


def test_what_went_wrong_is_not_pushed_out_by_what_went_well() -> None:
    kept = Kept(most=2)
    kept.put(ended(0, error=1))
    kept.put(ended(1, interrupted=1))
    kept.put(record("live"))
    for number in range(2, 9):
        kept.put(ended(number))
    assert set(kept.order()) == {"e000", "e001", "live", "e007", "e008"}
    assert kept.unlisted() == Unlisted(success=5)


def test_a_record_that_comes_again_is_counted_once() -> None:
    kept = Kept(most=2)
    for _ in range(3):
        for number in range(5):
            kept.put(ended(number))
    assert kept.order() == ["e004", "e003"]
    assert kept.unlisted() == Unlisted(success=3)


def test_one_that_is_not_kept_is_kept_when_it_is_brought_back() -> None:
    kept = Kept(most=1)
    for number in range(3):
        kept.put(ended(number))
    assert kept.leaves_out("e000")
    assert kept.put(record("e000", round=1))
    assert not kept.leaves_out("e000")
    assert set(kept.order()) == {"e000", "e002"}
    assert kept.unlisted() == Unlisted(success=1)


def test_records_that_expire_are_no_longer_counted() -> None:
    kept = Kept(most=1)
    for number in range(3):
        kept.put(ended(number))
    for gone in ("e000", "e002", "unknown"):
        kept.drop(gone)
    assert kept.order() == []
    assert kept.unlisted() == Unlisted(success=1)


def test_live_runs_stay_until_they_end_and_then_make_room() -> None:
    kept = Kept(most=2)
    assert [kept.put(record(name)) for name in ("a", "b", "c")] == [True, True, False]
    assert kept.unlisted() == Unlisted(live=1)
    assert not kept.put(record("c", seq=8))
    assert kept.put(final("a", "reindex", ago=0, took=1, success=1))
    assert kept.put(record("c", seq=9))
    assert kept.unlisted() == Unlisted()


def test_the_one_that_is_looked_at_is_kept() -> None:
    kept = Kept(most=1)
    kept.hold("e000")
    for number in range(4):
        kept.put(ended(number))
    assert kept.order() == ["e003", "e000"]
    kept.hold(None)
    assert len(kept.order()) == 1
    assert kept.unlisted().success == 3


def test_runs_that_began_at_the_same_moment_are_told_apart() -> None:
    kept = Kept(most=2)
    for name in ("b", "c", "a"):
        kept.put(final(name, "nightly", ago=5, took=1, success=1))
    assert kept.order() == ["c", "a"]
    kept.drop("c")
    assert kept.order() == ["a"]


def test_the_order_follows_a_record_that_says_another_time() -> None:
    kept = Kept()
    for number in range(3):
        kept.put(ended(number))
    kept.put(final("e000", "nightly", ago=1, took=1, success=1))
    assert kept.order() == ["e000", "e002", "e001"]
    kept.drop("e000")
    assert kept.order() == ["e002", "e001"]


def test_a_record_does_not_keep_what_it_was_read_from() -> None:
    stored = memoryview(b" " * 100_000 + b'{"id": 7}')
    kept = Kept()
    for name, body in (("short", stored[100_000:]), ("long", stored[: BODY + 1])):
        kept.put(msgspec.structs.replace(ended(0), id=name, body=msgspec.Raw(body)))
    assert bytes(kept.records["short"].body) == b'{"id": 7}'
    assert bytes(kept.records["long"].body) == b""


def test_the_view_of_a_run_follows_its_record() -> None:
    kept = Kept(most=1)
    assert kept.view("e000") is None
    kept.put(ended(0))
    before = kept.view("e000")
    assert before is not None
    assert kept.view("e000") is before
    kept.put(ended(0, error=2))
    after = kept.view("e000")
    assert after is not None
    assert (before.status, after.status) == ("success", "failed")
    kept.put(ended(1, error=1))
    assert kept.view("e000") is None


# --- what a state says ------------------------------------------------------------------------------


def test_of_live_runs_that_are_not_kept_no_events_are_folded() -> None:
    state = State(most=1)
    state.put_record(record("a"))
    state.put_record(record("b"))
    for sequence, at, event in live_events(batch=5, topic="child", total=100, done=40, errors=0, seconds=10):
        state.apply("b", sequence, at, event, now=at)
    assert set(state.folds) == {"a"}
    assert state.runs() == ["a"]
    assert state.truth(NOW).rate > 0


def test_what_was_looked_at_is_let_go_with_its_fold() -> None:
    state = State(most=1)
    state.hold("b")
    state.put_record(record("a"))
    state.put_record(record("b"))
    assert set(state.folds) == {"a", "b"}
    state.hold(None)
    assert set(state.folds) == set(state.runs()) == {"a"}
    assert state.unlisted() == Unlisted(live=1)


def test_the_summary_counts_all_runs() -> None:
    state = State(most=2)
    for name in ("a", "b", "c"):
        state.put_record(record(name, counts=Counts(total=1, running=1)))
    for number in range(5):
        state.put_record(ended(number))
    state.put_record(ended(5, error=1))
    said = summary(state, NOW)
    assert said[0] == "9 runs: 3 live; 5 success, 1 failed"


@pytest.mark.parametrize(
    ("unlisted", "searching", "said"),
    [
        (Unlisted(), False, ""),
        (Unlisted(success=90_000, failed=12), False, "90,012 older runs are not listed: corral runs"),
        (Unlisted(success=90_000), True, "90,000 older runs are not searched: corral runs"),
        (Unlisted(live=1), False, "1 live run is not listed: corral runs"),
        (Unlisted(live=20, failed=3), True, "3 older and 20 live runs are not searched: corral runs"),
    ],
)
def test_it_is_said_what_is_not_listed(unlisted: Unlisted, searching: bool, said: str) -> None:
    assert plain(unlisted_line(unlisted, filtered=searching)) == said


async def test_the_list_says_that_there_are_more_and_what_lists_them() -> None:
    state = State(most=5)
    state.link = Link(phase="live", ready=True)
    for number in range(100):
        state.put_record(ended(number))
    async with dashboard(PlainSource(state)) as stage:
        assert "95 older runs are not listed: corral runs" in stage.lines()[-2]
        assert await filtered(stage, "e099") == ["e099"]
        assert "1 run of 5 · 95 older runs are not searched: corral runs" in stage.text()
