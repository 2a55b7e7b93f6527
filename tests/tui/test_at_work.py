"""What workers say that they execute for longest: on the workers' screen, on a run, in its map, and on a task."""

from __future__ import annotations

import re

import msgspec
import pytest

from corral import events
from corral.ledger import Counts, Ledger
from corral.messages import TaskId
from corral.runs import LONGEST, Beat, Execution
from corral_tui.crew import summary_lines, worker_lines
from corral_tui.fold import Detail
from corral_tui.spans import plain
from corral_tui.state import State
from corral_tui.taskmap import RUNNING, TaskMap
from corral_tui.values import Link, WorkerView
from tests.tui.drawn import Stage, dashboard
from tests.tui.scenes import NOW, PlainSource, beat, live_events, record


def named(*tasks: tuple[int, float], run: str = "a") -> list[Execution]:
    return [Execution(run, "leaf", (1, ordinal), seconds) for ordinal, seconds in tasks]


def worker(heard: Beat, *, ago: float = 0.0) -> WorkerView:
    state = State()
    state.beat(heard, NOW - ago)
    (found,) = state.workers(NOW)
    return found


def pane(view: WorkerView) -> list[str]:
    return [plain(line) for line in worker_lines(view, NOW)]


def small_run() -> PlainSource:
    """A run of fifty tasks; forty have ended, and two of the others are named by a worker."""
    state = State()
    state.put_record(record("a", "root", claim=(0, 1)))
    detail = state.detail = Detail("a", "root")
    for sequence, at, event in live_events(batch=1, topic="leaf", total=50, done=40, errors=0, seconds=30):
        state.apply("a", sequence, at, event, now=at)
        detail.apply(sequence, at, event)
    detail.caught_up = True
    state.beat(beat("w-1", {"a": {"leaf": 3}}, longest=named((45, 61.0), (42, 3.0))), NOW - 0.5)
    state.beat(beat("w-2", {"a": {"leaf": 1}}), NOW - 0.5)
    return PlainSource(state)


def test_the_longest_are_named_with_their_age_by_now() -> None:
    view = worker(beat("w-1", {"a": {"leaf": 5}}, longest=named((45, 60.0), (7, 2.0))), ago=1.0)
    said = pane(view)
    assert re.search(r"1 m 1 s  ━{20}  1-45  leaf  a", "\n".join(said))
    assert re.search(r"   3\.0 s  ━ {19}  1-7   leaf  a", "\n".join(said))
    assert said[-1] == "3 others, each for less than 2.0 s"  # a second, and what has passed since the heartbeat


def test_of_many_that_take_long_only_the_longest_are_named_and_all_others_are_younger() -> None:
    longest = named(*((number, 90.0 - number) for number in range(LONGEST)))
    assert pane(worker(beat("w-1", {"a": {"leaf": 40}}, longest=longest)))[-1] == (
        "30 others, each for less than 1 m 21 s"
    )


def test_where_nothing_takes_long_that_is_said() -> None:
    assert pane(worker(beat("w-1", {"a": {"leaf": 5}})))[-1] == "each for less than a second"
    assert pane(worker(beat("w-1", {})))[-1] == "nothing to do"


def test_a_silent_worker_is_shown_as_it_was_last_heard() -> None:
    heard = beat("w-1", {"a": {"leaf": 1}}, longest=named((45, 60.0)))
    assert any("1 m  ━" in text for text in pane(worker(heard, ago=30.0)))


async def test_while_the_server_is_away_nothing_grows_older() -> None:
    source = small_run()
    source.state.hear(NOW)
    async with dashboard(source, run_id="a") as stage:
        source.state.link = Link(phase="offline", since=NOW, ready=True)
        for _ in range(2):
            await stage.tick(30)
            assert "longest 1 m" in stage.text()
            assert "1 m 30 s" not in stage.text()


async def test_the_pace_stands_still_as_soon_as_the_server_is_away() -> None:
    source = small_run()
    source.state.hear(NOW)
    run = source.state.run("a", NOW)
    assert run is not None
    assert run.rate > 0
    source.state.link = Link(phase="offline", since=NOW, ready=True)
    for seconds in (0.5, 3, 60):
        later = source.state.run("a", NOW + seconds)
        assert later is not None
        assert later.rate == run.rate


