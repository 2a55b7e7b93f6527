"""A retry of some errors of a run: of groups, of single ones, of the task whose story is read."""

from __future__ import annotations

import msgspec
import pytest

from corral import events
from corral.errors import SelectionTooLarge
from corral_tui.screens.replay import ReplayScreen
from corral_tui.screens.task import TaskScreen
from tests.tui.drawn import Stage, dashboard
from tests.tui.scenes import NOW, PlainSource
from tests.tui.shots import BATCH, STOPPED, big_run, ended_story, mixed_run, partly_retried, stopped_run


def names(*ordinals: int) -> tuple[str, ...]:
    return tuple(f"{BATCH}-{ordinal}" for ordinal in ordinals)


MISSING, TIMEOUT, KILLED = names(*range(4_988, 4_994)), names(*range(4_994, 4_998)), names(4_998, 4_999)


async def came_back(stage: Stage, count: int) -> None:
    assert stage.source.brought_back is not None
    stage.source.brought_back.set_result(count)
    await stage.pilot.pause()
    await stage.tick()


def bring_back(source: PlainSource, first: int, last: int) -> None:
    """A retry has brought these tasks back, and they have succeeded."""
    detail = source.state.detail
    assert detail is not None
    ends = events.Ends("thumbnail", BATCH, 1, "success", [(first, last)])
    told: list[events.AnyEvent] = [
        events.Reopened(round=1, tasks=[("thumbnail", BATCH, [(first, last)])]),
        events.Ended(worker="ws1-4021-3", number=9_001, tasks=[ends]),
        events.RunEnded(round=1, status="failed"),
    ]
    for event in told:
        detail.apply(detail.fold.ledger.sequence + 1, NOW - 300, event)


# --- groups -----------------------------------------------------------------------------------------------


async def test_a_group_is_asked_about_with_its_impact_and_the_default_is_no() -> None:
    async with dashboard(mixed_run(), run_id=STOPPED) as stage:
        await stage.press("3", "j")
        assert "r retry group" in stage.lines()[-1]
        await stage.press("r")
        assert f"Retry 4 tasks of thumbnails {STOPPED}?" in stage.text()
        assert "brings back 4 of 12 errors; the others stay as they ended" in stage.text()
        assert "4  TimeoutError  no answer within # s" in stage.text()
        assert "[ No ]" in stage.text()
        await stage.press("enter")
        assert stage.source.retried == []


async def test_yes_brings_the_group_back_and_no_others() -> None:
    async with dashboard(mixed_run(), run_id=STOPPED) as stage:
        await stage.press("3", "j", "r", "y")
        assert (stage.source.retried, stage.source.selected) == ([STOPPED], [TIMEOUT])
        await came_back(stage, 4)
        assert f"↻ thumbnails {STOPPED}  4 tasks brought back" in stage.text()


async def test_marked_groups_are_brought_back_together() -> None:
    async with dashboard(mixed_run(), run_id=STOPPED) as stage:
        await stage.press("3", "j", "space", "space")
        await stage.tick()
        assert "2 groups marked" in stage.text()
        assert "esc clear marks" in stage.lines()[-1]
        await stage.press("r")
        assert "brings back 6 of 12 errors" in stage.text()
        assert "2  Killed" in stage.text()
        await stage.press("y")
        assert stage.source.selected == [(*TIMEOUT, *KILLED)]


async def test_marks_of_what_has_come_back_are_gone() -> None:
    async with dashboard(mixed_run(), run_id=STOPPED) as stage:
        await stage.press("3", "asterisk", "e", "G", "k", "space", "space")
        await stage.tick()
        assert "2 errors marked" in stage.text()
        bring_back(stage.source, 4_988, 4_994)
        await stage.tick()
        await stage.tick()
        assert "marked" not in stage.text()
        await stage.press("escape")
        await stage.tick()
        assert "2 groups marked" in stage.text()
        assert "r retries the marked ones" in stage.text()
        await stage.press("escape")
        await stage.tick()
        assert "r retries only this group" in stage.text()


