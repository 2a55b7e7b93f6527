"""Findings about runs."""

from __future__ import annotations

from collections.abc import Iterator

from corral.doctor.facts import Facts, RunFacts
from corral.doctor.finding import Finding, clock, lasting, many, some, verb
from corral.doctor.workers import alive
from corral.messages import task_text

LONG = 5.0
"""Seconds that a step may take which takes milliseconds when all is well."""
LASTING = 60.0
"""Seconds from which on the execution of a task is worth a word, where nothing else is left."""
RECENT = 600.0
"""Seconds for which the death of a worker is worth a word."""
MOST = 20
"""Runs that are told of one kind."""
KEYS = 3
"""Unique keys that are told, where nobody asked about a run."""


def run_findings(facts: Facts) -> Iterator[Finding]:
    """Of every live run, or of the one that was asked about."""
    if facts.jetstream:
        return
    told: dict[str, int] = {}
    for run in facts.runs:
        if facts.run and run.record.id != facts.run:
            continue
        for finding in _run(facts, run):
            told[finding.code] = told.get(finding.code, 0) + 1
            if told[finding.code] <= MOST:
                yield finding
    for code, count in told.items():
        if count > MOST:
            yield Finding(
                severity="note",
                code="more-runs",
                about=code,
                text=f"{count - MOST:,} more runs have the finding {code!r}",
                help="corral doctor RUN",
            )
    yield from _keys(facts)


def _run(facts: Facts, run: RunFacts) -> Iterator[Finding]:
    record = run.record
    if not record.live:
        yield from _ended(run)
        return
    if run.stopping:
        yield from _stopping(facts, run)
    elif record.state in ("starting", "reopening", "ending"):
        yield from _between(facts, run)
    elif record.counts.retrying and record.counts.retrying == record.counts.pending and not record.counts.running:
        yield _backing_off(facts, run)
    else:
        yield from _without_messages(facts, run)
        yield from _executed_for_long(facts, run)
    if run.deaths and facts.at - run.death_at < RECENT:
        yield Finding(
            severity="warning",
            code="worker-died",
            about=record.id,
            text=f"{many(run.deaths, 'worker')} died while executing run {record.id}, the last one"
            f" {lasting(facts.at - run.death_at)} ago ({run.death})",
            help=f"corral events {record.id}",
        )


def _ended(run: RunFacts) -> Iterator[Finding]:
    record = run.record
    if record.state == "aborted":
        text = f"run {record.id} was never begun: its start was refused, or undone"
    elif run.refusal:
        text = f"run {record.id} was refused its unique key: {run.refusal}"
    else:
        text = f"run {record.id} has ended, there is nothing to move"
    yield Finding(
        severity="note",
        code="run-ended",
        about=record.id,
        text=text,
        help="" if record.state == "aborted" else f"corral show {record.id}",
    )


def _stopping(facts: Facts, run: RunFacts) -> Iterator[Finding]:
    marker, record = run.marker, run.record
    if marker is None or facts.at - marker.at < LONG:
        return
    since = f"run {record.id} was ordered to stop {lasting(facts.at - marker.at)} ago"
    heard = alive(facts)
    holding = [beat.id for beat in heard if record.id in beat.stopping]
    behind = [beat.id for beat in heard if beat.markers < run.marker_revision]
    if holding:
        what = f"worker {some(holding)} {'has' if len(holding) == 1 else 'have'} not stopped all of it"
        if running := sum(sum(beat.running.get(record.id, {}).values()) + (record.id in beat.roots) for beat in heard):
            what += f", {many(running, 'task')} still {verb(running, 'runs', 'run')}"
    elif behind:
        what = f"worker {some(behind)} {'has' if len(behind) == 1 else 'have'} not confirmed it"
    elif facts.bookkeeper is not None and facts.bookkeeper.pool is None:
        what = "nobody keeps the books, so that it cannot end"
    else:
        what = "every worker that is heard has confirmed it, and the bookkeeper has not ended it yet"
    yield Finding(
        severity="warning",
        code="slow-interrupt",
        about=record.id,
        text=f"{since}: {what}",
        help=f"corral interrupt {record.id} --kill-after 5",
    )


