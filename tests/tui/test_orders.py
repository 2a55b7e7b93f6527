"""Interrupts and retries that are ordered from the dashboard: the question, the impact, and what comes of it."""

import msgspec
import pytest

from corral.errors import DuplicateRun, Unconfirmed
from corral.events import Receipt
from tests.tui.drawn import dashboard
from tests.tui.scenes import PlainSource, busy_state, final, look_into

BIG = "7qk2mzt4w9ha"
STOPPED = "jzx40we9bqn1"


def opened() -> PlainSource:
    return PlainSource(look_into(busy_state()))


# --- the interrupt ------------------------------------------------------------------------------------


async def test_an_interrupt_names_its_impact_and_its_default_is_no() -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        await stage.press("j", "j", "i")
        assert f"Interrupt reindex {BIG}?" in stage.text()
        assert "removes 371,256 queued, stops 560 running; 628,184 stay done" in stage.text()
        assert "[ No ]" in stage.text()
        await stage.press("enter")
        assert stage.source.interrupted == []
        assert "Interrupt reindex" not in stage.text()


@pytest.mark.parametrize("keys", [["escape"], ["n"], ["q"], ["right", "left", "enter"], ["tab", "escape"]])
async def test_no_is_no_however_it_is_said(keys: list[str]) -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        await stage.press("j", "j", "i", *keys)
        assert stage.source.interrupted == []
        assert stage.app.is_running
        assert stage.line_with("7qk2mzt4")


@pytest.mark.parametrize("keys", [["y"], ["right", "enter"], ["tab", "enter"]])
async def test_yes_interrupts_and_shows_progress_and_the_receipt(keys: list[str]) -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        await stage.press("j", "j", "i", *keys)
        assert stage.source.interrupted == [BIG]
        await stage.tick(0.4)
        assert f"■ reindex {BIG}  stopping for 400 ms, 560 still run" in stage.text()
        assert stage.source.answer is not None
        stage.source.answer.set_result(Receipt(removed=371_204, stopped=609, finished_first=3, seconds=0.084))
        await stage.pilot.pause()
        await stage.tick()
        assert "stopped in 84 ms: 371,204 removed, 609 stopped, 3 finished first" in stage.text()
        await stage.tick(60)
        assert "stopped in 84 ms" not in stage.text()


async def test_an_interrupt_that_is_not_confirmed_says_so() -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        await stage.press("j", "j", "i", "y")
        assert stage.source.answer is not None
        stage.source.answer.set_exception(Unconfirmed("the interrupt of run x"))
        await stage.pilot.pause()
        await stage.tick()
        assert "✗ reindex" in stage.line_with("not known whether this happened")


async def test_a_run_that_has_ended_is_not_asked_about() -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        await stage.press("G", "i")
        await stage.tick()
        assert "had ended already" in stage.text()
        assert stage.source.interrupted == []


async def test_a_run_that_ends_takes_its_key_from_the_foot() -> None:
    async with dashboard(opened(), run_id=BIG) as stage:
        assert "i interrupt" in stage.lines()[-1]
        stage.source.state.put_record(final(BIG, "reindex", ago=0, took=20, success=10))
        await stage.tick()
        await stage.tick()
        assert "i interrupt" not in stage.lines()[-1]


async def test_a_run_that_was_stopped_says_by_whom_and_how() -> None:
    source = opened()
    ended = final(BIG, "reindex", ago=5, took=20, success=7, interrupted=3)
    receipt = Receipt(removed=2, stopped=1, seconds=0.084)
    source.state.put_record(msgspec.structs.replace(ended, interrupted_by="ana@ws1", receipt=receipt))
    async with dashboard(source, run_id=BIG) as stage:
        said = stage.line_with("stopped in 84 ms: 2 removed, 1 stopped, 0 finished first")
        assert said.endswith("by ana@ws1")


async def test_who_stopped_what_a_retry_has_not_brought_back_is_still_named() -> None:
    source = opened()
    ended = final(BIG, "reindex", ago=5, took=20, success=9, interrupted=1)
    source.state.put_record(msgspec.structs.replace(ended, round=1, interrupted_by="ana@ws1", interrupt_reason="x"))
    async with dashboard(source, run_id=BIG) as stage:
        assert stage.line_with("■ some tasks stay stopped by ana@ws1 (x)")


