"""The state: what is folded from records, events and heartbeats."""

from typing import get_args

import msgspec
import pytest

from corral import events
from corral.events import AnyEvent
from corral.ledger import Counts, Ledger
from corral_tui.describe import event_view
from corral_tui.fold import Detail
from corral_tui.state import State
from corral_tui.summary import exit_code, summary
from tests.tui.scenes import NOW, TRACEBACK, beat, busy_state, final, live_events, look_into, record

BIG = "7qk2mzt4w9ha"


def test_a_live_run_is_counted_from_its_events_without_any_bookkeeper() -> None:
    state = State()
    state.put_record(record("a"))
    for sequence, at, event in live_events(batch=5, topic="child", total=100, done=40, errors=2, seconds=10):
        state.apply("a", sequence, at, event, now=at)
    state.beat(beat("w1", {"a": {"child": 7}}), NOW)
    run = state.run("a", NOW)
    assert run is not None
    assert run.counts == Counts(total=100, pending=51, running=7, success=40, error=2)
    assert run.holds
    assert run.folded
    assert run.rate > 0
    assert run.eta


def test_events_that_come_before_their_record_count() -> None:
    state = State()
    for sequence, at, event in live_events(batch=5, topic="child", total=100, done=40, errors=0, seconds=10):
        state.apply("a", sequence, at, event, now=at)
    assert state.run("a", NOW) is None
    state.put_record(record("a"))
    run = state.run("a", NOW)
    assert run is not None
    assert run.counts.success == 40


def test_an_event_that_comes_twice_counts_once() -> None:
    state = State()
    state.put_record(record("a"))
    for _ in range(2):
        for sequence, at, event in live_events(batch=5, topic="child", total=100, done=40, errors=0, seconds=10):
            state.apply("a", sequence, at, event, now=at)
    run = state.run("a", NOW)
    assert run is not None
    assert run.counts.success == 40
    assert run.rate < 40


def test_an_ended_run_takes_its_records_counts_and_costs_no_fold() -> None:
    state = State()
    state.put_record(record("a"))
    assert "a" in state.folds
    state.put_record(final("a", "reindex", ago=60, took=2, success=9, error=1))
    state.apply("a", 9, NOW, events.RunEnded(), now=NOW)
    assert state.folds == {}
    run = state.run("a", NOW)
    assert run is not None
    assert run.status == "failed"
    assert run.rate == pytest.approx(5)


def test_a_run_that_is_older_than_the_history_takes_its_records_counts() -> None:
    state = State()
    state.history_from = NOW - 5
    state.put_record(record("a", counts=Counts(total=8, success=8), seq=3))
    for sequence, at, event in live_events(batch=5, topic="child", total=100, done=40, errors=0, seconds=10):
        state.apply("a", sequence, at, event, now=at)
    run = state.run("a", NOW)
    assert run is not None
    assert run.counts.total == 8
    assert not run.folded


def test_a_fold_that_has_not_caught_up_with_the_record_is_not_shown() -> None:
    state = State()
    state.put_record(record("a", counts=Counts(total=8, success=8), seq=1_000_000))
    for sequence, at, event in live_events(batch=5, topic="child", total=100, done=40, errors=0, seconds=10):
        state.apply("a", sequence, at, event, now=at)
    run = state.run("a", NOW)
    assert run is not None
    assert run.counts.total == 8


def test_a_fold_that_missed_something_is_found_out() -> None:
    state = State()
    state.put_record(record("a"))
    state.apply("a", 7, NOW, events.Opened(parent=(0, 0), nonce="n"), now=NOW)
    state.put_record(record("a", counts=Counts(total=8, success=8), seq=7))
    run = state.run("a", NOW)
    assert run is not None
    assert run.counts.total == 8


def test_an_order_to_stop_is_seen_before_the_record_says_it() -> None:
    state = State()
    state.put_record(record("a"))
    state.apply("a", 7, NOW, events.Interrupted(by="me@here", reason="enough"), now=NOW)
    run = state.run("a", NOW)
    assert run is not None
    assert (run.status, run.interrupted_by, run.interrupt_reason) == ("interrupting", "me@here", "enough")


def test_refused_starts_are_no_runs() -> None:
    state = State()
    state.put_record(record("a", state="starting"))
    state.put_record(record("b", state="aborted"))
    assert state.runs() == []


def test_runs_stand_with_the_newest_first_and_expire() -> None:
    state = State()
    for name, created_at in (("a", 1.0), ("c", 3.0), ("b", 2.0)):
        state.put_record(record(name, created_at=created_at))
    before = state.runs()
    assert before == ["c", "b", "a"]
    state.put_record(record("b", created_at=2.0, seq=9))
    assert state.runs() is before
    state.drop_record("b")
    assert state.runs() == ["c", "a"]
    assert before == ["c", "b", "a"]


