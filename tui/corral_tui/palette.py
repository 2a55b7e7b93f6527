"""The command palette: every key that works here by its name, and every run by its topic, id or key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.content import Content

from corral.runs import Record
from corral_tui.text import clean

if TYPE_CHECKING:
    from corral_tui.app import Dashboard

_PLAIN = ("command_palette", "move(", "page(", "edge(")
"""Actions that nobody looks up."""
MOST = 20
"""Runs that are offered."""
RESEMBLE = 2_000
"""Runs, the newest, of which it is looked up whether they resemble what is typed: that takes its time."""
BEFORE_KEY = 30
"""Cells before the keys."""


def _beside(name: str | Content, key: str) -> Content:
    """What a key does, and the key behind it."""
    said = Content(name) if isinstance(name, str) else name
    return Content.assemble(said, " " * max(2, BEFORE_KEY - len(said)), (key, "$primary"))


class Actions(Provider):
    """What the keys do."""

    def _known(self) -> list[tuple[str, str, str]]:
        """(what it does, its key, its action)."""
        found: dict[str, tuple[str, str, str]] = {}
        for active in self.screen.active_bindings.values():
            binding = active.binding
            if binding.description and active.enabled and not binding.action.startswith(_PLAIN):
                key = binding.key_display or self.app.get_key_display(binding)
                found.setdefault(binding.action, (binding.description, key, binding.key))
        return list(found.values())

    async def discover(self) -> Hits:
        for name, key, pressed in self._known():
            yield DiscoveryHit(_beside(name, key), self._press(pressed), text=name)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for name, key, pressed in self._known():
            if (score := matcher.match(name)) > 0:
                yield Hit(score, _beside(matcher.highlight(name), key), self._press(pressed), text=name)

    def _press(self, key: str) -> Callable[[], None]:
        def press() -> None:
            self.app.call_later(self.app.simulate_key, key)

        return press


class Runs(Provider):
    """Where to go."""

    async def search(self, query: str) -> Hits:
        dashboard = cast("Dashboard", self.app)
        matcher = self.matcher(query)
        with dashboard.source.lock:
            records = [dashboard.source.state.records[run_id] for run_id in dashboard.source.state.runs()]
        for place, record in enumerate(best(records, query, lambda text: matcher.match(text) > 0)):
            name = _name(record)
            # The palette sorts by score: what is meant most likely stands first.
            yield Hit(1.0 - place / (2 * MOST), Content(name), self._open(record.id), text=name)

    def _open(self, run_id: str) -> Callable[[], None]:
        dashboard = cast("Dashboard", self.app)

        def show() -> None:
            dashboard.open_run(run_id)

        return show


def best(records: Sequence[Record], query: str, resembles: Callable[[str], bool]) -> list[Record]:
    """The runs that are most likely meant, at most `MOST`.

    First those that are called so, then those whose names contain it, then those that resemble it; of each kind in the
    order of `records`.
    """
    wanted = query.lower().strip()
    called = [
        record for record in records if wanted in (record.id, record.topic.lower(), (record.unique or "").lower())
    ]
    found = {record.id: record for record in called[:MOST]}
    for fits, among in ((lambda name: wanted in name.lower(), records), (resembles, records[:RESEMBLE])):
        for record in among:
            if len(found) >= MOST:
                break
            if record.id not in found and fits(_name(record)):
                found[record.id] = record
    return list(found.values())


def _name(record: Record) -> str:
    return clean(f"{record.topic} {record.id} {record.unique or ''}", 120).strip()
