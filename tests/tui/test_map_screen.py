"""The task map under the keys, and what it leads to."""

from __future__ import annotations

import pytest

from corral import events
from corral_tui.screens.task import TaskScreen
from corral_tui.widgets.grid import Grid, steps
from tests.tui.drawn import dashboard
from tests.tui.scenes import NOW, PlainSource, busy_state, live_events, look_into

BIG = "7qk2mzt4w9ha"


def opened() -> PlainSource:
    source = PlainSource(look_into(busy_state()))
    source.stored = list(
        live_events(batch=1_000, topic="reindex-entity", total=1_000_000, done=627_990, errors=194, seconds=15)
    )
    return source


def test_cells_grow_in_round_steps() -> None:
    assert [steps(per) for per in (1, 2, 3, 7, 11, 99, 250, 501)] == [1, 2, 5, 10, 20, 100, 500, 1000]


@pytest.mark.parametrize(("size", "per"), [((80, 24), 2_000), ((120, 40), 500), ((200, 50), 200)])
async def test_a_million_tasks_fit_every_terminal(size: tuple[int, int], per: int) -> None:
    async with dashboard(opened(), size, run_id=BIG) as stage:
        await stage.tick(1)
        grid = stage.app.screen.query_one(Grid)
        assert grid.per == per
        assert grid.virtual_size.height <= grid.size.height
        drawn = stage.text()
        assert drawn.count("█") > 627_000 // per
        assert "✗" in drawn
        assert f"a cell is {per:,} tasks" in drawn


async def test_the_cursor_drills_from_a_cell_to_the_worst_task_in_it_and_to_its_story() -> None:
    async with dashboard(opened(), run_id=BIG) as stage:
        await stage.tick(1)
        await stage.press("n")
        assert "error" in stage.line_with("a cell is")
        await stage.press("enter")
        assert "task 1000-627990" in stage.line_with("a cell is a task")
        assert "error" in stage.line_with("a cell is a task")
        await stage.press("enter")
        assert isinstance(stage.app.screen, TaskScreen)
        assert stage.source.told == [(BIG, (1_000, 627_990))]
        await stage.tick()
        text = stage.text()
        assert "✗ error" in text
        assert "reindex-entity is in the queue" in text
        assert 'File "/srv/shop/processors.py", line 41, in reindex_entity' in text
        await stage.press("escape", "escape")
        assert "a cell is 500 tasks" in stage.text()
        await stage.press("escape")
        assert "RUN" in stage.text()


async def test_zoom_keeps_the_task_under_the_cursor() -> None:
    async with dashboard(opened(), run_id=BIG) as stage:
        await stage.tick(1)
        await stage.press("n")
        grid = stage.app.screen.query_one(Grid)
        task = grid.chosen
        for key in ("plus", "plus", "minus", "plus", "plus", "plus", "minus"):
            await stage.press(key)
            assert grid.chosen == task
        await stage.press("down", "up", "right", "left", "end", "home")
        assert grid.chosen == (1_000, 0)


async def test_the_mouse_moves_the_cursor_and_drills() -> None:
    async with dashboard(opened(), run_id=BIG) as stage:
        await stage.tick(1)
        row = next(y for y, text in enumerate(stage.lines()) if "✗" in text and "█" in text)
        column = stage.lines()[row].index("✗")
        await stage.pilot.click(offset=(column, row))
        assert "error" in stage.line_with("a cell is")
        await stage.pilot.click(offset=(column, row))
        await stage.tick()
        assert "a cell is a task" in stage.text()


async def test_the_cursor_stays_on_its_task_while_the_run_grows() -> None:
    source = opened()
    async with dashboard(source, run_id=BIG) as stage:
        await stage.tick(1)
        await stage.press("n")
        grid = stage.app.screen.query_one(Grid)
        task, detail = grid.chosen, source.state.detail
        assert detail is not None
        detail.apply(5_000, NOW, events.Opened(parent=(1_000, 700_000), nonce="m"))
        detail.apply(5_001, NOW, events.Sent(batch=5_000, first=0, count=900_000, topics=["more"]))
        await stage.tick(1)
        assert grid.chosen == task
        assert grid.per == 1_000


async def test_a_task_of_which_nothing_is_stored_any_more_says_so() -> None:
    source = opened()
    source.stored = []
    async with dashboard(source, run_id=BIG) as stage:
        await stage.tick(1)
        await stage.press("enter", "enter")
        await stage.tick()
        assert "nothing is stored about it any more" in stage.text()