def test_of_a_silent_server_nothing_is_claimed_and_afterwards_its_workers_have_time_to_speak() -> None:
    state = State()
    state.put_record(record("a"))
    state.hear(NOW)
    state.beat(beat("w-1", {"a": {"leaf": 3}}), NOW)
    state.beat(beat("w-2", {}), NOW - 4)
    for later, unheard in ((3.0, 0.0), (9.0, 9.0), (120.0, 120.0)):
        truth = state.truth(NOW + later)
        assert (truth.workers, truth.busy, truth.unheard) == (1 if later == 3 else 2, 3, unheard)
        assert state.server_now(NOW + later) == NOW + (0 if unheard else later)
    state.hear(NOW + 120)
    assert (state.truth(NOW + 120).workers, state.truth(NOW + 120).unheard) == (2, 0.0)
    state.hear(NOW + 123)
    assert [worker.silent for worker in state.workers(NOW + 123)] == [False, True]
    state.hear(NOW + 126)
    assert [worker.silent for worker in state.workers(NOW + 126)] == [True, True]


def test_a_silent_worker_runs_nothing_and_is_shown_for_a_minute() -> None:
    state = State()
    state.put_record(record("a"))
    state.beat(beat("w1", {"a": {"reindex": 1}}), NOW)
    assert state.truth(NOW + 4).workers == 1
    assert state.truth(NOW + 6).workers == 0
    assert [worker.silent for worker in state.workers(NOW + 6)] == [True]
    assert state.workers(NOW + 61) == []
    state.beat(beat("w1", {}, leaving=True), NOW + 62)
    assert state.workers(NOW + 62) == []


def test_records_that_stand_still_while_events_come_are_noticed() -> None:
    state = State()
    state.put_record(record("a"))
    state.apply("a", 7, NOW, events.Opened(parent=(0, 0), nonce="n"), now=NOW)
    assert state.truth(NOW + 12).stale == pytest.approx(12)
    run = state.run("a", NOW)
    assert run is not None
    state.put_record(record("a", seq=7, counts=run.counts))
    assert state.truth(NOW + 13).stale == 0


def test_a_server_that_lost_its_last_events_is_folded_anew() -> None:
    state = State()
    state.put_record(record("a"))
    for sequence, at, event in live_events(batch=5, topic="child", total=100, done=40, errors=0, seconds=10):
        state.apply("a", sequence, at, event, now=at)
    state.restart()
    for sequence, at, event in live_events(batch=5, topic="child", total=50, done=10, errors=0, seconds=10):
        state.apply("a", sequence, at, event, now=at)
    run = state.run("a", NOW)
    assert run is not None
    assert (run.counts.total, run.counts.success) == (50, 10)


def test_rates_are_right_although_the_servers_clock_differs() -> None:
    state = State()
    state.put_record(record("a"))
    for sequence, at, event in live_events(batch=5, topic="child", total=9_000, done=4_000, errors=0, seconds=10):
        state.apply("a", sequence, at, event, now=at - 300)
    run = state.run("a", NOW - 300)
    assert run is not None
    assert run.rate > 100


# --- the run that is looked at ------------------------------------------------------------------------


def test_a_detail_keeps_the_last_events_and_errors_only() -> None:
    detail = Detail("a", "reindex", events=50, errors=10)
    for sequence, at, event in live_events(batch=5, topic="child", total=1_000, done=800, errors=40, seconds=10):
        detail.apply(sequence, at, event)
    assert (len(detail.events), len(detail.errors)) == (50, 10)
    assert detail.seen_errors == 40
    assert detail.seen_events > 200
    assert next(iter(detail.errors.values())).task == "5-830"


def test_a_failure_that_is_stored_twice_is_one_error() -> None:
    failed = events.Failed(
        topic="t", task=(5, 1), error="E", message="m", traceback="", attempt=1, worker="w", body=msgspec.Raw(b"{}")
    )
    detail = Detail("a", "reindex")
    detail.apply(1, NOW, failed)
    detail.apply(2, NOW, failed)
    assert (detail.seen_errors, len(detail.errors), detail.seen_events) == (1, 1, 2)


def test_errors_are_kept_readable_and_small() -> None:
    failed = events.Failed(
        topic="t",
        task=(5, 1),
        error="E\x1b[0m",
        message="x" * 100_000,
        traceback=TRACEBACK * 1_000,
        attempt=1,
        worker="w",
        body=msgspec.Raw(b'{"big": "' + b"y" * 500_000 + b'"}'),
    )
    detail = Detail("a", "reindex")
    detail.apply(1, NOW, failed)
    (error,) = detail.errors.values()
    assert error.type == "E[0m"
    assert len(error.message) <= 500
    assert sum(map(len, (*error.traceback, *error.body))) < 50_000