async def test_esc_clears_marks_before_it_goes_back() -> None:
    async with dashboard(mixed_run(), run_id=STOPPED) as stage:
        await stage.press("3", "asterisk")
        assert "3 groups marked" in stage.text()
        await stage.press("escape")
        assert "marked" not in stage.text()
        assert "TimeoutError" in stage.text()
        await stage.press("r", "escape", "escape")
        assert stage.line_with("7qk2mzt4")
        assert stage.source.retried == []


async def test_on_other_tabs_and_without_errors_it_is_the_whole_run() -> None:
    async with dashboard(mixed_run(), run_id=STOPPED) as stage:
        assert "r retry  " in f"{stage.lines()[-1]}  "
        await stage.press("r")
        assert "brings back 12 errors; 4,988 stay done" in stage.text()
        await stage.press("y")
        assert (stage.source.retried, stage.source.selected) == ([STOPPED], [None])


# --- single errors ----------------------------------------------------------------------------------------


async def test_in_a_group_it_is_the_task_under_the_cursor() -> None:
    async with dashboard(mixed_run(), run_id=STOPPED) as stage:
        await stage.press("3", "j", "enter", "g", "j", "r")
        assert f"Retry 1 task of thumbnails {STOPPED}?" in stage.text()
        assert f"brings back task {TIMEOUT[-2]}, one of 12 errors; the others stay as" in stage.text()
        await stage.press("y")
        assert stage.source.selected == [TIMEOUT[-2:-1]]


async def test_marked_errors_are_brought_back_together() -> None:
    async with dashboard(mixed_run(), run_id=STOPPED) as stage:
        await stage.press("3", "e", "space", "j", "space")
        await stage.tick()
        assert "2 errors marked" in stage.text()
        await stage.press("r")
        assert "brings back 2 of 12 errors" in stage.text()
        await stage.press("y")
        assert stage.source.selected == [(KILLED[1], TIMEOUT[-1])]  # the newest stand first


async def test_what_a_retry_has_brought_back_is_marked_task_by_task() -> None:
    async with dashboard(partly_retried(), (200, 50), run_id=STOPPED) as stage:
        await stage.press("3", "e")
        marked = [line for line in stage.lines() if "↻ retried" in line]
        assert [next(name for name in MISSING if name in line) for line in marked] == [MISSING[1], MISSING[0]]
        assert len([line for line in stage.lines() if MISSING[1] in line and "no row" in line]) == 2  # it failed again
        await stage.press("escape")
        assert stage.line_with("no row # in").split()[:2] == ["▌", "5"]
        assert "↻ retried" not in stage.text()


async def test_an_error_that_does_not_stand_any_more_brings_nothing_back() -> None:
    async with dashboard(partly_retried(), run_id=STOPPED) as stage:
        await stage.press("3", "e", "G")
        assert MISSING[0] in stage.cursor_line()
        await stage.press("r")
        assert "nothing to bring back" in stage.text()
        assert stage.source.retried == []


# --- the story of a task ----------------------------------------------------------------------------------


async def test_the_task_whose_story_is_read_can_come_back_alone() -> None:
    async with dashboard(mixed_run(), run_id=STOPPED) as stage:
        await stage.tick(1)
        await stage.press("n", "enter", "enter")
        assert isinstance(stage.app.screen, TaskScreen)
        assert "r retry task" in stage.lines()[-1]
        await stage.press("r")
        assert f"brings back task {MISSING[0]}, one of 12 errors; the others stay as" in stage.text()
        await stage.press("y")
        assert stage.source.selected == [MISSING[:1]]
        await came_back(stage, 1)
        assert "1 task brought back" in stage.text()
        assert len(stage.source.told) == 1
        bring_back(stage.source, 4_988, 4_989)
        await stage.tick()
        assert len(stage.source.told) == 2  # what has become of it is read
        assert "retry" not in stage.lines()[-1]


async def test_an_interrupted_task_comes_back_by_who_has_sent_it() -> None:
    async with dashboard(stopped_run(), run_id=STOPPED) as stage:
        stage.app.push_screen(TaskScreen(STOPPED, (BATCH, 4_000)))
        await stage.pilot.pause()
        await stage.press("r")
        assert f"brings back task {BATCH}-4000, one of 2,000 interrupted, and who" in stage.text()


