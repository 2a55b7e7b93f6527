"""One task: all that is stored about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, ClassVar, Literal

from textual import work
from textual.binding import Binding, BindingType
from textual.widget import Widget

from corral.errors import CorralError
from corral.messages import ROOT, TaskId, task_text
from corral_tui import taskview
from corral_tui.screens.base import LiveScreen
from corral_tui.spans import Line, line
from corral_tui.story import Story
from corral_tui.values import Selected
from corral_tui.widgets.lines import Lines
from corral_tui.widgets.pane import Pane


class TaskScreen(LiveScreen):
    """What happened to it, and why it failed if it did. It is read again when it stands otherwise, and with `R`."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "app.back", "back", key_display="esc"),
        Binding("r", "retry_task", "retry task"),
        Binding("R,f5", "again", "read again", key_display="R"),
    ]
    AUTO_FOCUS = "Pane"

    def __init__(self, run_id: str, task: TaskId) -> None:
        super().__init__()
        self.run_id, self.task_id = run_id, task
        self._story = Story(task)
        self._problem = ""
        self._stood: object = None
        """How it stood when its story was read."""
        self._ended_as: Literal["error", "interrupted"] | None = None
        """How it stands in a run that is over, if that can be retried."""

    def body(self) -> Iterable[Widget]:
        yield Lines(id="head")
        yield Pane(id="story")

    def on_mount(self) -> None:
        super().on_mount()
        self.action_again()

    @work(exclusive=True)
    async def action_again(self) -> None:
        """Read what is stored about it."""
        try:
            self._story = await self.dashboard.source.story(self.run_id, self.task_id)
        except CorralError as error:
            self._problem = str(error)
        self.dashboard.tick()

    def repaint(self, now: float) -> None:
        state = self.dashboard.source.state
        run = state.run(self.run_id, now)
        ledger = state.ledger(self.run_id)
        title: Line = line(("task ", "dim"), (task_text(self.task_id), "strong"))
        if run is not None:
            title = (*title, ("  of  ", "dim"), (run.topic, "strong"), ("  ", "text"), (run.id, "accent"))
        named = {each.task: each for each in state.at_work(self.run_id, now)}
        stands: Line = ()
        if ledger is not None:
            stands = taskview.task_stands(self.task_id, ledger, named.get(self.task_id), now)
            self._read_on(taskview.standing(self.task_id, ledger), read=state.detail is None or state.detail.caught_up)
        self.query_one("#head", Lines).show([(), title, stands, ()])
        outcome = ledger.tree.outcome(self.task_id) if ledger is not None else None
        ended_as = outcome if outcome in ("error", "interrupted") and run is not None and run.ended else None
        if ended_as != self._ended_as:
            self._ended_as = ended_as
            self.refresh_bindings()
        body = state.body(self.run_id) if self.task_id == ROOT else b""
        self.query_one(Pane).show(taskview.story_lines(self._story, body, self._problem))

    def _read_on(self, stands: object, *, read: bool) -> None:
        """Read its story again once it stands otherwise; what is read of the run for the first time is no news."""
        if not self._story.complete or not read:
            return
        if self._stood is not None and stands != self._stood:
            self.action_again()
        self._stood = stands

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "retry_task":
            return self._ended_as is not None and not self.dashboard.read_only
        return super().check_action(action, parameters)

    def action_retry_task(self) -> None:
        """Bring this task back."""
        if self._ended_as is None:
            return
        kinds = tuple(f"{error.type}  {error.message}" for error in self._story.errors[-1:])
        selected = Selected((task_text(self.task_id),), kinds if self._ended_as == "error" else (), self._ended_as)
        self.dashboard.ask_retry_some(self.run_id, selected)

    def copied(self) -> str:
        errors = self._story.errors
        return "\n".join(errors[-1].traceback) if errors else task_text(self.task_id)

    def exported(self) -> Any:
        return {"run": self.run_id, "task": task_text(self.task_id), "story": asdict(self._story)}