def test_an_ended_runs_record_is_proven_by_folding_its_events() -> None:
    state = State()
    detail = state.detail = Detail("a", "child")
    for sequence, at, event in live_events(batch=5, topic="child", total=10, done=10, errors=0, seconds=10):
        detail.apply(sequence, at, event)
    root = events.DispatcherEnd("reindex", (0, 0), 0, "success", [(5, 10)])
    detail.apply(500, NOW, events.Ended(worker="w", number=9, dispatchers=[root]))
    detail.apply(501, NOW, events.RunEnded())
    detail.caught_up = True
    state.put_record(final("a", "reindex", ago=1, took=9, success=10))
    assert state.agrees("a") is True
    state.put_record(final("a", "reindex", ago=1, took=9, success=11))
    assert state.agrees("a") is False
    assert state.agrees("b") is None


ONE_OF_EACH: list[AnyEvent] = [
    events.Opened(parent=(0, 0), nonce="n", keep=[(3, 4)]),
    events.Sent(batch=5, first=0, count=2_000, topics=["a", "b"]),
    events.Ended(worker="w", number=1, tasks=[events.Ends("a", 5, 0, "success", [(0, 7)])]),
    events.Retrying(topic="a", task=(5, 1), attempt=2, delay=1.5, error="ValueError: no"),
    events.Failed(
        topic="a", task=(5, 1), error="E", message="m", traceback="", attempt=1, worker="w", body=msgspec.Raw(b"1")
    ),
    events.Crashed(worker="w", tasks=[(5, 1), (5, 2)], reason="signal 9"),
    events.Reopened(round=1, tasks=[("a", 5, [(0, 3)])]),
    events.Interrupted(by="me", reason="\x1b[2Jenough"),
    events.RunEnded(interrupted=True),
]


def test_every_kind_of_event_is_said_in_a_line() -> None:
    assert {type(event) for event in ONE_OF_EACH} == set(get_args(AnyEvent))
    said = [event_view(1, NOW, event).text for event in ONE_OF_EACH]
    assert said == [
        "task 0-0 begins to send, keeps 1 batch",
        "batch 5: 0 to 1,999 are queued (a, b)",
        "7 a success by w",
        "a 5-1 comes again in 1.5 s as attempt 2: ValueError: no",
        "a 5-1: E: m",
        "worker w died with 2 tasks: signal 9",
        "round 1 brings 3 tasks back",
        "ordered to stop by me: [2Jenough",
        "the run is over, what was open is interrupted",
    ]


def test_the_numbers_are_the_ledgers_at_every_event() -> None:
    state = State()
    state.put_record(record("a"))
    ledger = Ledger("reindex")
    for sequence, at, event in live_events(batch=5, topic="child", total=1_000, done=700, errors=30, seconds=10):
        state.apply("a", sequence, at, event, now=at)
        ledger.apply(event, sequence, at)
        run = state.run("a", at)
        assert run is not None
        assert (run.counts, run.topics) == ledger.counts()


# --- what is left behind ------------------------------------------------------------------------------


def test_the_summary_names_what_lives() -> None:
    lines = summary(busy_state(), NOW)
    assert lines[0] == "20 runs: 3 live; 15 success, 1 failed, 1 interrupted"
    assert lines[2].startswith("▶ 3fbn81xcp6te import-csv  running  1,014 success")
    assert len(lines) == 4


def test_the_summary_of_one_run_is_that_run() -> None:
    (said,) = summary(busy_state(), NOW, "ya6m2pdk83fs")
    assert said == "✗ ya6m2pdk83fs reindex  failed  4,988 success, 12 error"


@pytest.mark.parametrize(
    ("run_id", "code"),
    [("w3thc90xgv5r", 0), ("ya6m2pdk83fs", 1), ("jzx40we9bqn1", 5), (BIG, 0), ("unknown", 0), (None, 0)],
)
def test_the_exit_code_is_that_of_the_watched_run(run_id: str | None, code: int) -> None:
    assert exit_code(look_into(busy_state()), NOW, run_id) == code


def test_the_lag_is_of_events_that_flow_and_not_of_what_is_read_from_long_ago() -> None:
    state = State()
    state.put_record(record("a"))
    state.apply("a", 1, NOW - 5, events.Opened(parent=(0, 0), nonce="n"), NOW - 5)
    state.apply("a", 2, NOW - 1, events.Sent(batch=1, first=0, count=1, topics=["leaf"]), NOW)
    assert state.truth(NOW).lag == pytest.approx(1.0)
    assert state.truth(NOW + 10).lag == 0.0


def test_what_was_stored_long_ago_says_nothing_about_clocks() -> None:
    state = State()
    state.put_record(record("a"))
    state.reads_anew()
    state.apply("a", 1, NOW - 60, events.Opened(parent=(0, 0), nonce="n"), NOW)
    assert not state.truth(NOW).abreast
    state.has_read()
    state.apply("a", 2, NOW + 2, events.Sent(batch=1, first=0, count=1, topics=["leaf"]), NOW + 3)
    assert (state.skew, state.truth(NOW + 3).abreast) == (-1.0, True)