@pytest.mark.parametrize("task", [(BATCH, 7), (BATCH, 70_000)])
async def test_a_task_that_has_succeeded_or_is_not_known_is_not_retried(task: tuple[int, int]) -> None:
    async with dashboard(mixed_run(), run_id=STOPPED) as stage:
        stage.app.push_screen(TaskScreen(STOPPED, task))
        await stage.pilot.pause()
        assert "retry" not in stage.lines()[-1]
        await stage.press("r")
        assert "Retry" not in stage.text()


# --- where nothing may be retried -------------------------------------------------------------------------


async def test_read_only_hides_it_everywhere() -> None:
    async with dashboard(mixed_run(), run_id=STOPPED, read_only=True) as stage:
        for keys in ("3", "enter"):
            await stage.press(keys)
            assert "retry" not in stage.lines()[-1]
            await stage.press("r")
            assert "Retry" not in stage.text()
        stage.app.push_screen(TaskScreen(STOPPED, (BATCH, 4_988)))
        await stage.pilot.pause()
        await stage.press("r")
        assert "Retry" not in stage.text()
        assert "retry" not in stage.lines()[-1]


async def test_a_live_run_has_nothing_to_retry() -> None:
    async with dashboard(big_run(), run_id="7qk2mzt4w9ha") as stage:
        await stage.press("3")
        assert "retry" not in stage.lines()[-1]
        await stage.press("r", "enter", "r")
        assert "Retry" not in stage.text()


async def test_nothing_is_retried_of_a_replay() -> None:
    source = mixed_run()
    source.stored = list(ended_story(done=4_988, errors=12, seconds=42))
    async with dashboard(source, run_id=STOPPED) as stage:
        await stage.press("left_square_bracket")
        await stage.tick(1)
        await stage.press("9", "3")
        await stage.tick(1)
        assert isinstance(stage.app.screen, ReplayScreen)
        assert "Errors 12" in stage.text()
        for key in ("r", "enter"):
            assert "retry" not in stage.lines()[-1]
            await stage.press(key)
        assert "Retry" not in stage.text()


async def test_errors_that_are_still_being_read_are_not_asked_about() -> None:
    async with dashboard(mixed_run(), run_id=STOPPED) as stage:
        assert stage.source.state.detail is not None
        stage.source.state.detail.caught_up = False
        await stage.press("3", "r")
        assert "its errors are still being read" in stage.text()
        assert "Retry" not in stage.text()


async def test_a_question_is_moot_when_somebody_else_was_faster() -> None:
    async with dashboard(mixed_run(), run_id=STOPPED) as stage:
        await stage.press("3", "r")
        again = stage.source.state.records[STOPPED]
        stage.source.state.put_record(msgspec.structs.replace(again, state="running", round=1))
        await stage.tick()
        assert f"run {STOPPED} is under way again" in stage.text()
        assert "Missing" not in stage.line_with("under way")


async def test_a_selection_that_does_not_fit_says_what_does() -> None:
    async with dashboard(mixed_run(), (200, 50), run_id=STOPPED) as stage:
        await stage.press("3", "r", "y")
        assert stage.source.brought_back is not None
        stage.source.brought_back.set_exception(SelectionTooLarge(STOPPED, 6))
        await stage.pilot.pause()
        await stage.tick()
        assert "retry fewer at once, or all that failed" in stage.text()


async def test_help_and_commands_name_what_the_key_does_here() -> None:
    async with dashboard(mixed_run(), run_id=STOPPED) as stage:
        await stage.press("3", "question_mark")
        assert "retry group" in stage.text()
        await stage.press("escape", "enter", "question_mark")
        assert "retry task" in stage.text()
        await stage.press("escape", "colon")
        await stage.app.workers.wait_for_complete()
        await stage.type("retry")
        await stage.app.workers.wait_for_complete()
        assert "retry task" in stage.text()
