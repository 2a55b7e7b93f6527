"""A run in depth, the workers, help, and how the dashboard is left."""

import asyncio
import re

import msgspec
import pytest

from corral import events
from corral.errors import Unconfirmed
from corral_tui.screens.run import RunScreen
from corral_tui.widgets.lines import Lines
from corral_tui.widgets.pane import Pane
from corral_tui.widgets.table import Table
from tests.tui.drawn import dashboard
from tests.tui.scenes import NOW, PlainSource, beat, busy_state, look_into

BIG = "7qk2mzt4w9ha"


def opened() -> PlainSource:
    return PlainSource(look_into(busy_state()))


async def test_enter_opens_a_run_and_esc_goes_back_to_the_same_row() -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        await stage.press("j", "j", "enter")
        assert stage.source.looks == [BIG]
        assert "371,256 pending + 560 running" in stage.text()
        await stage.press("escape")
        assert stage.source.looks == [BIG, None]
        assert "7qk2mzt4" in stage.cursor_line()


async def test_a_run_accounts_for_every_task() -> None:
    async with dashboard(opened(), (200, 50), run_id=BIG) as stage:
        assert (
            "1,000,000 total = 371,256 pending + 560 running + 627,990 success + 194 error + 0 interrupted"
            "   ✓ holds at event 2,387"
        ) in stage.text()
        assert "Product/7" in stage.text()
        assert "ETA 7." in stage.line_with("51.3k/s   ")


@pytest.mark.parametrize("size", [(60, 15), (80, 24), (120, 40), (200, 50)])
@pytest.mark.parametrize("tab", ["1", "3", "5"])
async def test_every_tab_fits_every_terminal(size: tuple[int, int], tab: str) -> None:
    async with dashboard(opened(), size, run_id=BIG) as stage:
        await stage.press(tab)
        assert len(stage.lines()) == size[1]
        assert "esc back" in stage.lines()[-1]
        assert stage.line_with("Errors 194")


async def test_a_layout_that_the_toolkit_forgets_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with dashboard(opened(), run_id=BIG) as stage:
        head, state = stage.app.screen.query_one("#head", Lines), stage.source.state
        state.put_record(msgspec.structs.replace(state.records[BIG], state="interrupting"))
        with monkeypatch.context() as forgetful:
            forgetful.setattr(head, "refresh", lambda **_: head)
            await stage.tick()
        assert "ordered to stop" not in stage.text()
        await stage.tick()
        await stage.tick()
        assert "ordered to stop" in stage.text()


async def test_topics_are_counted_apart() -> None:
    async with dashboard(opened(), run_id=BIG) as stage:
        await stage.press("2")
        said = stage.line_with("▌ reindex-entity").split()
        assert said[-7:] == ["1,000,000", "371,256", "560", "0", "627,990", "194", "0"]


async def test_errors_show_their_traceback_and_message() -> None:
    async with dashboard(opened(), run_id=BIG) as stage:
        await stage.press("3", "enter", "j")
        assert "no row 636182 in product" in stage.cursor_line()
        assert 'File "/srv/shop/processors.py", line 41, in reindex_entity' in stage.text()
        await stage.press("enter")
        assert stage.app.screen.query_one(Pane).has_focus
        await stage.press("G")
        assert '"target_class": "Product"' in stage.text()


async def test_an_error_that_is_read_stays_when_others_come() -> None:
    async with dashboard(opened(), run_id=BIG) as stage:
        await stage.press("3", "e", "j", "j")
        before = stage.cursor_line()
        detail = stage.source.state.detail
        assert detail is not None
        detail.apply(
            9_999,
            NOW,
            events.Failed(
                topic="reindex-entity",
                task=(1_000, 999_999),
                error="[bold]New\x1b[0m",
                message="[/]",
                traceback="\x1b[2J",
                attempt=1,
                worker="w",
                body=msgspec.Raw(b"{}"),
            ),
        )
        await stage.tick()
        assert stage.cursor_line() == before
        assert "[bold]New[0m  [/]" in stage.text()


async def test_events_are_listed_with_the_newest_first() -> None:
    async with dashboard(opened(), run_id=BIG) as stage:
        await stage.press("5")
        assert "2,387" in stage.cursor_line()
        await stage.press("G")
        assert "task 0-0 begins to send" in stage.cursor_line()


async def test_what_a_list_leaves_out_is_said() -> None:
    source = opened()
    detail = source.state.detail
    assert detail is not None
    detail.seen_events = 54_321
    async with dashboard(source, run_id=BIG) as stage:
        await stage.press("5")
        assert "the last 591 of 54,321" in stage.text()


