"""The fold of one run's events, as the dashboard keeps it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from corral.events import AnyEvent, Ended, Failed
from corral.ledger import Ledger
from corral.messages import parse_task, task_text
from corral.runs import Record
from corral_tui.describe import ended_in, event_view
from corral_tui.fronts import NONE, Fronts, Stragglers
from corral_tui.groups import Groups, GroupView
from corral_tui.pulse import Pulse
from corral_tui.values import ErrorView, EventView, RunView

KEPT_EVENTS, KEPT_ERRORS = 10_000, 1_000
"""What is kept of the run that is looked at; older ones are only counted."""


class Fold:
    """The live counts of one run."""

    __slots__ = ("complete", "ledger", "moved_at", "pulse", "view")

    def __init__(self, topic: str) -> None:
        self.ledger = Ledger(topic)
        self.pulse = Pulse()
        self.complete = True
        """From the run's first event on; else the record's counts are the better ones."""
        self.moved_at = 0.0
        """When an event came that the record did not have, by the local clock; 0 while the record is up to date."""
        self.view: tuple[tuple[object, ...], RunView] | None = None
        """The last view of it, and what that was made of."""

    def apply(self, sequence: int, at: float, event: AnyEvent) -> None:
        before, round = self.ledger.sequence, self.ledger.round
        self.ledger.apply(event, sequence, at)
        if sequence > before:
            self.pulse.add(at, ended_in(event))
            if self.ledger.round > round:  # a retry may be said in many parts, and with the last one it begins
                self.pulse.resumed_at = at

    def agrees(self, record: Record) -> bool:
        """False if the record of the same event says otherwise: the fold has missed something, and is not shown."""
        if record.seq != self.ledger.sequence:
            return True
        mine, counts = self.ledger.counts()[0], record.counts
        return (mine.total, mine.success, mine.error) == (counts.total, counts.success, counts.error)


class Work:
    """What one worker has done for a run."""

    __slots__ = ("error", "interrupted", "last_at", "pulse", "success")

    def __init__(self) -> None:
        self.success = self.error = self.interrupted = 0
        self.last_at = 0.0
        self.pulse = Pulse(kept=80)

    def add(self, event: Ended, at: float) -> None:
        """Tasks have ended there; those that had ended elsewhere before are among them."""
        for ends in event.tasks:
            self._add(ends.outcome, sum(last - first for first, last in ends.ranges))
        for end in event.dispatchers:
            self._add(end.outcome, 1)
        self.last_at = at
        self.pulse.add(at, ended_in(event))

    def _add(self, outcome: str, count: int) -> None:
        if outcome == "success":
            self.success += count
        elif outcome == "error":
            self.error += count
        else:
            self.interrupted += count


class Detail:
    """One run in depth: its own fold of all its events, and the last of them."""

    def __init__(self, run_id: str, topic: str, *, events: int = KEPT_EVENTS, errors: int = KEPT_ERRORS) -> None:
        self.run_id = run_id
        self.fold = Fold(topic)
        self.events: OrderedDict[str, EventView] = OrderedDict()
        """By sequence, the newest last."""
        self.errors: OrderedDict[str, ErrorView] = OrderedDict()
        """By task and round, the newest last."""
        self.groups = Groups()
        self.fronts = Fronts()
        self.work: dict[str, Work] = {}
        """By worker."""
        self.first = 0
        """The sequence of its first event; 0 before there is one."""
        self.seen_events = 0
        self.seen_errors = 0
        self.caught_up = False
        """All that was stored when it was opened has been read."""
        self._stragglers: tuple[float, Stragglers] = (0.0, NONE)
        self._event_limit, self._error_limit = events, errors

    def stragglers(self, now: float) -> Stragglers:
        """What was overtaken long ago, by the server's clock; looked up once a second."""
        looked_at, found = self._stragglers
        if not 0 <= now - looked_at < 1:
            found = self.fronts.stragglers(self.fold.ledger.tree, self.fold.ledger.durations, now)
            self._stragglers = now, found
        return found

    def group_views(self) -> list[GroupView]:
        """The groups of its errors, as they stand."""
        return self.groups.views(self.fold.ledger.tree, self.fold.ledger.sequence)

    def retried(self, error: ErrorView) -> bool:
        """Whether a retry has brought its task back since."""
        return self.fold.ledger.tree.stale(parse_task(error.task), error.round)

    def standing(self, errors: Iterable[ErrorView]) -> list[str]:
        """Their tasks, each once, as far as they count and stand in error."""
        tree, tasks = self.fold.ledger.tree, {error.task: parse_task(error.task) for error in errors}
        return [text for text, task in tasks.items() if tree.outcome(task) == "error" and tree.is_counted(task)]

    def standing_in(self, groups: Iterable[str]) -> list[str]:
        """The tasks of these groups that stand in error."""
        return [task_text(task) for task in self.groups.standing(groups, self.fold.ledger.tree)]

    def apply(self, sequence: int, at: float, event: AnyEvent) -> None:
        """Fold one event of this run; an event that was applied already is left out."""
        if sequence <= self.fold.ledger.sequence:
            return
        round = self.fold.ledger.round
        self.first = self.first or sequence
        self.fold.apply(sequence, at, event)
        if self.fold.ledger.round > round:
            self.fronts.begin(sequence)
        self.seen_events += 1
        self.events[str(sequence)] = event_view(sequence, at, event)
        if len(self.events) > self._event_limit:
            self.events.popitem(last=False)
        if isinstance(event, Failed):
            # None where a task fails twice because its worker was taken for dead.
            if (error := self.groups.apply(at, event)) is not None:
                self.seen_errors += 1
                self.errors[error.key] = error
                if len(self.errors) > self._error_limit:
                    self.errors.popitem(last=False)
        elif isinstance(event, Ended):
            self.fronts.note(event, at)
            self.work.setdefault(event.worker, Work()).add(event, at)
