"""The question before a run is stopped or brought back, or a worker told to leave. The default is No."""

from __future__ import annotations

import textwrap
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, cast

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input

from corral.leaving import How
from corral.ledger import Counts
from corral_tui import figures, view
from corral_tui.leaving import fitting, impact
from corral_tui.spans import Line, line
from corral_tui.state import State
from corral_tui.text import clean
from corral_tui.values import RunView, Selected
from corral_tui.widgets.lines import Lines

if TYPE_CHECKING:
    from corral_tui.app import Dashboard

BOX, EDGE = 72, 8
"""Cells of a question at most, and those of its edges."""
KINDS = 4
"""Kinds of errors that a question names."""


def wrapped(lines: Sequence[Line], width: int) -> list[Line]:
    """What is asked, in as many lines as it takes on a terminal of this width: none of it is cut."""
    out: list[Line] = []
    for spans in lines:
        if len(spans) == 1:
            text, role = spans[0]
            out += [line((part, role)) for part in textwrap.wrap(text, min(BOX, width * 96 // 100) - EDGE)]
        else:
            out.append(spans)
    return out


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
        self.show([answers], [line((f"y {self._yes.lower()}   esc no", "dim"))])

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

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            yield Lines(id="question", raised=True)
            yield Choice(self.VERB, self.ROLE)

    def on_mount(self) -> None:
        cast("Dashboard", self.app).tick()
        self.query_one(Choice).focus()

    @abstractmethod
    def question(self, state: State, now: float) -> list[Line]:
        """What is asked, or why there is nothing left to ask. The state's lock is held."""

    def tick(self, now: float) -> None:
        """The impact as it is now. The state's lock is held."""
        state = cast("Dashboard", self.app).source.state
        self.query_one("#question", Lines).show([*wrapped(self.question(state, now), self.app.size.width), ()])

    def action_answer(self, yes: bool) -> None:  # noqa: FBT001  bindings pass plain values
        self.dismiss(yes)

    def action_take(self) -> None:
        self.dismiss(self.query_one(Choice).chosen)

    def action_turn(self) -> None:
        choice = self.query_one(Choice)
        choice.choose(yes=not choice.chosen)


class ConfirmRun(ConfirmOne):
    """About one run."""

    def __init__(self, run_id: str) -> None:
        super().__init__()
        self.run_id = run_id

    def verb(self) -> str:
        """What is to be done with it."""
        return self.VERB

    @abstractmethod
    def moot(self, run: RunView | None) -> str:
        """What has happened to the run meanwhile, so that there is nothing left to ask; empty if nothing has."""

    @abstractmethod
    def impact(self, run: RunView) -> str:
        """What the order would do now."""

    def details(self) -> list[Line]:
        """What it is about, in more words."""
        return []

    def question(self, state: State, now: float) -> list[Line]:
        run = state.run(self.run_id, now)
        moot = self.moot(run)
        if run is None or moot:
            return [line((f"run {self.run_id} {moot}", "strong")), ()]
        verb = self.verb()
        title = line((f"{verb} {clean(run.topic, 50 - len(verb))} ", "strong"), (run.id, "accent"), ("?", "strong"))
        return [title, (), line((self.impact(run), "text")), *self.details()]


class ConfirmLeave(ConfirmOne):
    """Whether a worker is to leave."""

    HOW: ClassVar[How]

    def __init__(self, worker: str) -> None:
        super().__init__()
        self.worker = worker

    def question(self, state: State, now: float) -> list[Line]:
        workers = state.workers(now)
        chosen = fitting(self.HOW, [worker for worker in workers if worker.id == self.worker])
        name = (clean(self.worker, 40), "accent")
        if not chosen:
            return [line(("worker ", "strong"), name, (" leaves already, or is gone", "strong")), ()]
        title = line((f"{self.VERB} worker ", "strong"), name, (f" on {clean(chosen[0].host, 30)}?", "strong"))
        return [title, (), *impact(self.HOW, chosen, [worker for worker in workers if worker.id != self.worker])]


class ConfirmDrain(ConfirmLeave):
    """Whether a worker is to finish what it has and leave."""

    VERB, ROLE, HOW = "Drain", "strong", "drain"


class ConfirmStop(ConfirmLeave):
    """Whether a worker is to hand back what it has and leave."""

    VERB, ROLE, HOW = "Stop", "error", "stop"


class ConfirmInterrupt(ConfirmRun):
    """Whether to stop a run."""

    VERB = "Interrupt"
    ROLE = "error"

    def moot(self, run: RunView | None) -> str:
        return "has ended" if run is None or run.ended else ""

    def impact(self, run: RunView) -> str:
        return view.impact_text(run)


class ConfirmRetry(ConfirmRun):
    """Whether to bring back what of a run ended badly, or some of it."""

    VERB = "Retry"
    ROLE = "strong"

    def __init__(self, run_id: str, selected: Selected | None = None) -> None:
        super().__init__(run_id)
        self.selected = selected

    def verb(self) -> str:
        tasks = self.selected.tasks if self.selected is not None else ()
        return f"{self.VERB} {figures.plural(len(tasks), 'task')} of" if tasks else self.VERB

    def details(self) -> list[Line]:
        kinds = self.selected.kinds if self.selected is not None else ()
        more = [f"and {len(kinds) - KINDS} more kinds"] if len(kinds) > KINDS else []
        return [line((text, "dim")) for text in (*kinds[:KINDS], *more)]

    def moot(self, run: RunView | None) -> str:
        if run is None:
            return "has expired"
        return "" if run.ended else "is under way again"

    def impact(self, run: RunView) -> str:
        return view.retry_text(run) if self.selected is None else view.retry_some_text(run, self.selected)


class Word(Input):
    """Where the word is typed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "do it if the word is there", key_display="enter"),
        Binding("escape", "screen.answer(False)", "no", key_display="esc"),
    ]


class ConfirmMany(Confirm, inherit_bindings=False):
    """Something that is done to several at once: only with the word typed."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "answer(False)", "no", key_display="esc")]

    def __init__(self, word: str, names: list[str]) -> None:
        super().__init__()
        self.word = word
        self.names = names

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            yield Lines(id="question", raised=True)
            yield Word(id="word", compact=True)

    def on_mount(self) -> None:
        cast("Dashboard", self.app).tick()
        self.query_one(Word).focus()

    @abstractmethod
    def question(self, state: State, now: float) -> list[Line]:
        """What is asked; empty if there is nothing left to ask about. The state's lock is held."""

    def tick(self, now: float) -> None:
        """The impact on all of them, as it is now."""
        said = self.question(cast("Dashboard", self.app).source.state, now)
        asks = line(("type ", "dim"), (self.word, "error"), (" to do it, esc for no", "dim"))
        nothing: list[Line] = [line((f"none of them is to {self.word}", "strong")), ()]
        self.query_one("#question", Lines).show([*wrapped(said, self.app.size.width), (), asks] if said else nothing)

    def action_answer(self, yes: bool) -> None:  # noqa: FBT001  bindings pass plain values
        self.dismiss(yes)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if event.value.strip().lower() == self.word:
            self.dismiss(True)  # noqa: FBT003  the answer


class ConfirmRuns(ConfirmMany):
    """Whether to stop or bring back several runs."""

    def question(self, state: State, now: float) -> list[Line]:
        runs = [run for name in self.names if (run := state.run(name, now)) is not None]
        if not runs:
            return []
        title = line((f"{self.word.capitalize()} {figures.plural(len(runs), 'run')}?", "strong"))
        counts = sum((run.counts for run in runs), Counts())
        bad, done = counts.error + counts.interrupted, counts.success + counts.error
        what = (
            f"removes {figures.count(counts.pending)} queued, stops {figures.count(counts.running)} running;"
            f" {figures.count(done)} stay done"
            if self.word == "interrupt"
            else f"brings back {figures.plural(bad, 'task')}; {figures.count(counts.success)} stay done"
        )
        return [title, (), line((what, "text")), line((clean(_topics(runs)), "dim"))]


def _topics(runs: Sequence[RunView]) -> str:
    """Of which topics they are, the most first, and how many of each."""
    counted = Counter(run.topic for run in runs).most_common()
    said = [f"{figures.count(count)} of {topic}" if count > 1 else topic for topic, count in counted[:4]]
    more = f" and {figures.plural(len(counted) - 4, 'more topic', 'more topics')}" if len(counted) > 4 else ""
    return ", ".join(said) + more


class ConfirmLeaveMany(ConfirmMany):
    """Whether several workers are to leave."""

    def __init__(self, how: How, names: list[str]) -> None:
        super().__init__(how, names)
        self._how: How = how

    def question(self, state: State, now: float) -> list[Line]:
        workers = state.workers(now)
        chosen = fitting(self._how, [worker for worker in workers if worker.id in self.names])
        if not chosen:
            return []
        title = line((f"{self.word.capitalize()} {figures.plural(len(chosen), 'worker')}?", "strong"))
        return [title, (), *impact(self._how, chosen, [worker for worker in workers if worker.id not in self.names])]
