"""The list of runs: the cursor, what is drawn again, the filter, the designed states."""

import pytest
from textual.geometry import Region

from corral_tui.state import State
from corral_tui.values import Link
from corral_tui.widgets.table import Table
from tests.tui.drawn import Stage, dashboard
from tests.tui.scenes import NOW, PlainSource, busy_state, final, live_events, record

BIG = "7qk2mzt4w9ha"
SIZES = [(60, 15), (80, 24), (100, 30), (120, 40), (160, 40), (200, 60)]


async def test_runs_are_listed_with_exact_counts() -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        said = stage.line_with("7qk2mzt4").split()
        assert said[:3] == ["▶", "7qk2mzt4", "reindex"]
        assert {"62%", "1,000,000", "371,256", "560", "627,990", "194", "15"} <= set(said)
        assert "645/800 slots" in stage.lines()[0]
        assert "● live" in stage.lines()[0]


@pytest.mark.parametrize("size", SIZES)
async def test_every_line_fits_the_terminal(size: tuple[int, int]) -> None:
    async with dashboard(PlainSource(busy_state()), size) as stage:
        assert len(stage.lines()) == size[1]
        assert stage.line_with("7qk2mz")
        assert "enter open" in stage.lines()[-1]
        assert "▶" in stage.line_with("7qk2mz")


async def test_the_cursor_stays_on_its_run_when_new_runs_come() -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        await stage.press("j", "j")
        assert "7qk2mzt4" in stage.cursor_line()
        for index in range(7):
            stage.source.state.put_record(record(f"new{index}", created_at=NOW + index))
        await stage.tick(10)
        assert "7qk2mzt4" in stage.cursor_line()
        assert stage.app.screen.query_one(Table).cursor == BIG


async def test_the_cursor_goes_to_the_neighbour_when_its_run_expires() -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        await stage.press("j", "j")
        stage.source.state.drop_record(BIG)
        await stage.tick()
        assert "jzx40we9" in stage.cursor_line()


async def test_what_is_read_does_not_move_when_runs_come_in_above() -> None:
    state = State()
    state.link = Link(phase="live", ready=True)
    for index in range(300):
        state.put_record(final(f"r{index:03d}", "nightly", ago=1_000 + index, took=1, success=1))
    async with dashboard(PlainSource(state)) as stage:
        await stage.press(*["pagedown"] * 4)
        before = [line[:100] for line in stage.lines()[3:-2]]  # without the scroll bar, which may move
        for index in range(5):
            state.put_record(final(f"new{index}", "nightly", ago=10, took=1, success=1))
        await stage.tick()
        assert [line[:100] for line in stage.lines()[3:-2]] == before


async def test_keys_move_through_a_long_list() -> None:
    state = State()
    state.link = Link(phase="live", ready=True)
    for index in range(5_000):
        state.put_record(final(f"r{index:04d}", "nightly", ago=1_000 + index, took=1, success=1))
    async with dashboard(PlainSource(state)) as stage:
        table = stage.app.screen.query_one(Table)
        for keys, cursor in (
            (["G"], "r4999"),
            (["up"], "r4998"),
            (["g"], "r0000"),
            (["j", "down", "k"], "r0001"),
            (["end", "home"], "r0000"),
            (["k"], "r0000"),
        ):
            await stage.press(*keys)
            assert table.cursor == cursor
            assert cursor in stage.cursor_line()


async def test_only_rows_that_changed_are_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        drawn: list[Region | None] = []
        refresh = Table.refresh

        def noted(table: Table, *regions: Region, **options: bool) -> Table:
            drawn.extend(regions or [None])
            return refresh(table, *regions, **options)

        monkeypatch.setattr(Table, "refresh", noted)
        await stage.tick()
        assert drawn == []
        for sequence, at, event in live_events(
            batch=9_000, topic="import-csv.row", total=12_400, done=1_200, errors=0, seconds=4
        ):
            stage.source.state.apply("3fbn81xcp6te", sequence + 500, at, event, now=NOW)
        await stage.tick()
        assert [region.y for region in drawn if region] == [2]