async def test_tabs_turn_with_keys_and_the_mouse() -> None:
    async with dashboard(opened(), run_id=BIG) as stage:
        await stage.press("tab", "right")
        assert "WHEN" in stage.text()
        await stage.press("left", "left", "shift+tab")
        assert "KIND" in stage.text()
        row = next(y for y, text in enumerate(stage.lines()) if "Topics 1" in text)
        await stage.pilot.click(offset=(stage.lines()[row].index("Topics"), row))
        await stage.tick()
        assert "RETRYING" in stage.text()


async def test_a_run_whose_record_has_expired_says_so() -> None:
    async with dashboard(opened(), run_id=BIG) as stage:
        stage.source.state.drop_record(BIG)
        await stage.tick()
        assert f"run {BIG} is not here: its record has expired" in stage.text()


async def test_workers_are_listed_and_a_silent_one_stands_out() -> None:
    source = PlainSource(busy_state())
    source.state.beat(beat("ws2-77-1", {}, pool="ws2-77", host="ws2"), NOW - 9)
    async with dashboard(source) as stage:
        await stage.press("w")
        assert "✗ silent" in stage.line_with("ws2-77-1")
        assert "▶ busy" in stage.line_with("ws1-4021-3")
        assert "79/100" in stage.line_with("ws1-4021-3")
        assert "1 silent: taken for dead" in stage.text()
        await stage.press("escape")
        assert stage.line_with("7qk2mzt4")


# --- help and leaving ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 40)])
async def test_help_lists_the_keys_that_work_here(size: tuple[int, int]) -> None:
    async with dashboard(PlainSource(busy_state()), size) as stage:
        await stage.press("space")
        await stage.tick()
        await stage.press("question_mark")
        for said in (
            "enter",
            "down j",
            "up k",
            "home g",
            "end G",
            "clear",
            "interrupt",
            "retry",
            "workers",
            "quit at once",
        ):
            assert said in stage.text()
        await stage.press("pagedown")
        assert "✓ success" in stage.text()
        await stage.press("escape")
        assert stage.line_with("7qk2mz")


async def test_q_leaves_with_zero() -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        await stage.press("q")
        assert stage.app.return_value == 0


async def test_ctrl_c_leaves_with_130() -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        await stage.press("ctrl+c")
        assert stage.app.return_value == 130


@pytest.mark.parametrize(("run_id", "code"), [("w3thc90xgv5r", 0), ("ya6m2pdk83fs", 1), ("jzx40we9bqn1", 5), (BIG, 0)])
async def test_a_watched_run_sets_the_exit_code(run_id: str, code: int) -> None:
    async with dashboard(PlainSource(busy_state()), run_id=run_id) as stage:
        assert isinstance(stage.app.screen, RunScreen)
        await stage.press("q")
        assert stage.app.return_value == code


async def test_a_source_that_fails_ends_the_dashboard() -> None:
    async with dashboard(PlainSource()) as stage:
        stage.source.failure = Unconfirmed("anything")
        await stage.tick()
        assert stage.app.return_value == 1


async def test_without_colours_glyphs_and_words_remain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with dashboard(opened(), run_id=BIG) as stage:
        await stage.press("2", "3", "4", "5", "w", "escape", "escape")
        assert "▶" in stage.line_with("7qk2mzt4")
        assert "▌" in stage.cursor_line()
        colours = {
            segment.style.color.name
            for strip in stage.app.screen._compositor.render_strips()
            for segment in strip
            if segment.style is not None and segment.style.color is not None
        }
        assert colours <= {"default"}


async def test_a_list_can_be_read_while_it_is_replaced() -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        table = stage.app.screen.query_one(Table)
        await asyncio.gather(stage.press(*"jjjkkjjG"), *(stage.tick(0.1) for _ in range(20)))
        assert table.cursor == table.keys[-1]


async def test_it_is_said_how_far_the_events_are_read() -> None:
    source = opened()
    detail = source.state.detail
    assert detail is not None
    detail.caught_up = False
    async with dashboard(source, run_id=BIG) as stage:
        assert "reading events 99%" in stage.text()  # never all of them before that is certain
        detail.fold.ledger.sequence = detail.first + (source.state.folds[BIG].ledger.sequence - detail.first) // 4
        await stage.tick()
        assert re.search(r"reading events 2[45]%", stage.text())
        detail.first = 0
        await stage.tick()
        assert stage.line_with("reading events").endswith("reading events")