async def test_read_only_hides_what_changes_anything() -> None:
    async with dashboard(PlainSource(busy_state()), read_only=True) as stage:
        assert "interrupt" not in stage.lines()[-1]
        assert "retry" not in stage.lines()[-1]
        await stage.press("j", "j", "i")
        assert "Interrupt" not in stage.text()
        await stage.press("j", "r")
        assert "Retry" not in stage.text()
        await stage.press("question_mark")
        assert "interrupt " not in stage.text().replace("interrupting", "").replace("interrupted", "")
        assert "retry" not in stage.text()


async def test_the_dashboard_of_somebody_who_may_change_nothing_is_read_only_by_itself() -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        assert "interrupt" in stage.lines()[-1]
        stage.source.read_only = True
        await stage.tick()
        assert "interrupt" not in stage.lines()[-1]
        assert "retry" not in stage.lines()[-1]
        await stage.press("j", "j", "i")
        assert "Interrupt" not in stage.text()


# --- the retry ----------------------------------------------------------------------------------------


async def test_a_retry_names_what_comes_back_and_its_default_is_no() -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        await stage.press(*"jjj", "r")
        assert f"Retry thumbnails {STOPPED}?" in stage.text()
        assert "brings back 2 errors and 37,187 interrupted; 22,811 stay done" in stage.text()
        assert "[ No ]" in stage.text()
        assert "y retry   esc no" in stage.text()
        await stage.press("enter")
        assert stage.source.retried == []
        assert "Retry thumbnails" not in stage.text()


@pytest.mark.parametrize("keys", [["y"], ["right", "enter"]])
async def test_yes_retries_and_says_how_much_came_back(keys: list[str]) -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        await stage.press(*"jjj", "r", *keys)
        assert stage.source.retried == [STOPPED]
        await stage.tick(0.4)
        assert f"↻ thumbnails {STOPPED}  bringing back for 400 ms" in stage.text()
        assert stage.source.brought_back is not None
        stage.source.brought_back.set_result(37_190)
        await stage.pilot.pause()
        await stage.tick()
        assert f"↻ thumbnails {STOPPED}  37,190 tasks brought back" in stage.text()


async def test_a_retry_that_is_refused_its_key_says_who_holds_it() -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        await stage.press(*"jjj", "r", "y")
        assert stage.source.brought_back is not None
        stage.source.brought_back.set_exception(DuplicateRun("Product/7", BIG))
        await stage.pilot.pause()
        await stage.tick()
        assert "✗ thumbnails" in stage.line_with(f"the unique key 'Product/7' is held by run {BIG}")


async def test_a_live_run_is_not_retried_and_the_line_says_what_to_do() -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        await stage.press("j", "j", "r")
        assert f"· reindex {BIG}  has not ended: a retry is for what has; i interrupts it" in stage.text()
        assert "Retry" not in stage.text()
        assert stage.source.retried == []


async def test_what_has_succeeded_needs_no_retry() -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        await stage.press("G", "r")
        assert "nothing to bring back" in stage.text()
        assert stage.source.retried == []


async def test_a_question_is_moot_when_somebody_else_was_faster() -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        await stage.press(*"jjj", "r")
        again = stage.source.state.records[STOPPED]
        stage.source.state.put_record(msgspec.structs.replace(again, state="running", round=1))
        await stage.tick()
        assert f"run {STOPPED} is under way again" in stage.text()


async def test_an_open_run_has_the_key_that_fits() -> None:
    async with dashboard(opened(), run_id=BIG) as stage:
        assert "i interrupt" in stage.lines()[-1]
        assert "r retry" not in stage.lines()[-1]
        await stage.press("r")
        assert "Retry" not in stage.text()
        stage.source.state.put_record(final(BIG, "reindex", ago=0, took=20, success=10, error=3))
        await stage.tick()
        await stage.tick()
        assert "i interrupt" not in stage.lines()[-1]
        assert "r retry" in stage.lines()[-1]
        await stage.press("r", "y")
        assert stage.source.brought_back is not None
        stage.source.brought_back.set_result(3)
        await stage.pilot.pause()
        await stage.tick()
        assert "3 tasks brought back" in stage.text()
