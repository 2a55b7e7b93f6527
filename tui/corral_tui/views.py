"""Values for the screens, made of what the state holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

import msgspec

from corral.ledger import Ledger
from corral.runs import LONGEST, Beat, Record, Status, outcome, public_status
from corral_tui.fold import Detail, Fold, Work
from corral_tui.forecast import stalled_for
from corral_tui.values import AtWork, Doing, RunView, ShareView, WorkerView

DEATH = 5.0
"""Seconds without a heartbeat after which a worker counts as silent."""
ETA_WINDOW = 10.0
"""Seconds over which the rate behind an ETA is taken: calmer than the rate that is shown."""


def record_view(record: Record) -> RunView:
    """A run by its record alone."""
    started = record.started_at or record.created_at
    took = (record.finished_at - started) if record.finished_at else 0.0
    done = record.counts.success + record.counts.error
    return RunView(
        id=record.id,
        topic=record.topic,
        status=public_status(record),
        counts=record.counts,
        topics=record.topics or {record.topic: record.counts},
        created_at=record.created_at,
        started_at=record.started_at,
        finished_at=record.finished_at,
        unique=record.unique,
        sequence=record.seq,
        root=record.root,
        rate=done / took if took > 0 else 0.0,
        interrupted_by=record.interrupted_by,
        interrupt_reason=record.interrupt_reason,
        receipt=record.receipt,
    )


def replayed(record: Record, detail: Detail, at: float) -> tuple[RunView, list[ShareView]]:
    """A run and its workers as they stood at a moment by the server's clock, by the events until then."""
    young = msgspec.structs.replace(
        record, state="queued", interrupted_by=None, interrupt_reason=None, receipt=None, finished_at=None
    )
    view = run_view(young, detail.fold, at, {}, root_running=False)
    shares = shares_of(record.id, dict.fromkeys(detail.work), detail.work, at)
    return view, [replace(share, known=False) for share in shares]


def run_view(
    record: Record, fold: Fold, server_now: float, running: Mapping[str, int], *, root_running: bool
) -> RunView:
    """A run by this dashboard's own fold; `running` is the workers' last word, tasks by topic."""
    ledger = fold.ledger
    counts, topics = ledger.counts({} if ledger.over else running, root_running and not ledger.over)
    left = counts.pending + counts.running
    calm_rate = fold.pulse.rate(server_now, ETA_WINDOW)
    order = ledger.interrupt
    moving = counts.pending and calm_rate and order is None  # of what runs already, a pace says nothing
    view = RunView(
        id=record.id,
        topic=record.topic,
        status=_live_status(record, ledger),
        counts=counts,
        topics=topics,
        created_at=record.created_at,
        started_at=record.started_at,
        finished_at=ledger.last_at if ledger.over else None,
        unique=record.unique,
        sequence=ledger.sequence,
        folded=True,
        growing=not ledger.over and ledger.tree.outcome((0, 0)) is None,
        root=ledger.root_state(root_running),
        rate=fold.pulse.rate(server_now),
        eta=left / calm_rate if moving else None,
        interrupted_by=order.by if order else record.interrupted_by,
        interrupt_reason=order.reason if order else record.interrupt_reason,
        receipt=ledger.receipt or record.receipt,
    )
    if not moving and stalled_for(view, fold.pulse, ledger, server_now) is not None:
        return replace(view, stalled=True)
    return view


def shares_of(
    run_id: str,
    workers: Mapping[str, Beat | None],
    work: Mapping[str, Work],
    server_now: float,
    named: Iterable[AtWork] = (),
) -> list[ShareView]:
    """What workers do for a run, by name; None for one that is not heard of. `named` is what they name of it."""
    shares = []
    longest: dict[str, AtWork] = {}
    for each in sorted(named, key=lambda each: each.since):
        longest.setdefault(each.worker, each)
    for worker in sorted(workers):
        beat, done = workers[worker], work.get(worker)
        shares.append(
            ShareView(
                worker=worker,
                running=(sum(beat.running.get(run_id, {}).values()) + (run_id in beat.roots)) if beat else 0,
                success=done.success if done else 0,
                error=done.error if done else 0,
                interrupted=done.interrupted if done else 0,
                rate=done.pulse.rate(server_now, 5.0) if done else 0.0,
                last_at=done.last_at if done else 0.0,
                host=beat.host if beat else "",
                longest=longest.get(worker),
            )
        )
    return shares


def _live_status(record: Record, ledger: Ledger) -> Status:
    if ledger.over:
        return outcome(ledger.counts()[0])
    if ledger.interrupt is not None or record.state == "interrupting":
        return "interrupting"
    status = public_status(record)
    return "running" if status == "queued" and ledger.sequence else status


class Busy(NamedTuple):
    """What workers execute of a run."""

    topics: Mapping[str, int]
    """Tasks by topic."""
    root: bool


IDLE = Busy({}, root=False)


def busy_with(beats: Iterable[Beat]) -> dict[str, Busy]:
    """What the workers execute of each run, added up."""
    topics: dict[str, dict[str, int]] = {}
    roots: set[str] = set()
    for beat in beats:
        roots.update(beat.roots)
        for run, running in beat.running.items():
            into = topics.setdefault(run, {})
            for topic, tasks in running.items():
                into[topic] = into.get(topic, 0) + tasks
    return {run: Busy(topics.get(run, {}), run in roots) for run in (topics.keys() | roots)}


def executes(beat: Beat, run_id: str) -> bool:
    """Whether a worker executes something of a run."""
    return run_id in beat.running or run_id in beat.roots


def at_work(beat: Beat, seen_at: float) -> tuple[AtWork, ...]:
    """What a heartbeat names of that which its worker executes, the longest first."""
    return tuple(
        AtWork(
            worker=beat.id,
            run=each.run,
            topic=each.topic,
            task=each.task,
            since=seen_at - each.seconds,
            seen_at=seen_at,
        )
        for each in beat.longest[:LONGEST]
    )


def worker_view(beat: Beat, seen_at: float, records: Mapping[str, Record], rate: float, *, silent: bool) -> WorkerView:
    """A worker, as its last heartbeat says."""
    doing = [
        Doing(run=run, topic=topic, count=n) for run, topics in beat.running.items() for topic, n in topics.items()
    ]
    for run in beat.roots:
        record = records.get(run)
        doing.append(Doing(run=run, topic=record.topic if record else "root", count=1))
    return WorkerView(
        id=beat.id,
        pool=beat.pool,
        host=beat.host,
        pid=beat.pid,
        topics=tuple(beat.topics),
        slots=beat.slots,
        busy=beat.busy,
        rss=beat.rss,
        started_at=beat.started_at,
        seen_at=seen_at,
        silent=silent,
        version=beat.version,
        rate=rate,
        doing=tuple(sorted(doing, key=lambda each: (-each.count, each.topic, each.run))),
        longest=at_work(beat, seen_at),
        blocked=beat.blocked,
        blocked_by=beat.blocked_by,
        waiting=beat.waiting,
        leaves=beat.leaves,
        leaves_by=beat.leaves_by,
        stopping=tuple(beat.stopping),
        settings=tuple(sorted(beat.settings.items())),
    )