def _between(facts: Facts, run: RunFacts) -> Iterator[Finding]:
    """A run in the middle of a step."""
    record = run.record
    age = facts.at - (record.updated_at or record.created_at)
    if run.moved or age < LONG:
        return
    word = {
        "starting": "is half started: whoever started it has died, or is slow; the bookkeeper finishes or undoes it",
        "reopening": "is half brought back by a retry; the bookkeeper finishes it",
        "ending": "has done all its tasks, and the bookkeeper has not ended it yet",
    }[record.state]
    yield Finding(
        severity="warning",
        code=f"slow-{record.state}",
        about=record.id,
        text=f"run {record.id} {word} (for {lasting(age)})",
        help=f"corral doctor {record.id}, once more in a moment",
    )


def _backing_off(facts: Facts, run: RunFacts) -> Finding:
    record = run.record
    due = ""
    if run.next_attempt is not None:
        due = f"; the first is due {_due(facts, run.next_attempt)}"
    elif run.last_attempt is not None:
        due = f"; the last one that was put off is due {_due(facts, run.last_attempt)}"
    return Finding(
        severity="note",
        code="backing-off",
        about=record.id,
        text=f"all that is left of run {record.id}, {many(record.counts.retrying, 'task')},"
        f" {verb(record.counts.retrying, 'waits for its', 'wait for their')} next attempt{due}",
        help=f"corral events {record.id}",
    )


def _due(facts: Facts, at: float) -> str:
    when = clock(at)
    return f"at {when}, in {lasting(at - facts.at)}" if at > facts.at else f"now (since {when})"


def _without_messages(facts: Facts, run: RunFacts) -> Iterator[Finding]:
    """Tasks that are open and have no message: they were lost, or their end was not seen."""
    record = run.record
    if record.state != "running" or run.moved or record.root in ("pending", "running"):
        return
    missing = record.counts.pending + record.counts.running - run.queued
    if missing > 0 and not any(record.id in beat.running or record.id in beat.roots for beat in alive(facts)):
        yield Finding(
            severity="warning",
            code="tasks-without-messages",
            about=record.id,
            text=f"{many(missing, 'task')} of run {record.id} {verb(missing, 'is', 'are')} open, without a message in"
            " the queue; if nothing moves the bookkeeper ends them as `Lost`, and a retry brings them back",
            help=f"corral verify {record.id}",
        )


def _executed_for_long(facts: Facts, run: RunFacts) -> Iterator[Finding]:
    """Nothing waits any more, and what is left takes long."""
    record = run.record
    busy = sum(sum(beat.running.get(record.id, {}).values()) + (record.id in beat.roots) for beat in alive(facts))
    found = [(each, beat) for beat in alive(facts) for each in beat.longest if each.run == record.id]
    if run.moved or not found or busy < record.counts.pending + record.counts.running:
        return
    longest, beat = max(found, key=lambda each: each[0].seconds)
    if longest.seconds < LASTING:
        return
    yield Finding(
        severity="note",
        code="long-running",
        about=record.id,
        text=f"all that is left of run {record.id} is being executed, {many(busy, 'task')}; for longest"
        f" {task_text(longest.task)} of topic {longest.topic}, for {lasting(longest.seconds)}, by worker {beat.id}"
        f" (pid {beat.pid} on {beat.host})",
        help=f"corral stop {beat.id} hands back what that worker executes: it begins again elsewhere",
    )


def _keys(facts: Facts) -> Iterator[Finding]:
    """Unique keys that are held, the longest-held first."""
    held = sorted(
        (run.record for run in facts.runs if run.record.live and run.record.unique is not None),
        key=lambda record: record.created_at,
    )
    if facts.run:
        held = [record for record in held if record.id == facts.run]
    for record in held[:KEYS]:
        since = clock(record.created_at, "%Y-%m-%d %H:%M:%S")
        yield Finding(
            severity="note",
            code="key-held",
            about=record.id,
            text=f"run {record.id} ({record.topic}) holds the key {record.unique!r} since {since}"
            f" (for {lasting(facts.at - record.created_at)}): no other run can have it",
            help=f"corral interrupt {record.id}",
        )
    if len(held) > KEYS:
        yield Finding(
            severity="note",
            code="keys-held",
            about=facts.namespace,
            text=f"{len(held) - KEYS:,} more unique keys are held, each by a live run",
            help="corral runs",
        )
