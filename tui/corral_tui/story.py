"""All that is stored about one task, in order: when it was sent, tried, failed, ended, and by whom."""

from __future__ import annotations

from dataclasses import dataclass, field

from corral import events
from corral.events import AnyEvent
from corral.messages import TaskId, task_text
from corral.parts import named
from corral_tui import figures
from corral_tui.describe import error_view
from corral_tui.text import clean
from corral_tui.values import ErrorView


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened to the task. `at` is when the server stored it, in seconds since the epoch."""

    sequence: int
    at: float
    kind: str
    text: str
    """Cleaned already."""


@dataclass(slots=True)
class Story:
    """The fold of a run's events about one of its tasks."""

    task: TaskId
    steps: list[Step] = field(default_factory=list)
    errors: list[ErrorView] = field(default_factory=list)
    """Why it failed; in each round at most once for good."""
    complete: bool = False
    """All that is stored has been read."""

    def apply(self, sequence: int, at: float, event: AnyEvent) -> None:
        """Take over what an event says of the task."""
        if isinstance(event, events.Failed) and event.task == self.task:
            self.errors.append(error_view(at, event))
        if said := self._said(sequence, event):
            self.steps.append(Step(sequence, at, said[0], clean(said[1], 300)))

    def _said(self, sequence: int, event: AnyEvent) -> tuple[str, str] | None:  # noqa: C901, PLR0911, PLR0912  one for each kind
        batch, ordinal = self.task
        match event:
            case events.Opened():
                if sequence == batch:
                    return "batch", f"its batch is opened by task {task_text(event.parent)}"
                if event.parent == self.task:
                    return "sends", f"begins to send batch {sequence}"
            case events.Sent() if event.batch == batch and event.first <= ordinal < event.count:
                topic = event.topics[ord(event.layout[ordinal - event.first]) - 48] if event.layout else event.topics[0]
                return "queued", f"{topic} is in the queue"
            case events.Ended():
                return _end(self.task, event)
            case events.Retrying() if event.task == self.task:
                why = f": {event.error}" if event.error else ""
                return "retrying", f"again in {figures.long(event.delay)} as attempt {event.attempt}{why}"
            case events.Failed() if event.task == self.task:
                return "failed", f"attempt {event.attempt} on {event.worker}: {event.error}: {event.message}"
            case events.Crashed() if self.task in [tuple(task) for task in event.tasks]:
                return "crashed", f"worker {event.worker} died under it{f': {event.reason}' if event.reason else ''}"
            case events.Reopened():
                if any(into == batch and ordinal in ordinals for into, ordinals in named(event)):
                    return "reopened", f"a retry brings it back in round {event.round}"
            case events.Interrupted():
                return "interrupted", f"the run is ordered to stop by {event.by or 'unknown'}"
            case events.RunEnded():
                return "run-ended", "the run is over"
            case _:
                return None
        return None


def _end(task: TaskId, event: events.Ended) -> tuple[str, str] | None:
    batch, ordinal = task
    for ends in event.tasks:
        if ends.batch == batch and _within(ordinal, ends.ranges):
            return "ended", f"{ends.outcome} on {event.worker}"
    for end in event.dispatchers:
        if tuple(end.task) == task:
            sent = sum(count for _, count in end.sent)
            return "ended", f"{end.outcome} on {event.worker}, having sent {figures.plural(sent, 'task')}"
    return None


def _within(ordinal: int, ranges: list[events.Range]) -> bool:
    return any(first <= ordinal < last for first, last in ranges)