async def test_a_click_selects_and_a_second_one_opens() -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        await stage.pilot.click(Table, offset=(20, 3))
        await stage.pilot.pause()
        assert "7qk2mzt4" in stage.cursor_line()
        await stage.pilot.click(Table, offset=(20, 3))
        await stage.pilot.pause()
        assert stage.source.looks == [BIG]


async def test_a_click_on_the_foot_is_a_key() -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        foot = stage.lines()[-1]
        await stage.pilot.click("Keys", offset=(foot.index("workers") + 1, 0))
        await stage.pilot.pause()
        assert stage.line_with("WORKER")


# --- the filter ---------------------------------------------------------------------------------------


async def filtered(stage: Stage, typed: str) -> list[str]:
    await stage.press("slash")
    await stage.type(typed)
    await stage.tick()
    return list(stage.app.screen.query_one(Table).keys)


async def test_a_filter_narrows_the_list_while_it_is_typed() -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        assert await filtered(stage, "status:failed") == ["ya6m2pdk83fs"]
        assert "1 run of 20" in stage.text()
        assert stage.lines()[-1].split() == ["enter", "keep", "esc", "clear"]


async def test_a_filter_can_exclude() -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        assert await filtered(stage, "!nightly topic:re") == [BIG, "ya6m2pdk83fs"]


async def test_enter_keeps_the_filter_and_esc_clears_it() -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        await filtered(stage, "thumb")
        await stage.press("enter")
        table = stage.app.screen.query_one(Table)
        assert table.has_focus
        assert list(table.keys) == ["jzx40we9bqn1"]
        await stage.press("escape")
        await stage.tick()
        assert len(table.keys) == 20


async def test_new_runs_pass_the_filter_too() -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        await filtered(stage, "thumb")
        stage.source.state.put_record(record("t2", "thumbnails", created_at=NOW))
        stage.source.state.put_record(record("m2", "mail", created_at=NOW))
        await stage.tick()
        assert list(stage.app.screen.query_one(Table).keys) == ["t2", "jzx40we9bqn1"]


# --- designed states ----------------------------------------------------------------------------------


def linked(link: Link) -> PlainSource:
    source = PlainSource()
    source.state.link = link
    return source


async def test_connecting_says_where_to_and_for_how_long() -> None:
    async with dashboard(linked(Link(server="10.0.0.7:4222", since=NOW - 3))) as stage:
        assert "Connecting" in stage.text()
        assert "10.0.0.7:4222" in stage.text()
        assert "3.0 s" in stage.text()
        await stage.tick(60)
        assert "1 m 3 s" in stage.text()


async def test_an_empty_list_names_the_command_to_type_next() -> None:
    async with dashboard(linked(Link(phase="live", ready=True))) as stage:
        assert "No runs yet" in stage.text()
        assert "corral start TOPIC '{...}'" in stage.text()
        stage.source.state.put_record(record("first"))
        await stage.tick()
        assert "No runs yet" not in stage.text()
        assert "first" in stage.cursor_line()


async def test_an_outage_keeps_the_list_and_says_how_old_it_is() -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        stage.source.state.link = Link(server="127.0.0.1:4222", phase="offline", since=NOW, ready=True)
        await stage.tick(12)
        assert "○ offline 12 s" in stage.lines()[0]
        assert stage.line_with("7qk2mzt4")


async def test_a_terminal_that_is_too_small_says_so_and_recovers() -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        await stage.pilot.resize_terminal(52, 12)
        await stage.pilot.pause()
        assert "52x12 now, 60x15 needed" in stage.text()
        assert "7qk2mz" not in stage.text()
        await stage.pilot.resize_terminal(80, 24)
        await stage.pilot.pause()
        assert stage.line_with("7qk2mz")


