"""The line of keys at the foot, made from the bindings that are in force."""

from __future__ import annotations

from textual import events
from textual.binding import Binding
from textual.screen import Screen

from corral_tui.widgets.lines import Lines

LASTING = ("help", "leave", "interrupt", "retry")
"""Actions whose keys are shown however narrow it is."""


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
        shown: dict[str, Binding] = {}
        for active in screen.active_bindings.values():
            if active.binding.show:
                shown.setdefault(active.binding.action, active.binding)
        offered = list(shown.values())
        # Where not all fit, `?` lists them: it stays, and so do orders and the way out.
        while sum(self._width(each) + 3 for each in offered) - 1 > self.size.width > 0:
            less = next((each for each in reversed(offered) if each.action not in LASTING), None)
            if less is None:
                break
            offered.remove(less)
        spans: list[tuple[str, str]] = []
        self._places, at = [], 1
        for binding in offered:
            spans += [(self._key(binding), "accent"), (f" {binding.description}", "dim"), ("   ", "text")]
            self._places.append((at, at + self._width(binding), binding.key))
            at += self._width(binding) + 3
        self.show([tuple(spans[:-1])])

    def on_resize(self) -> None:
        self._changed(self.screen)

    def _key(self, binding: Binding) -> str:
        return binding.key_display or self.app.get_key_display(binding)

    def _width(self, binding: Binding) -> int:
        return len(self._key(binding)) + 1 + len(binding.description)

    def on_click(self, event: events.Click) -> None:
        for start, end, key in self._places:
            if start <= event.x < end:
                self.app.simulate_key(key)