def test_more_than_a_heartbeat_may_name_is_not_taken() -> None:
    longest = named(*((number, 5_000.0 - number) for number in range(3_000)))
    assert len(worker(beat("w-1", {"a": {"leaf": 1}}, longest=longest)).longest) == LONGEST


# --- who told a worker to leave -------------------------------------------------------------------------


@pytest.mark.parametrize(("by", "said"), [("ana@ws1", "to drain by ana@ws1"), ("", "to drain: its pool ends")])
def test_everybody_sees_who_told_a_worker_to_leave(by: str, said: str) -> None:
    view = worker(beat("w-1", {}, leaves="drain", leaves_by=by))
    assert f"told {said}" in pane(view)
    above = " ".join(map(plain, summary_lines([view], None, 118)))
    assert ("1 leaves, told by ana@ws1: nothing new" in above) is bool(by)


@pytest.mark.parametrize("width", [58, 78, 118])
def test_what_is_wrong_with_workers_is_told_whole_at_every_width(width: int) -> None:
    state = State()
    state.beat(beat("w-1", {"a": {"leaf": 1}}, blocked=12.0, blocked_by="leaf a 1-1"), NOW)
    state.beat(beat("w-2", {"a": {"leaf": 1}}), NOW - 20)
    state.beat(beat("w-3", {}, leaves="stop", leaves_by="ana@ws1"), NOW)
    state.beat(beat("w-4", {}, waiting=3), NOW)
    for number in range(6):
        state.beat(beat(f"p{number}-1", {}, pool=f"p{number}"), NOW)
    above = [plain(line) for line in summary_lines(state.workers(NOW), "p5", width)]
    assert max(map(len, above)) <= width
    whole = " ".join(above)
    for part in (
        "1 BLOCKED: nothing else moves there",
        "1 silent: taken for dead, their tasks run elsewhere",
        "1 leaves, told by ana@ws1: nothing new is taken there",
        "the queue is full: 3 tasks that send wait for room",
        "p5 on ws1: 1 worker, 0/100, keeps the books",
        "and 3 more pools",
    ):
        assert part in whole


# --- a run ----------------------------------------------------------------------------------------------


async def test_a_run_says_for_how_long_its_longest_task_is_executed_and_where() -> None:
    async with dashboard(small_run(), run_id="a") as stage:
        assert "longest 1 m 1 s" in stage.text()
        await stage.press("4")
        assert re.search(r"w-1 .* 1 m 1 s  1-45  leaf", stage.line_with(" w-1 "))
        assert "1-" not in stage.line_with(" w-2 ").replace("ws1-", "")
        await stage.tick(1.0)
        assert "longest 1 m 2 s" in stage.text()


async def test_what_a_worker_names_is_running_in_the_map_and_on_the_task() -> None:
    async with dashboard(small_run(), run_id="a") as stage:
        await go_to(stage, 45)
        assert "task 1-45   in work on w-1 for 1 m 1 s" in stage.text()
        assert stage.lines()[12].strip()[40:] == "··▶··+····"
        await stage.press("enter")
        assert "▶ in work on w-1 for 1 m 1 s   leaf" in stage.text()
        # It has ended, and the next heartbeat, which names something else, is on its way.
        end = events.Ended(worker="w-1", number=99, tasks=[events.Ends("leaf", 1, 0, "success", [(45, 46)])])
        for fold in (stage.source.state.folds["a"], stage.source.state.detail):
            assert fold is not None
            fold.apply(999, NOW, end)
        await stage.tick(0.3)
        assert "✓ success   leaf" in stage.text()


async def go_to(stage: Stage, place: int) -> None:
    await stage.press(*["right"] * place)


def test_names_of_what_is_not_there_or_has_ended_change_nothing() -> None:
    ledger = Ledger("root")
    for sequence, at, event in live_events(batch=1, topic="leaf", total=50, done=40, errors=0, seconds=30):
        ledger.apply(event, sequence, at)
    tasks = TaskMap()
    forged: list[TaskId] = [(1, 3), (1, 45), (1, 50), (1, 2**50), (7, 1), (0, 0), (1, -3)]
    tasks.update(ledger, {}, forged)
    assert [place for place in range(50) if tasks.state(place) == RUNNING] == [45]
    assert (tasks.tally(0, 50).running, tasks.tally(0, 50).pending) == (1, 9)


