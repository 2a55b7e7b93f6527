"""The line of keys at the foot, made from the bindings that are in force."""

from __future__ import annotations

from textual import events
from textual.binding import Binding
from textual.screen import Screen

from corral_tui.spans import Line
from corral_tui.widgets.lines import Lines

KEPT = (
    "help",
    "clear",
    "app.back",
    "back",
    "close_group",
    "fit",
    "interrupt",
    "retry",
    "retry_group",
    "retry_task",
    "drain",
    "stop",
    "play",
    "skip(-1)",
    "skip(1)",
)
"""Actions whose keys stand there however narrow it is."""


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
        found: dict[str, tuple[str, Binding]] = {}
        for active in screen.active_bindings.values():
            binding = active.binding
            if binding.show and binding.action not in found:
                found[binding.action] = (binding.key_display or self.app.get_key_display(binding), binding)
        shown, gap = self._fitting(list(found.values()))
        spans: list[tuple[str, str]] = []
        self._places, at = [], 1
        for key, binding in shown:
            spans += [(key, "accent"), (f" {binding.description}", "dim"), (" " * gap, "text")]
            width = len(key) + 1 + len(binding.description)
            self._places.append((at, at + width, binding.key))
            at += width + gap
        keys: Line = tuple(spans[:-1])
        self.show([keys])

    def _fitting(self, keys: list[tuple[str, Binding]]) -> tuple[list[tuple[str, Binding]], int]:
        """Those that there is room for, and the cells between them. What is left out stands in the help."""
        room = self.size.width - 2
        while True:
            taken = sum(len(key) + 1 + len(binding.description) for key, binding in keys)
            for gap in (3, 2):
                if taken + gap * (len(keys) - 1) <= room:
                    return keys, gap
            spare = [each for each in keys if each[1].action not in KEPT]
            if not spare:
                return keys, 2
            keys = [each for each in keys if each is not spare[-1]]

    def on_resize(self) -> None:
        self._changed(self.screen)

    def on_click(self, event: events.Click) -> None:
        for start, end, key in self._places:
            if start <= event.x < end:
                self.app.simulate_key(key)
