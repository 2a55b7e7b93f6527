"""A run as it was: its stored events play again."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType

from corral_tui.look import Look
from corral_tui.replay import Replay
from corral_tui.screens.run import RunScreen
from corral_tui.spans import Line

PATIENCE = 0.05
"""Seconds that folding may take of a repaint."""


class ReplayScreen(RunScreen):
    """The run screen over a replay. Nothing can be ordered here."""

    BINDINGS: ClassVar[list[BindingType]] = [
        # Before the lists, in which it marks: there is nothing to mark here.
        Binding("space", "play", "play, pause", priority=True),
        Binding("left_square_bracket", "skip(-1)", "earlier", key_display="["),
        Binding("right_square_bracket", "skip(1)", "later", key_display="]"),
        Binding("left_curly_bracket", "step(-1)", "an event earlier", show=False, key_display="{"),
        Binding("right_curly_bracket", "step(1)", "an event later", show=False, key_display="}"),
        Binding("less_than_sign", "faster(-1)", "slower", show=False, key_display="<"),
        Binding("greater_than_sign", "faster(1)", "faster", key_display=">"),
        Binding("0", "seek(0)", "to the beginning", show=False),
        Binding("9", "seek(1)", "to the end", show=False),
    ]

    def __init__(self, replay: Replay) -> None:
        super().__init__(replay.record.id)
        self.replay = replay
        self._ticked_at: float | None = None

    def look_at(self, run_id: str | None) -> None:
        """The live run goes on being read for the screen below."""

    def look(self, now: float) -> Look | None:
        """The run as it stood; on the way there, as far as it is."""
        if self._ticked_at is not None:
            self.replay.passed(max(0.0, now - self._ticked_at))
        self._ticked_at = now
        clock = self.dashboard.stopwatch
        began = clock()
        while not self.replay.arrived and clock() - began < PATIENCE:
            self.replay.work()
        return self.replay.look()

    def notice(self, now: float) -> Line:
        del now
        return self.replay.said(self.size.width)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("interrupt", "retry", "workers", "replay"):
            return False
        return super().check_action(action, parameters)

    def action_play(self) -> None:
        self.replay.play()
        self.dashboard.tick()

    def action_skip(self, steps: int) -> None:
        self.replay.skip(steps)
        self.dashboard.tick()

    def action_step(self, events: int) -> None:
        self.replay.step(events)
        self.dashboard.tick()

    def action_faster(self, by: int) -> None:
        self.replay.faster(by)
        self.dashboard.tick()

    def action_seek(self, share: int) -> None:
        self.replay.seek(self.replay.begins + share * (self.replay.ends - self.replay.begins))
        self.dashboard.tick()
