"""The events of a run, the newest first."""

from __future__ import annotations

from typing import Any

from textual.app import ComposeResult

from corral_tui import figures
from corral_tui.columns import event_columns
from corral_tui.fold import Detail
from corral_tui.look import Look
from corral_tui.rows import event_row
from corral_tui.tabs.base import Tab
from corral_tui.values import EventView
from corral_tui.widgets.table import Table


class EventsTab(Tab):
    """The last some thousands of them."""

    TITLE = "Events"
    _keys: tuple[int, list[str]] = (0, [])
    _kept: dict[str, EventView] = {}  # noqa: RUF012  replaced, never changed

    def compose(self) -> ComposeResult:
        yield Table(id="events", empty="no events are stored any more", follows=True)

    def labels(self, look: Look) -> tuple[str, ...]:
        seen = look.detail.seen_events if look.detail else 0
        said = f"Events {figures.count(seen)}" if seen else self.TITLE
        return said, said, self.TITLE

    def hint(self, detail: Detail) -> str:
        kept, seen = len(detail.events), detail.seen_events
        return f"the last {figures.count(kept)} of {figures.count(seen)}" if seen > kept else ""

    def paint(self, look: Look) -> None:
        detail = look.detail
        if detail is None:
            return
        self._kept = detail.events
        if self._keys[0] != detail.seen_events or len(self._keys[1]) != len(detail.events):
            self._keys = (detail.seen_events, list(reversed(detail.events)))
        columns, kept = event_columns(self.size.width - 1), detail.events
        self.query_one(Table).show(
            columns, self._keys[1], lambda key: event_row(event, columns) if (event := kept.get(key)) else None
        )

    def take_focus(self) -> None:
        self.query_one(Table).focus()

    def copied(self) -> str:
        event = self._kept.get(self.query_one(Table).cursor or "")
        return f"{event.sequence} {figures.clock_ms(event.at)} {event.kind} {event.text}" if event else ""

    def exported(self) -> Any:
        events = [self._kept[key] for key in self._keys[1] if key in self._kept]
        return [{"seq": event.sequence, "at": event.at, "kind": event.kind, "text": event.text} for event in events]
