"""The topics of a run."""

from __future__ import annotations

from typing import Any

from textual.app import ComposeResult

from corral.runs import plain
from corral_tui.columns import topic_columns
from corral_tui.look import Look
from corral_tui.rows import topic_row
from corral_tui.tabs.base import Tab
from corral_tui.values import RunView
from corral_tui.widgets.table import Table


class TopicsTab(Tab):
    """Counts of each topic."""

    TITLE = "Topics"
    _run: RunView | None = None

    def compose(self) -> ComposeResult:
        yield Table(id="topics")

    def labels(self, look: Look) -> tuple[str, ...]:
        said = f"Topics {len(look.run.topics)}"
        return said, said, self.TITLE

    def paint(self, look: Look) -> None:
        run = self._run = look.run
        topics = sorted(run.topics, key=lambda topic: (-run.topics[topic].total, topic))
        columns = topic_columns(self.size.width - 1, run.counts.total, max((len(topic) for topic in topics), default=0))
        self.query_one(Table).show(
            columns, topics, lambda topic: topic_row(run, topic, columns) if topic in run.topics else None
        )

    def take_focus(self) -> None:
        self.query_one(Table).focus()

    def copied(self) -> str:
        return self.query_one(Table).cursor or ""

    def exported(self) -> Any:
        return plain(dict(self._run.topics)) if self._run else {}
