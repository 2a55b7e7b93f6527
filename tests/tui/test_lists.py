"""The table behind the lists, where much comes in at once: the cursor stays in sight, or on what is newest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from textual.app import App, ComposeResult
from textual.pilot import Pilot

from corral_tui.columns import Column
from corral_tui.theme import THEMES
from corral_tui.widgets.table import Table

COLUMNS = (Column("name", "NAME", 10),)
KEPT = 1_000


class OneTable(App[None]):
    def __init__(self, *, follows: bool) -> None:
        super().__init__()
        self.table = Table(follows=follows)

    def compose(self) -> ComposeResult:
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = THEMES[0].name
        yield self.table


class Log:
    """The last thousand of so many things, the newest first."""

    def __init__(self, table: Table, pilot: Pilot[None]) -> None:
        self.table = table
        self.pilot = pilot

    async def holds(self, count: int) -> None:
        keys = [str(number) for number in range(max(0, count - KEPT), count)][::-1]
        self.table.show(COLUMNS, keys, lambda key: (((key, "text"),),))
        await self.pilot.pause()

    @property
    def in_sight(self) -> bool:
        cursor, top = self.table.cursor, int(self.table.scroll_offset.y)
        return cursor in self.table.keys[top : top + self.table.size.height - 1]


@asynccontextmanager
async def a_log(*, follows: bool) -> AsyncIterator[Log]:
    app = OneTable(follows=follows)
    async with app.run_test(size=(40, 12)) as pilot:
        log = Log(app.table, pilot)
        await log.holds(5)
        yield log


async def test_the_cursor_stays_in_sight_whatever_comes_in_above_it() -> None:
    async with a_log(follows=False) as log:
        for count in (50, 500, 900, 1_004, 1_500, 9_000):
            await log.holds(count)
            assert log.in_sight, count
            if count <= KEPT + 4:
                assert log.table.cursor == "4"


async def test_who_is_at_the_newest_of_what_goes_on_stays_there() -> None:
    async with a_log(follows=True) as log:
        for count in (50, 5_000):
            await log.holds(count)
            assert (log.table.cursor, log.in_sight) == (str(count - 1), True)


@pytest.mark.parametrize("key", ["down", "pagedown"])
async def test_who_has_moved_away_from_the_newest_reads_on_undisturbed(key: str) -> None:
    async with a_log(follows=True) as log:
        await log.holds(50)
        log.table.focus()
        await log.pilot.press(key)
        reads = log.table.cursor
        await log.holds(400)
        assert (log.table.cursor, log.in_sight) == (reads, True)
