"""The numbers on the screen are the ledger's, at every event of any history."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from corral.events import Failed
from corral.ledger import Ledger
from corral_tui import head
from corral_tui.fold import Detail
from corral_tui.groups import GroupView
from corral_tui.spans import plain
from corral_tui.state import State
from corral_tui.taskmap import TaskMap
from corral_tui.values import RunView
from tests.tui.scenes import NOW, record
from tests.unit.histories import History, Simulation, Tape, garbage

tapes = st.binary(max_size=300)


def replayed(history: History) -> None:
    """Fold it side by side, and compare after every event."""
    state, alone = State(), Ledger("root")
    state.put_record(record("a", "root"))
    detail = state.detail = Detail("a", "root")
    detail.caught_up = True
    tasks = TaskMap()
    for sequence, event in history:
        alone.apply(event, sequence, NOW)
        state.apply("a", sequence, NOW, event, NOW)
        detail.apply(sequence, NOW, event)
        run = state.run("a", NOW)
        assert run is not None
        counts, topics = alone.counts()
        assert (run.counts, run.topics) == (counts, topics)
        assert said(run) == [counts.total, counts.pending, 0, counts.success, counts.error, counts.interrupted]
        tasks.update(detail.fold.ledger, detail.fronts.tops())
        tally = tasks.tally(0, tasks.total)
        assert (tally.total, tally.success, tally.error, tally.interrupted) == (
            counts.total,
            counts.success,
            counts.error,
            counts.interrupted,
        )
        assert tally.pending + tally.running + tally.retrying == counts.pending
        assert sum(group.count for group in groups(detail)) <= counts.error
        check_cells(tasks)


def said(run: RunView) -> list[int]:
    """The numbers of the conservation line."""
    words = plain(head.conservation(run, 200, agrees=None)[0]).split("  ")[0]
    return [int(word.replace(",", "")) for word in words.split() if word.replace(",", "").isdecimal()]


def groups(detail: Detail) -> list[GroupView]:
    return detail.groups.views(detail.fold.ledger.tree, detail.fold.ledger.sequence)


def check_cells(tasks: TaskMap) -> None:
    """A cell of many shows the worst of its tasks."""
    each = tasks.cells(0, tasks.total, 1)
    for per in (2, 5):
        wide = tasks.cells(0, -(-tasks.total // per), per)
        for cell, shown in enumerate(wide):
            worst = max(each[cell * per : cell * per + per])
            assert shown == worst if worst > 6 else shown <= 6
    for place in range(min(tasks.total, 20)):
        task = tasks.task(place)
        assert task is not None
        assert tasks.place(task) == place


@settings(max_examples=30, deadline=None)
@given(tapes)
def test_of_any_run(data: bytes) -> None:
    replayed(Simulation(Tape(data)).run())


@settings(max_examples=25, deadline=None)
@given(tapes)
def test_of_what_could_never_happen(data: bytes) -> None:
    replayed(garbage(Tape(data)))


@settings(max_examples=30, deadline=None)
@given(tapes)
def test_groups_add_up_to_the_errors_whose_reasons_were_stored(data: bytes) -> None:
    history = Simulation(Tape(data)).run()
    detail, explained = Detail("a", "root"), set()
    for sequence, event in history:
        if isinstance(event, Failed):
            explained.add(event.task)
        detail.apply(sequence, NOW, event)
        standing = sum(detail.fold.ledger.tree.outcome(task) == "error" for task in explained if counts(detail, task))
        assert sum(group.count for group in groups(detail)) == standing


def counts(detail: Detail, task: tuple[int, int]) -> bool:
    batch = detail.fold.ledger.tree.batches.get(task[0])
    return batch is not None and batch.counts(task[1])
