"""The question before a run is stopped or brought back. The default is No."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, cast

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input

from corral.ledger import Counts
from corral_tui import figures, view
from corral_tui.spans import Line, line
from corral_tui.text import clean
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
    """A question, repainted while it waits for the answer."""

    @abstractmethod
    def tick(self, now: float) -> None:
        """Say it as it is now. The state's lock is held."""


class ConfirmOne(Confirm, inherit_bindings=False):
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


class ConfirmInterrupt(ConfirmOne):
    """Whether to stop a run."""

    VERB = "Interrupt"
    ROLE = "error"

    def moot(self, run: RunView | None) -> str:
        return "has ended" if run is None or run.ended else ""

    def impact(self, run: RunView) -> str:
        return view.impact_text(run)


class ConfirmRetry(ConfirmOne):
    """Whether to bring back what of a run ended badly."""

    VERB = "Retry"
    ROLE = "strong"

    def moot(self, run: RunView | None) -> str:
        if run is None:
            return "has expired"
        return "" if run.ended else "is under way again"

    def impact(self, run: RunView) -> str:
        return view.retry_text(run)


class Word(Input):
    """Where the word is typed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "do it if the word is there", key_display="enter"),
        Binding("escape", "screen.answer(False)", "no", key_display="esc"),
    ]


class ConfirmMany(Confirm, inherit_bindings=False):
    """Whether to stop or bring back several runs: only with the word typed."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "answer(False)", "no", key_display="esc")]

    def __init__(self, word: str, run_ids: list[str]) -> None:
        super().__init__()
        self._word = word
        self._run_ids = run_ids

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            yield Lines(id="question", raised=True)
            yield Word(id="word", compact=True, placeholder=self._word)

    def on_mount(self) -> None:
        cast("Dashboard", self.app).tick()
        self.query_one(Word).focus()

    def tick(self, now: float) -> None:
        """The impact on all of them, as it is now."""
        state = cast("Dashboard", self.app).source.state
        runs = [run for name in self._run_ids if (run := state.run(name, now)) is not None]
        title = line((f"{self._word.capitalize()} {figures.plural(len(runs), 'run')}?", "strong"))
        if not runs:
            self.query_one("#question", Lines).show([line((f"none of them is to {self._word}", "strong")), ()])
            return
        counts = sum((run.counts for run in runs), Counts())
        bad, done = counts.error + counts.interrupted, counts.success + counts.error
        what = (
            f"removes {figures.count(counts.pending)} queued, stops {figures.count(counts.running)} running;"
            f" {figures.count(done)} stay done"
            if self._word == "interrupt"
            else f"brings back {figures.plural(bad, 'task')}; {figures.count(counts.success)} stay done"
        )
        names = ", ".join(run.topic for run in runs[:4]) + (f" and {len(runs) - 4} more" if len(runs) > 4 else "")
        asks = line(("type ", "dim"), (self._word, "error"), (" to do it, esc for no", "dim"))
        self.query_one("#question", Lines).show(
            [title, (), line((what, "text")), line((clean(names), "dim")), (), asks]
        )

    def action_answer(self, yes: bool) -> None:  # noqa: FBT001  bindings pass plain values
        self.dismiss(yes)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if event.value.strip().lower() == self._word:
            self.dismiss(True)  # noqa: FBT003  the answer
