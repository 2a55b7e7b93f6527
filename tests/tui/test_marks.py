"""Sorting and marking runs, and orders to several of them."""

from __future__ import annotations

from corral.events import Receipt
from corral_tui.sorting import Sort, sortable
from corral_tui.state import State
from corral_tui.values import Link
from corral_tui.widgets.table import Table
from tests.tui.drawn import Stage, dashboard
from tests.tui.scenes import NOW, PlainSource, beat, busy_state, record

BIG, SMALL, QUEUED = "7qk2mzt4w9ha", "3fbn81xcp6te", "k0avd5rm27jy"


def keys(stage: Stage) -> list[str]:
    return list(stage.app.screen.query_one(Table).keys)


async def test_runs_are_sorted_by_a_key_and_the_other_way_round_by_the_same() -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        newest_first = keys(stage)
        await stage.press("E")
        assert keys(stage)[:3] == [BIG, "ya6m2pdk83fs", "jzx40we9bqn1"]
        assert "ERROR▼" in stage.lines()[2]
        await stage.press("E")
        assert keys(stage)[-1] == BIG
        assert "ERROR▲" in stage.lines()[2]
        await stage.press("S")
        assert keys(stage)[0] in (BIG, SMALL)
        await stage.press("A")
        assert keys(stage) == newest_first


async def test_a_click_on_a_title_sorts() -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        await stage.pilot.click(offset=(stage.lines()[2].index("TOTAL"), 2))
        await stage.tick()
        assert keys(stage)[0] == BIG


async def test_the_cursor_stays_on_its_run_while_the_order_changes() -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        await stage.press("j")
        for key in ("E", "T", "N", "P", "R", "S", "A", "A"):
            await stage.press(key)
            assert stage.app.screen.query_one(Table).cursor == SMALL
            assert "3fbn81xc" in stage.cursor_line()


async def test_rows_do_not_jump_more_than_once_a_second() -> None:
    source = PlainSource(busy_state())
    async with dashboard(source) as stage:
        await stage.press("P")
        before = keys(stage)
        source.state.beat(beat("ws1-4021-1", {SMALL: {"import-csv.row": 100}}), NOW)
        await stage.tick(0.3)
        assert keys(stage) == before


def test_every_column_with_an_order_sorts_every_run() -> None:
    state = busy_state()
    runs = [run for name in state.runs() if (run := state.run(name, NOW)) is not None]
    for column in ("status", "run", "topic", "bar", "total", "pending", "running", "success", "error", "rate", "eta"):
        assert sortable(column)
        there, back = Sort(column).apply(runs), Sort(column, reverse=True).apply(runs)
        assert sorted(run.id for run in there) == sorted(run.id for run in back)


async def marked(stage: Stage) -> None:
    """The three runs that live."""
    await stage.press("space", "space", "space")
    await stage.tick()


async def test_marks_survive_sorting_filtering_and_new_runs() -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        await marked(stage)
        assert "3 runs marked" in stage.lines()[-2]
        await stage.press("E", "slash", *"nightly", "enter")
        stage.source.state.put_record(record("new", created_at=NOW + 1))
        await stage.tick(2)
        assert "3 runs marked" in stage.text()
        await stage.press("escape", "escape")
        assert "marked" not in stage.text()
        await stage.press("asterisk")
        assert "21 runs marked" in stage.text()


async def test_an_order_to_several_runs_needs_its_word() -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        await marked(stage)
        await stage.press("i")
        assert "Interrupt 3 runs?" in stage.text()
        assert "removes 382,559 queued, stops 644 running" in stage.text()
        await stage.press("enter", *"yes", "enter")
        assert not stage.source.interrupted
        await stage.press("escape", "i", *"interrupt", "enter")
        assert sorted(stage.source.interrupted) == sorted([BIG, SMALL, QUEUED])
        assert "3 runs" in stage.text()
        for answer in stage.source.answers:
            answer.set_result(Receipt(removed=10, stopped=1, seconds=0.5))
        await stage.tick()
        await stage.tick()
        assert "3 runs" in stage.line_with("stopped in 500 ms: 30 removed, 3 stopped")


async def test_what_has_nothing_to_be_done_is_left_out_of_an_order_to_several() -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        await stage.press("asterisk", "r")
        assert "Retry 2 runs?" in stage.text()
        await stage.press("escape")
        assert not stage.source.retried


async def test_an_order_to_several_runs_says_how_many_of_which_topics_they_are() -> None:
    state = State()
    state.link = Link(phase="live", ready=True)
    for number, topic in enumerate(["shop"] * 12 + ["mail"] * 2 + ["a", "b", "c"]):
        state.put_record(record(f"r{number:02d}", topic))
    async with dashboard(PlainSource(state)) as stage:
        await stage.press("*", "i")
        assert "12 of shop, 2 of mail, " in stage.text()
        assert "and 1 more topic" in stage.text()
