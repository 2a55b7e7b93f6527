"""Runs in words: a line, a table row, a page. And following one to its end."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from corral.cli.output import Cell, ago, clock, duration, note, plural, table
from corral.client import Client
from corral.errors import PermissionDenied
from corral.ledger import Counts
from corral.runs import RunStatus, status_of

RUN_HEADINGS = (
    "RUN",
    "TOPIC",
    "STATUS",
    "TOTAL",
    "PENDING",
    "RUNNING",
    "SUCCESS",
    "ERROR",
    "INTERRUPTED",
    "AGE",
    "KEY",
)
_COUNT_HEADINGS = ("TOPIC", "TOTAL", "PENDING", "RUNNING", "RETRYING", "SUCCESS", "ERROR", "INTERRUPTED")
_PATIENCE = 1.0
"""Seconds that a run may stand still before it is said that no worker is there for it."""


def run_row(run: RunStatus) -> Sequence[Cell]:
    """A run under `RUN_HEADINGS`."""
    counts = (run.total, run.pending, run.running, run.success, run.error, run.interrupted)
    return (run.id, run.topic, run.status, *counts, ago(run.created_at), run.unique or "")


def run_line(run: RunStatus) -> str:
    """How a run stands, in one line."""
    done = run.success + run.error + run.interrupted
    words = [f"{run.status}: {done:,} of {run.total:,} done"]
    if run.error:
        words.append(plural(run.error, "error"))
    for count, what in ((run.interrupted, "interrupted"), (run.running, "running")):
        if count:
            words.append(f"{count:,} {what}")
    if run.pending:
        retrying = f" ({run.retrying:,} to be tried again)" if run.retrying else ""
        words.append(f"{run.pending:,} pending{retrying}")
    if run.ended and run.finished_at and run.started_at:
        words.append(f"took {duration((run.finished_at - run.started_at).total_seconds())}")
    return ", ".join(words)


def run_page(run: RunStatus) -> list[str]:
    """All there is to say about a run."""
    facts = [("run", run.id), ("topic", run.topic), ("status", f"{run.status} (root: {run.root})")]
    if run.unique is not None:
        facts.append(("key", run.unique.replace("\n", "\\n")))
    for name, at in (("created", run.created_at), ("started", run.started_at), ("finished", run.finished_at)):
        if at is not None:
            facts.append((name, f"{clock(at)}, {ago(at)} ago"))
    if run.interrupted_by is not None:
        reason = f": {run.interrupt_reason}" if run.interrupt_reason else ""
        facts.append(("interrupted", f"by {run.interrupted_by}{reason}"))
    if run.updated_at is not None:
        facts.append(("counted", f"{ago(run.updated_at)} ago, up to event {run.seq}"))
    rows = [_count_row(topic, counts) for topic, counts in sorted(run.topics.items())]
    if len(rows) > 1:
        rows.append(("all", run.total, run.pending, run.running, run.retrying, run.success, run.error, run.interrupted))
    return [*(f"{name:<12}{text}" for name, text in facts), "", *table(_COUNT_HEADINGS, rows)]


def _count_row(topic: str, counts: Counts) -> Sequence[Cell]:
    return (
        topic,
        counts.total,
        counts.pending,
        counts.running,
        counts.retrying,
        counts.success,
        counts.error,
        counts.interrupted,
    )


async def runs_as_they_change(client: Client, limit: int | None = None) -> AsyncIterator[RunStatus]:
    """The `limit` newest runs, oldest first, then each change of any; with a limit of 0 only the changes."""
    there: dict[str, RunStatus] | None = {}
    async for batch in client.read_records():
        for run_id, record in batch:
            if record is None or record.state in ("starting", "aborted"):
                if there is not None:
                    there.pop(run_id, None)
            elif there is None:
                yield status_of(record)
            else:
                there[run_id] = status_of(record)
        if not batch and there is not None:  # all that was stored before
            known = sorted(there.values(), key=lambda each: each.created_at)
            there = None
            for each in known if limit is None else known[max(0, len(known) - limit) :]:
                yield each


class LiveLine:
    """One line on a terminal's standard error that is written over; nothing where there is no terminal."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._shown = False

    def show(self, text: str) -> None:
        """Replace the line."""
        if self._live:
            self._write(text)
            self._shown = True

    def clear(self) -> None:
        """Take the line away, for what follows."""
        if self._shown:
            self._write("")
            self._shown = False

    def _write(self, text: str) -> None:
        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write(f"\r\x1b[2K{text[:width]}")
        sys.stderr.flush()


@asynccontextmanager
async def warned_if_unserved(client: Client, topic: str | None = None) -> AsyncIterator[None]:
    """Say it, once, if what is waited for inside cannot come because no worker is there."""
    watching = asyncio.create_task(_warn(client, topic))
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait({watching})


async def _warn(client: Client, topic: str | None) -> None:
    await asyncio.sleep(_PATIENCE)
    try:
        workers = await client.workers()
    except PermissionDenied:
        return  # not for this user to know
    if not workers:
        note("No worker is there: `corral pool APP` starts some. Until then everything stands still.")
    elif topic is not None and not any(topic in worker.topics for worker in workers):
        note(f"No worker serves the topic {topic!r}: it waits until one does.")
