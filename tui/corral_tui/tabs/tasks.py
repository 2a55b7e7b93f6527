"""The task map of a run: every task of it, as a cell."""

from __future__ import annotations

from typing import Any

from textual import on
from textual.app import ComposeResult

from corral.messages import TaskId, task_text
from corral_tui import figures, taskview
from corral_tui.look import Look
from corral_tui.tabs.base import Tab
from corral_tui.taskmap import TaskMap
from corral_tui.values import AtWork
from corral_tui.widgets.grid import Grid
from corral_tui.widgets.lines import Lines

EVERY = 0.25
"""Seconds between two looks at the ledger."""


class TasksTab(Tab):
    """The map, and in words what is under the cursor."""

    TITLE = "Tasks"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._map = TaskMap()
        self._updated: tuple[int, frozenset[TaskId]] = (-1, frozenset())
        self._updated_at = 0.0
        self._at_work: dict[TaskId, AtWork] = {}

    def compose(self) -> ComposeResult:
        yield Grid(id="map")
        yield Lines(id="cell")

    def labels(self, look: Look) -> tuple[str, ...]:
        said = f"Tasks {figures.count(look.run.counts.total)}"
        return said, said, self.TITLE

    def paint(self, look: Look) -> None:
        ledger, now = look.ledger, self.dashboard.now
        self._at_work = {each.task: each for each in look.at_work}
        stands = (ledger.sequence if ledger is not None else -1, frozenset(self._at_work))
        if ledger is not None and stands != self._updated and not 0 <= now - self._updated_at < EVERY:
            self._map.update(ledger, look.detail.fronts.tops() if look.detail else {}, stands[1])
            self._updated, self._updated_at = stands, now
        grid = self.query_one(Grid)
        grid.show(self._map)
        self._say()

    @on(Grid.Moved)
    def _say(self) -> None:
        grid = self.query_one(Grid)
        first, last = grid.span
        tally = self._map.tally(first, last)
        task, at_work = self.chosen, None
        if task is not None and grid.per == 1 and tally.running:
            at_work = self._at_work.get(task)
        said = taskview.cell_line(tally, (first, last), grid.per, task, at_work, self.dashboard.now)
        self.query_one("#cell", Lines).show([said, taskview.map_legend(self.size.width - 2)])

    @property
    def chosen(self) -> TaskId | None:
        """The task under the cursor."""
        return self.query_one(Grid).chosen

    def take_focus(self) -> None:
        self.query_one(Grid).focus()

    def copied(self) -> str:
        return task_text(self.chosen) if self.chosen else ""

    def exported(self) -> Any:
        grid = self.query_one(Grid)
        count = -(-self._map.total // grid.per)
        names = ["", "pending", "some", "half", "most", "success", "running", "retrying", "interrupted", "error"]
        cells = self._map.cells(0, min(count, 100_000), grid.per)
        return {"tasks": self._map.total, "tasks_a_cell": grid.per, "cells": [names[cell] for cell in cells]}
