"""The line of keys at the foot, made from the bindings that are in force."""

from __future__ import annotations

from textual import events
from textual.screen import Screen

from corral_tui.spans import Line
from corral_tui.widgets.lines import Lines


class Keys(Lines):
    """What can be done now, and by which key; a click does it."""

    DEFAULT_CSS = """
    Keys { height: 1; dock: bottom; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._places: list[tuple[int, int, str]] = []

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, self._changed)
        self._changed(self.screen)

    def _changed(self, screen: Screen[object]) -> None:
        spans: list[tuple[str, str]] = []
        self._places, at = [], 1
        seen: set[str] = set()
        for active in screen.active_bindings.values():
            binding = active.binding
            if not binding.show or binding.action in seen:
                continue
            seen.add(binding.action)
            key = binding.key_display or self.app.get_key_display(binding)
            spans += [(key, "accent"), (f" {binding.description}", "dim"), ("   ", "text")]
            width = len(key) + 1 + len(binding.description)
            self._places.append((at, at + width, binding.key))
            at += width + 3
        keys: Line = tuple(spans)
        self.show([keys])

    def on_click(self, event: events.Click) -> None:
        for start, end, key in self._places:
            if start <= event.x < end:
                self.app.simulate_key(key)
