"""Findings about workers and pools."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from corral.doctor.facts import Facts, WorkerFacts
from corral.doctor.finding import Finding, lasting, many, some, verb
from corral.runs import Beat
from corral.subjects import is_run_id

LONG_BLOCK = 5.0
"""Seconds for which a loop may be blocked before it is more than a hiccup."""
KEEPER = "bookkeeper-"
"""How the names of bookkeepers begin that have no workers."""


def worker_findings(facts: Facts) -> Iterator[Finding]:
    """Workers that are not there, are silent or blocked, or differ from the others."""
    if facts.workers is None or facts.jetstream:
        return
    heard = alive(facts)
    if not heard:
        yield from _nobody(facts)
    for worker in facts.workers:
        if worker.ago > facts.death:
            yield _silent(worker)
        elif worker.beat.blocked:
            yield _blocked(worker.beat)
    keeper = facts.bookkeeper.pool if facts.bookkeeper else None
    if keeper and heard and not keeper.startswith(KEEPER) and keeper not in {beat.pool for beat in heard}:
        yield Finding(
            severity="warning",
            code="pool-without-workers",
            about=keeper,
            text=f"pool {keeper} keeps the books, and none of its workers is heard: they are stopped or keep dying",
            help=f"look into the log of pool {keeper}",
        )
    yield from _versions(facts.version, heard)
    yield from _settings(heard)


def alive(facts: Facts) -> list[Beat]:
    """The last heartbeats of the workers that live."""
    return [worker.beat for worker in facts.workers or [] if worker.ago <= facts.death]


def _nobody(facts: Facts) -> Iterator[Finding]:
    waiting = sum(facts.after.queued.values())
    live = [run.record.id for run in facts.runs if run.record.live]
    keeper = facts.bookkeeper.pool if facts.bookkeeper else None
    but = ""
    if keeper and not keeper.startswith(KEEPER):
        but = f", although pool {keeper} is up: its workers are stopped, or keep dying"
    if waiting or live:
        text = f"no worker is heard{but}: {many(waiting, 'message')} of {many(len(live), 'run')}"
        text += f" {verb(waiting, 'waits', 'wait')}"
    else:
        text = f"no worker is heard{but}; nothing waits for one"
    yield Finding(
        severity="wrong" if waiting or live else "note",
        code="no-workers",
        about=keeper or facts.namespace,
        text=text,
        help=f"look into the log of pool {keeper}" if but else "corral pool APP",
    )


def _silent(worker: WorkerFacts) -> Finding:
    beat = worker.beat
    held = f"; the {many(beat.busy, 'task')} that it had run elsewhere after `ack_wait`" if beat.busy else ""
    return Finding(
        severity="warning",
        code="worker-silent",
        about=beat.id,
        text=f"worker {beat.id} (pid {beat.pid} on {beat.host}) has not been heard for {lasting(worker.ago)}{held}",
        help=f"on {beat.host}: ps -o pid,stat,etime,command -p {beat.pid}",
    )


def _blocked(beat: Beat) -> Finding:
    topic, _, rest = beat.blocked_by.partition(" ")
    run, _, task = rest.partition(" ")
    by = f"{topic} (run {run}, task {task})" if task else beat.blocked_by or "something that is no task"
    by = by[:300]
    others = beat.busy - 1
    stuck = f"; {many(others, 'other task')} there cannot go on" if others > 0 else ""
    what = f"has been blocked for {lasting(beat.blocked)} by {by}{stuck}"
    # What is in a heartbeat anybody may have made up.
    end = f"corral interrupt {run} --kill-after 5" if task and is_run_id(run) else f"on {beat.host}: kill -9 {beat.pid}"
    return Finding(
        severity="wrong" if beat.blocked >= LONG_BLOCK else "warning",
        code="loop-blocked",
        about=beat.id,
        text=f"worker {beat.id} (pid {beat.pid} on {beat.host}) {what}",
        help=f"{end}; pool {beat.pool}, whose log has the stack, replaces it",
    )


def _versions(mine: str, heard: list[Beat]) -> Iterator[Finding]:
    others: dict[str, list[str]] = {}
    for beat in heard:
        if beat.version != mine:
            others.setdefault(beat.version, []).append(beat.id)
    for version, workers in sorted(others.items()):
        yield Finding(
            severity="warning",
            code="version-differs",
            about=workers[0],
            text=f"{many(len(workers), 'worker')} ({some(workers)}) {verb(len(workers), 'runs', 'run')}"
            f" Corral {version}, and this is {mine}",
            help="corral workers",
        )


def _settings(heard: list[Beat]) -> Iterator[Finding]:
    pools = {beat.pool: beat.settings for beat in heard}
    for name in sorted({name for settings in pools.values() for name in settings}):
        values: dict[Any, list[str]] = {}
        for pool, settings in pools.items():
            values.setdefault(settings.get(name, "the default"), []).append(pool)
        if len(values) > 1:
            said = ", ".join(f"{value} in pool {some(names)}" for value, names in values.items())
            yield Finding(
                severity="warning",
                code="settings-differ",
                about=name,
                text=f"pools differ in the setting {name}: {said}",
                help=f"start all pools and clients with the same CORRAL_{name.upper()}",
            )
