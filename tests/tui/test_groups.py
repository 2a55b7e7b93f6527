"""Errors by what they have in common, over a whole life; stragglers; forecasts; the story of a task."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import msgspec
import pytest

from corral import events
from corral.events import bucket
from corral.ledger import Counts
from corral_tui.code import trace_line
from corral_tui.columns import error_columns, group_columns
from corral_tui.fold import Detail
from corral_tui.forecast import forecast, stalled_for
from corral_tui.groups import Groups, normal, place
from corral_tui.pulse import Pulse
from corral_tui.rows import error_row, group_row
from corral_tui.spans import Line, plain
from corral_tui.story import Story
from corral_tui.timeline import WIDTH, Timeline
from corral_tui.values import RunView
from corral_tui.view import error_lines
from tests.tui.scenes import NOW, TRACEBACK


def failed(ordinal: int, message: str = "no row 7", *, error: str = "Missing", round: int = 0) -> events.Failed:
    return events.Failed(
        topic="leaf",
        task=(1, ordinal),
        error=error,
        message=message,
        traceback=TRACEBACK,
        attempt=1,
        worker="w",
        body=msgspec.Raw(b"{}"),
        round=round,
    )


def ended(ordinal: int, outcome: events.Outcome = "error", *, round: int = 0, number: int = 0) -> events.Ended:
    return events.Ended(
        worker="w", number=number, tasks=[events.Ends("leaf", 1, round, outcome, [(ordinal, ordinal + 1)])]
    )


def started(count: int = 10) -> Detail:
    detail = Detail("a", "root")
    detail.apply(1, NOW, events.Opened(parent=(0, 0), nonce="n"))
    detail.apply(2, NOW, events.Sent(batch=1, first=0, count=count, topics=["leaf"]))
    return detail


def standing(detail: Detail) -> dict[str, int]:
    ledger = detail.fold.ledger
    return {f"{group.type} {group.normal}": group.count for group in detail.groups.views(ledger.tree, ledger.sequence)}


def test_errors_that_differ_in_numbers_and_quotes_are_one_group() -> None:
    detail = started()
    for ordinal, message in enumerate(("no row 7 in 'a'", "no row 12345 in 'b'", "no column 3")):
        detail.apply(10 + 2 * ordinal, NOW + ordinal, failed(ordinal, message))
        detail.apply(11 + 2 * ordinal, NOW + ordinal, ended(ordinal, number=ordinal))
    assert standing(detail) == {"Missing no row # in #": 2, "Missing no column #": 1}


def test_a_retry_takes_tasks_out_and_what_fails_again_may_fail_otherwise() -> None:
    detail = started(1)
    detail.apply(10, NOW, failed(0))
    detail.apply(11, NOW, ended(0))
    root = events.DispatcherEnd("root", (0, 0), 0, "success", [(1, 1)])
    detail.apply(12, NOW, events.Ended(worker="w", number=1, dispatchers=[root]))
    detail.apply(13, NOW, events.RunEnded())
    detail.apply(14, NOW, events.Reopened(round=1, tasks=[("leaf", 1, [(0, 1)])]))
    assert standing(detail) == {"Missing no row #": 0}
    before = detail.errors["1-0/0"]
    (group,) = detail.group_views()
    assert "↻ retried" in _row(error_row(before, error_columns(80), retried=detail.retried(before)))
    assert "↻ retried" not in _row(error_row(before, error_columns(80), retried=False))
    assert "↻ retried" in _row(group_row(group, group_columns(80), retried=detail.retried(group.sample)))
    assert "of an earlier round" in "".join(map(plain, error_lines(before, retried=True)))
    detail.apply(15, NOW, failed(0, "other", round=1))
    detail.apply(16, NOW, ended(0, round=1, number=2))
    assert standing(detail) == {"Missing no row #": 0, "Missing other": 1}


def _row(cells: Sequence[Line]) -> str:
    return " ".join(map(plain, cells))


def test_a_task_that_fails_twice_in_a_round_is_counted_once() -> None:
    groups = Groups()
    assert groups.apply(NOW, failed(0)) is not None
    assert groups.apply(NOW, failed(0, "something else")) is None
    assert len(groups) == 1


def test_a_storm_of_kinds_takes_no_room() -> None:
    groups = Groups(most=3)
    for ordinal in range(50):
        groups.apply(NOW, failed(ordinal, f"kind {chr(97 + ordinal)}"))
    assert len(groups) == 4


def test_the_place_is_the_last_frame_of_ones_own() -> None:
    assert place(TRACEBACK.splitlines()) == "table.py:112 in fetch"
    library = '  File "/v/lib/python3.11/site-packages/http/client.py", line 3, in get'
    assert place([*TRACEBACK.splitlines(), library]) == "table.py:112 in fetch"
    assert place([library]) == "client.py:3 in get"
    assert place([]) == ""
    assert normal("0xdeadbeef at 12 'x'") == "# at # #"


def test_a_timeline_keeps_its_sum_and_its_width() -> None:
    timeline = Timeline()
    for second in (0, 1, 5, 100, 3_600, 86_400, 90_000, 40):
        timeline.add(NOW + second, 2)
    assert sum(timeline.columns()) == 16
    assert len(timeline.columns()) <= WIDTH


def test_syntax_colours_keep_the_text_as_it_is() -> None:
    for text in (
        *TRACEBACK.splitlines(),
        '    x = f"[bold]{a!r}" if b else None  # why',
        "    'unclosed",
        "",
        "    \\",
    ):
        assert plain(trace_line(text)) == text
    roles = dict(trace_line("    return fetch(12, 'a')  # why"))
    assert (roles["return"], roles["fetch"], roles["12"], roles["'a'"]) == (
        "code-keyword",
        "code-name",
        "code-number",
        "code-string",
    )


# --- stragglers ---------------------------------------------------------------------------------------


def test_what_was_overtaken_long_ago_is_a_straggler() -> None:
    detail = started(100)
    durations = [(bucket(0.01), 50)]
    first = events.Ended(
        worker="w", number=0, tasks=[events.Ends("leaf", 1, 0, "success", [(0, 3), (4, 60)])], durations=durations
    )
    detail.apply(3, NOW, first)
    assert detail.stragglers(NOW + 2).count == 0
    late = detail.stragglers(NOW + 20)
    assert (late.count, dict(late.tasks)[1].count(), 3 in late.tasks[1]) == (1, 1, True)
    detail.apply(4, NOW + 21, events.Retrying(topic="leaf", task=(1, 3), attempt=2, delay=60.0))
    assert detail.stragglers(NOW + 30).count == 0


def test_what_a_retry_brings_back_is_no_straggler_and_does_not_stall_at_once() -> None:
    detail = started(100)
    ends = events.Ends("leaf", 1, 0, "error", [(0, 100)])
    detail.apply(3, NOW, events.Ended(worker="w", number=0, tasks=[ends], durations=[(bucket(0.01), 100)]))
    root = events.DispatcherEnd("root", (0, 0), 0, "success", [(1, 100)])
    detail.apply(4, NOW, events.Ended(worker="w", number=1, dispatchers=[root]))
    detail.apply(5, NOW, events.RunEnded())
    detail.apply(6, NOW + 100, events.Reopened(round=1, tasks=[("leaf", 1, [(0, 100)])]))
    again = events.Ends("leaf", 1, 1, "success", [(90, 91)])
    ledger, pulse = detail.fold.ledger, detail.fold.pulse
    assert stalled_for(run(pending=100, running=0), pulse, ledger, NOW + 105) is None
    assert stalled_for(run(pending=100, running=0), pulse, ledger, NOW + 115) == pytest.approx(15)
    detail.apply(7, NOW + 116, events.Ended(worker="w", number=2, tasks=[again]))
    assert detail.stragglers(NOW + 150).count == 0


def test_parts_of_a_retry_that_come_again_reset_neither_stragglers_nor_what_stalls() -> None:
    detail = started(100)
    ends = events.Ends("leaf", 1, 0, "error", [(0, 100)])
    detail.apply(3, NOW, events.Ended(worker="w", number=0, tasks=[ends], durations=[(bucket(0.01), 100)]))
    root = events.DispatcherEnd("root", (0, 0), 0, "success", [(1, 100)])
    detail.apply(4, NOW, events.Ended(worker="w", number=1, dispatchers=[root]))
    detail.apply(5, NOW, events.RunEnded())
    parts = [
        events.Reopened(round=1, tasks=[("leaf", 1, [span])], part=part, parts=2, digest="d")
        for part, span in enumerate([(0, 50), (50, 100)])
    ]
    ledger, pulse = detail.fold.ledger, detail.fold.pulse
    detail.apply(6, NOW + 100, parts[0])
    assert pulse.resumed_at == 0
    detail.apply(7, NOW + 101, parts[1])
    assert pulse.resumed_at == NOW + 101
    # What it sends anew is handed out in order again.
    detail.apply(8, NOW + 102, events.Opened(parent=(1, 60), nonce="m"))
    detail.apply(9, NOW + 102, events.Sent(batch=8, first=0, count=50, topics=["leaf"]))
    again = events.Ends("leaf", 8, 1, "success", [(0, 3), (4, 40)])
    detail.apply(10, NOW + 103, events.Ended(worker="w", number=2, tasks=[again]))
    detail.apply(11, NOW + 114, parts[0])
    assert stalled_for(run(pending=100, running=0), pulse, ledger, NOW + 115) == pytest.approx(12)
    assert detail.fronts.tops() == {(8, "leaf"): 40}


def test_who_is_behind_with_the_events_does_not_call_a_run_stalled() -> None:
    ledger, pulse = started(100).fold.ledger, steady(40, until=30)
    waits = run(pending=100, running=0)
    assert stalled_for(waits, pulse, ledger, NOW) is not None
    ahead = dataclasses.replace(waits, sequence=ledger.sequence + 1)  # by the record
    assert stalled_for(ahead, pulse, ledger, NOW) is None


# --- forecasts ----------------------------------------------------------------------------------------


def run(*, pending: int = 1_000, running: int = 10, retrying: int = 0) -> RunView:
    counts = Counts(total=pending + running, pending=pending, running=running, retrying=retrying)
    return RunView(
        id="a", topic="t", status="running", counts=counts, topics={}, created_at=NOW - 60, started_at=NOW - 60
    )


def steady(per_second: int, seconds: int = 60, until: float = 0.0) -> Pulse:
    pulse = Pulse()
    for step in range(seconds * 4):
        pulse.add(NOW - until - step / 4, per_second // 4)
    return pulse


def test_a_steady_pace_has_a_narrow_interval() -> None:
    found = forecast(run(), steady(400), NOW)
    assert found is not None
    assert found.low <= found.likely <= found.high
    assert found.likely == pytest.approx(2.5, rel=0.1)
    assert found.high - found.low < 1


def test_after_a_retry_only_the_pace_since_counts() -> None:
    pulse = steady(400, until=1.5)
    pulse.resumed_at = NOW - 1.25
    assert forecast(run(), pulse, NOW) is None
    assert pulse.rate(NOW) == 0
    assert pulse.rate(NOW, 10.0) == 0
    for step in range(4):
        pulse.add(NOW - (step + 1) / 4, 10)
    found = forecast(run(), pulse, NOW)
    assert found is not None
    assert 20 < found.likely < 60  # at the pace before it would be 3


def test_few_ends_have_a_wide_one() -> None:
    pulse = Pulse()
    pulse.add(NOW - 8, 2)
    found = forecast(run(), pulse, NOW)
    assert found is not None
    assert math.isinf(found.high)


def test_nothing_is_promised_while_nothing_ends() -> None:
    assert forecast(run(), Pulse(), NOW) is None
    assert forecast(run(), steady(400, until=60), NOW) is None


@pytest.mark.parametrize(
    ("view", "usual", "stalled"),
    [
        (run(), 0.1, True),
        (run(), 60.0, False),
        (run(running=0), 0.1, True),
        (run(pending=5, running=0, retrying=5), 0.1, False),
    ],
)
def test_stalled_is_said_where_nothing_ends_that_should(view: RunView, usual: float, stalled: bool) -> None:
    ledger = Detail("a", "t").fold.ledger
    ledger.durations = {bucket(usual): 100}
    assert (stalled_for(view, steady(40, until=30), ledger, NOW) is not None) == stalled


# --- the story of a task ------------------------------------------------------------------------------


def test_the_story_of_a_task_is_what_is_stored_about_it_and_nothing_else() -> None:
    story = Story((1, 3))
    story.apply(1, NOW, events.Opened(parent=(0, 0), nonce="n"))
    story.apply(2, NOW, events.Sent(batch=1, first=0, count=5, topics=["a", "b"], layout="00010"))
    story.apply(3, NOW, events.Sent(batch=1, first=5, count=9, topics=["a"]))
    story.apply(4, NOW, events.Retrying(topic="b", task=(1, 3), attempt=2, delay=1.5, error="Busy"))
    story.apply(5, NOW, events.Retrying(topic="b", task=(1, 4), attempt=2, delay=1.5))
    story.apply(6, NOW, events.Crashed(worker="w9", tasks=[(1, 3)], reason="signal 9"))
    story.apply(7, NOW, failed(3))
    story.apply(8, NOW, ended(3))
    story.apply(9, NOW, ended(4))
    assert [(step.sequence, step.kind) for step in story.steps] == [
        (1, "batch"),
        (2, "queued"),
        (4, "retrying"),
        (6, "crashed"),
        (7, "failed"),
        (8, "ended"),
    ]
    assert story.steps[1].text == "b is in the queue"
    assert story.steps[-1].text == "error on w"
    assert len(story.errors) == 1