async def test_hostile_names_draw_harmlessly() -> None:
    state = State()
    state.link = Link(server="\x1b[31m", phase="live", ready=True)
    state.put_record(record("evil", "[red]\x1b[2J\u202ename\nmore", unique="\x1b]0;x\x07"))
    async with dashboard(PlainSource(state)) as stage:
        assert "\x1b" not in stage.text()
        assert "[red][2Jna" in stage.line_with("evil")
        await stage.press("enter")
        assert "\x1b" not in stage.text()


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_the_table_is_as_wide_while_a_filter_is_typed(size: tuple[int, int]) -> None:
    state = State()
    state.link = Link(phase="live", ready=True)
    for index in range(300):
        state.put_record(final(f"r{index:03d}", "nightly", ago=1_000 + index, took=1, success=1))
    async with dashboard(PlainSource(state), size) as stage:
        before = stage.lines()[2]
        await stage.press("slash")
        await stage.tick()
        assert stage.lines()[2] == before


async def test_a_unique_key_stands_behind_the_topic_where_there_is_room() -> None:
    state = State()
    state.link = Link(phase="live", ready=True)
    state.put_record(record("a", "reindex", unique="Shop/7"))
    state.put_record(record("b", "reindex", unique="x" * 900))
    source = PlainSource(state)
    async with dashboard(source, (120, 40)) as stage:
        assert "reindex  Shop/7 " in stage.line_with(" a ")
        assert "reindex  xxxxx" in stage.line_with(" b ")
        await stage.pilot.resize_terminal(80, 24)
        await stage.tick()
        assert "Shop" not in stage.text()
        assert "reindex " in stage.line_with(" a ")


@pytest.mark.parametrize("looks_around", [False, True])
async def test_the_cursor_begins_on_the_newest_run_in_whatever_order_they_are_read(*, looks_around: bool) -> None:
    state = State()
    state.link = Link(phase="live")
    async with dashboard(PlainSource(state), (120, 24)) as stage:
        for index in range(0, 90, 3):
            state.put_record(final(f"r{index:03d}", "nightly", ago=1_000 - index, took=1, success=1))
            await stage.tick()
        assert "r087" in stage.cursor_line()
        if looks_around:
            await stage.press("j")
        for index in range(90):
            state.put_record(final(f"r{index:03d}", "nightly", ago=1_000 - index, took=1, success=1))
        state.link = Link(phase="live", ready=True)
        await stage.tick()
        assert ("r084" if looks_around else "r089") in stage.cursor_line()
        state.put_record(final("r090", "nightly", ago=1, took=1, success=1))
        await stage.tick()
        assert ("r084" if looks_around else "r089") in stage.cursor_line()  # from now on it stays on its run


async def test_esc_stands_in_the_foot_where_there_is_something_to_clear() -> None:
    async with dashboard(PlainSource(busy_state()), (80, 24)) as stage:
        assert "esc clear" not in stage.lines()[-1]
        await stage.press("space")
        await stage.tick()
        assert "esc clear" in stage.lines()[-1]
        await stage.press("escape")
        await stage.tick()
        assert "esc clear" not in stage.lines()[-1]
        await stage.press("slash", "x", "enter")
        await stage.tick()
        assert "esc clear" in stage.lines()[-1]
        await stage.press("escape")
        await stage.tick()
        assert "esc clear" not in stage.lines()[-1]


async def test_a_count_that_outgrows_its_column_is_never_cut() -> None:
    state = State()
    state.link = Link(phase="live", ready=True)
    state.put_record(record("a", "reindex", claim=(0, 1)))
    async with dashboard(PlainSource(state), (120, 40)) as stage:
        for sequence, at, event in live_events(batch=1, topic="leaf", total=1_000_000, done=5, errors=0, seconds=3):
            state.apply("a", sequence, at, event, now=at)
        await stage.tick(1)
        assert "1,000,000 " in stage.line_with(" a ")
