"""What `corral up` says in its summary, over any number of runs."""

from __future__ import annotations

from corral.cli.moved import MARGIN, REMEMBERED, SHOWN, Moved, Sums, about
from corral.ledger import Counts
from corral.runs import RunStatus, status_of
from tests.unit.test_doctor import NOW, run


def status(name: str, state: str = "running", *, at: float = NOW, **counts: int) -> RunStatus:
    made = Counts(total=sum(counts.values()), **counts)
    finished = at if state == "final" else None
    return status_of(run(state, counts=made, id=name, created_at=at, finished_at=finished).record)


def test_each_run_counts_once_however_often_it_moves() -> None:
    moved = Moved(NOW)
    assert moved.take(status("a", pending=3))
    assert moved.take(status("a", pending=1, running=1, success=1))
    assert moved.take(status("b", "final", success=2))
    assert moved.take(status("a", "final", success=2, error=1))
    assert moved.sums == Sums(runs=2, ended=2, total=5, done=5, error=1)
    assert [each.id for each in moved.newest()] == ["a", "b"]


def test_what_a_retry_brings_back_is_not_counted_as_ended() -> None:
    moved = Moved(NOW)
    moved.take(status("a", "final", error=2))
    moved.take(status("a", running=2))
    assert moved.sums == Sums(runs=1, total=2, running=2)
    moved.take(status("a", "final", success=2))
    assert moved.sums == Sums(runs=1, ended=1, total=2, done=2)


def test_a_record_that_is_only_written_once_more_has_not_moved() -> None:
    moved = Moved(NOW)
    assert moved.take(status("a", "final", success=2))
    assert not moved.take(status("a", "final", success=2))
    assert not moved.take(status("old", "final", at=NOW - MARGIN - 1, success=2))
    assert moved.sums.runs == 1


def test_what_is_kept_does_not_grow_with_the_runs() -> None:
    moved = Moved(NOW)
    for number in range(REMEMBERED + 500):
        moved.take(status(f"r{number}", pending=1))
        moved.take(status(f"r{number}", "final", at=NOW + number, success=1))
    assert len(moved.newest()) == SHOWN
    assert moved.newest()[0].id == f"r{REMEMBERED + 499}"
    assert moved.sums == Sums(runs=REMEMBERED + 500, ended=REMEMBERED + 500, total=REMEMBERED + 500, done=10_500)
    assert max(len(kept) for kept in vars(moved).values() if isinstance(kept, dict)) == REMEMBERED


def test_one_run_is_told_by_its_name_and_several_by_their_sums() -> None:
    assert about([status("a", pending=3)]).startswith("a t running: 0 of 3 done")
    both = about([status("a", pending=3), status("b", "final", success=1, error=1)])
    assert both == "2 runs, 1 of them ended: 2 of 5 tasks done, 1 error, 0 running"
