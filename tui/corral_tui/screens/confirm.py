"""The question before a run is stopped or brought back. The default is No."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, cast

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen

from corral_tui import view
from corral_tui.spans import Line, line
from corral_tui.values import RunView
from corral_tui.widgets.lines import Lines

if TYPE_CHECKING:
    from corral_tui.app import Dashboard


class Choice(Lines, can_focus=True):
    """No or yes, the chosen one in brackets."""

    def __init__(self, yes: str, role: str) -> None:
        super().__init__(id="choice", raised=True)
        self._yes = yes
        self._role = role
        self.chosen = False

    def on_mount(self) -> None:
        self.choose(yes=False)

    def choose(self, *, yes: bool) -> None:
        """Move to No or Yes."""
        self.chosen = yes
        no_text, yes_text = ("  No  ", f"[ {self._yes} ]") if yes else ("[ No ]", f"  {self._yes}  ")
        answers = line((no_text, "dim" if yes else "strong"), ("   ", "text"), (yes_text, self._role if yes else "dim"))
        self.show([answers], [line((f"y {self._yes.lower()}   esc no", "faint"))])

    def on_click(self, event: events.Click) -> None:
        on_no, on_yes = 1 <= event.x < 7, 10 <= event.x < 14 + len(self._yes)
        if on_no or on_yes:
            self.screen.dismiss(on_yes)


class Confirm(ModalScreen[bool], inherit_bindings=False):
    """Names what an order does, live, while it waits for the answer."""

    VERB: ClassVar[str]
    ROLE: ClassVar[str]
    """What a yes looks like."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,n,q", "answer(False)", "no", key_display="esc"),
        Binding("y", "answer(True)", "yes", show=False),
        Binding("enter", "take", "take the answer"),
        Binding("left,right,h,l,tab,shift+tab,up,down", "turn", "other answer"),
    ]

    def __init__(self, run_id: str) -> None:
        super().__init__()
        self.run_id = run_id

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            yield Lines(id="question", raised=True)
            yield Choice(self.VERB, self.ROLE)

    def on_mount(self) -> None:
        cast("Dashboard", self.app).tick()
        self.query_one(Choice).focus()

    @abstractmethod
    def moot(self, run: RunView | None) -> str:
        """What has happened to the run meanwhile, so that there is nothing left to ask; empty if nothing has."""

    @abstractmethod
    def impact(self, run: RunView) -> str:
        """What the order would do now."""

    def tick(self, now: float) -> None:
        """The impact as it is now. The state's lock is held."""
        run = cast("Dashboard", self.app).source.state.run(self.run_id, now)
        moot = self.moot(run)
        if run is None or moot:
            said: Line = line((f"run {self.run_id} {moot}", "strong"))
            self.query_one("#question", Lines).show([said, (), ()])
            return
        title = line(
            (f"{self.VERB} ", "strong"), (run.topic, "strong"), (" ", "text"), (run.id, "accent"), ("?", "strong")
        )
        self.query_one("#question", Lines).show([title, (), line((self.impact(run), "text")), ()])

    def action_answer(self, yes: bool) -> None:  # noqa: FBT001  bindings pass plain values
        self.dismiss(yes)

    def action_take(self) -> None:
        self.dismiss(self.query_one(Choice).chosen)

    def action_turn(self) -> None:
        choice = self.query_one(Choice)
        choice.choose(yes=not choice.chosen)


class ConfirmInterrupt(Confirm):
    """Whether to stop a run."""

    VERB = "Interrupt"
    ROLE = "error"

    def moot(self, run: RunView | None) -> str:
        return "has ended" if run is None or run.ended else ""

    def impact(self, run: RunView) -> str:
        return view.impact_text(run)


class ConfirmRetry(Confirm):
    """Whether to bring back what of a run ended badly."""

    VERB = "Retry"
    ROLE = "strong"

    def moot(self, run: RunView | None) -> str:
        if run is None:
            return "has expired"
        return "" if run.ended else "is under way again"

    def impact(self, run: RunView) -> str:
        return view.retry_text(run)