async def test_beside_what_runs_already_no_time_is_forecast() -> None:
    source = small_run()
    state = source.state
    done = events.Ended(worker="w-1", number=98, tasks=[events.Ends("leaf", 1, 0, "success", [(40, 46)])])
    state.apply("a", 990, NOW - 1, done, now=NOW - 1)
    run = state.run("a", NOW)
    assert run is not None
    assert (run.counts.pending, run.counts.running, run.eta) == (0, 4, None)


async def test_a_run_that_is_gone_offers_only_what_there_is_to_do() -> None:
    source = small_run()
    async with dashboard(source, (80, 24), run_id="a") as stage:
        assert "enter open" in stage.lines()[-1]
        gone = source.state.records["a"]
        source.state.drop_record("a")
        await stage.tick()
        assert stage.lines()[-1].split("  ") == [" esc back", " w workers", " ? help", " q quit"]
        await stage.press("3", "left_square_bracket", "i", "r")
        assert "run a is not read yet" in stage.text()
        source.state.put_record(msgspec.structs.replace(gone))
        await stage.tick()
        assert "next bad" in stage.lines()[-1]


async def test_all_that_is_shown_of_a_run_is_from_one_fold_and_adds_up() -> None:
    """Its events come twice: with those of all runs, and by themselves, a moment sooner or later."""
    source = small_run()
    state = source.state
    failed = events.Failed(
        topic="leaf",
        task=(1, 42),
        error="E",
        message="m",
        traceback="",
        attempt=1,
        worker="w-1",
        body=msgspec.Raw(b"1"),
    )
    end = events.Ended(worker="w-1", number=97, tasks=[events.Ends("leaf", 1, 0, "error", [(42, 43)])])
    for sequence, event in ((1_001, failed), (1_002, end)):
        state.apply("a", sequence, NOW, event, now=NOW)
    detail = state.detail
    assert detail is not None
    async with dashboard(source, run_id="a") as stage:
        assert "0 error" in stage.text()
        assert "Errors 1" not in stage.text()
        state.put_record(msgspec.structs.replace(state.records["a"], seq=1_002, counts=Counts(total=50, error=1)))
        await stage.tick()
        assert "1 error" in stage.text()  # what is recorded already is not held back
        assert "reading events" in stage.text()
        for sequence, event in ((1_001, failed), (1_002, end)):
            detail.apply(sequence, NOW, event)
        await stage.tick(1.0)
        assert "Errors 1 in 1 group" in stage.text()
        assert "reading events" not in stage.text()


async def test_enter_on_a_worker_opens_the_task_that_takes_longest() -> None:
    async with dashboard(small_run()) as stage:
        await stage.press("w")
        assert stage.lines()[-1].startswith(" enter open")
        await stage.press("enter")
        assert "task 1-45  of  root  a" in stage.text()
        assert "in work on w-1" in stage.text()
        await stage.press("escape", "j")
        await stage.tick()
        assert "enter" not in stage.lines()[-1]  # there is none
        await stage.press("enter")
        assert "Workers" in stage.text()


async def test_the_story_of_a_task_is_read_again_when_it_goes_on_and_only_then() -> None:
    source = small_run()
    async with dashboard(source, run_id="a") as stage:
        await go_to(stage, 45)
        await stage.press("enter")
        await stage.tick(1)
        await stage.tick(1)
        assert source.told == [("a", (1, 45))]
        detail = source.state.detail
        assert detail is not None
        other, end = (
            events.Ended(worker="w-1", number=number, tasks=[events.Ends("leaf", 1, 0, "success", [(task, task + 1)])])
            for number, task in ((98, 44), (99, 45))
        )
        detail.apply(998, NOW, other)
        await stage.tick(1)
        assert len(source.told) == 1
        detail.apply(999, NOW, end)
        source.stored = [(999, NOW, end)]
        await stage.tick(1)
        await stage.tick(1)
        assert source.told == [("a", (1, 45))] * 2
        assert "success on w-1" in stage.text()


async def test_doctor_on_a_task_is_about_its_run() -> None:
    source = small_run()
    async with dashboard(source, run_id="a") as stage:
        await go_to(stage, 45)
        await stage.press("enter", "d")
        assert source.diagnosed == ["a"]
