"""The lines around the lists, from values: where the numbers come from, what an action does, an error in full."""

from __future__ import annotations

from collections.abc import Sequence

from corral.events import Receipt
from corral_tui import figures
from corral_tui.code import json_line, trace_line
from corral_tui.columns import NARROW, WIDE
from corral_tui.spans import BETWEEN, Line, fitting, joined, line, plain
from corral_tui.text import clean
from corral_tui.values import ErrorView, Link, RunView, Selected, Truth, Unlisted

STALE = 5.0
"""Seconds after which records that stand still are worth a word: a change of bookkeeper takes less."""

FEW = 5
"""Frames that are left out without a word: to open a screen takes one or two."""
LAGGING = 2.0
"""Seconds after which it is said everywhere that events come late."""


# --- the line of truth --------------------------------------------------------------------------------


def truth_left(truth: Truth, room: int) -> Line:
    """Where this is, who works, how much, how fast: as much of it as fits into so many cells."""
    slots = line(
        (figures.count(truth.busy), "running" if truth.busy else "dim"), (f"/{figures.count(truth.slots)} slots", "dim")
    )
    workers = line((figures.plural(truth.workers, "worker"), "dim"))
    pools = line((figures.plural(truth.pools, "pool"), "dim"))
    rate = line((figures.rate(truth.rate), "strong" if truth.rate else "dim"))
    work = [pools, workers, slots, rate] if truth.workers else [line(("no workers", "warning"))]
    if truth.link.phase == "connecting" or (not truth.workers and (truth.unheard or truth.link.phase == "offline")):
        work = []  # that there are none is not known
    place: Line = (("corral", "title"), ("  ", "text"), (clean(truth.link.server), "dim"), ("   ", "text"))
    while len(work) > 2 and len(plain((*place, *joined(work)))) > room:
        work.pop(0)
    return (*place, *fitting(work, BETWEEN, room - len(plain(place))))


def truth_right(truth: Truth, now: float, width: int, *, frozen_at: float | None = None, late_frames: int = 0) -> Line:
    """How fresh it is, as far as there is room: what is wrong stands first."""
    link = truth.link
    since = figures.short(now - link.since)
    if frozen_at is not None:
        return line((f"frozen for {figures.short(max(1.0, now - frozen_at))}, p goes on", "warning"))
    match link.phase:
        case "connecting":
            return line((f"◌ connecting {since}", "warning"))
        case "offline":
            return line((f"○ offline {figures.short(max(now - link.since, truth.unheard))}", "error"))
        case "live" if truth.unheard:
            return line((f"◌ no answer for {figures.short(truth.unheard)}", "warning"))
        case "live":
            return joined([*_honest(truth, width, late_frames), _live(truth)], ("  ", "text"))


def _live(truth: Truth) -> Line:
    if not truth.link.ready:
        return line(("◌ reading", "warning"))
    return line(("● live", "success")) if truth.abreast else line(("◌ reading events", "warning"))


def _honest(truth: Truth, width: int, late_frames: int) -> list[Line]:
    """What the numbers are worth: record age, who keeps the books, lag of events, frames that were left out."""
    parts: list[Line] = []
    if truth.bookkeeper == "" and truth.link.ready:
        parts.append(line(("no bookkeeper", "warning")))
    if truth.stale >= STALE:
        parts.append(line((f"records {figures.short(truth.stale)} old", "warning")))
    if truth.lag >= LAGGING:
        parts.append(line((f"lag {figures.short(truth.lag)}", "warning")))
    if width >= NARROW and not parts and truth.link.ready:
        parts.append(line(("records current", "dim")))
    if width >= WIDE and truth.link.ready:
        parts.append(line((f"lag {figures.short(truth.lag)}", "dim")) if truth.lag < LAGGING else ())
        parts.append(line((f"bookkeeper {clean(truth.bookkeeper, 24)}", "dim")) if truth.bookkeeper else ())
    if late_frames >= FEW and width >= NARROW:
        parts.append(line((figures.plural(late_frames, "frame"), "dim"), (" dropped", "dim")))
    return parts


# --- an error --------------------------------------------------------------------------------------


def error_lines(error: ErrorView, *, retried: bool = False) -> list[Line]:
    """An error in full: what, where, the traceback, and the message that was processed."""
    head = [
        *(
            [line(("↻ ", "running"), ("of an earlier round: a retry has brought the task back since", "warning"))]
            * retried
        ),
        line((error.type, "error")),
        line((error.message, "strong")),
        line((f"{error.topic}  task {error.task}  attempt {error.attempt}  worker {error.worker}", "dim")),
        (),
    ]
    trace = [trace_line(text) for text in error.traceback]
    body = [(), line(("message", "head")), *(json_line(text) for text in error.body)] if error.body else []
    return [*head, *trace, *body]


# --- orders -----------------------------------------------------------------------------------------


def impact_text(run: RunView) -> str:
    """What an interrupt would do now."""
    counts = run.counts
    return (
        f"removes {figures.count(counts.pending)} queued, stops {figures.count(counts.running)} running;"
        f" {figures.count(run.done)} stay done"
    )


def receipt_text(receipt: Receipt) -> str:
    """What an interrupt did."""
    killed = f", {figures.count(receipt.killed)} killed" if receipt.killed else ""
    return (
        f"stopped in {figures.long(receipt.seconds)}: {figures.count(receipt.removed)} removed,"
        f" {figures.count(receipt.stopped)} stopped{killed}, {figures.count(receipt.finished_first)} finished first"
    )


def retry_text(run: RunView) -> str:
    """What a retry would do now."""
    counts = run.counts
    bad = [figures.plural(counts.error, "error")] if counts.error else []
    bad += [f"{figures.count(counts.interrupted)} interrupted"] if counts.interrupted else []
    return f"brings back {' and '.join(bad) or 'nothing'}; {figures.count(counts.success)} stay done"


def retry_some_text(run: RunView, selected: Selected) -> str:
    """What a retry of some tasks would do now."""
    counts, tasks = run.counts, selected.tasks
    name = f"task {tasks[0]}, one of" if len(tasks) == 1 else f"{figures.count(len(tasks))} of"
    if selected.outcome == "interrupted":
        return f"brings back {name} {figures.count(counts.interrupted)} interrupted, and who has to send it again"
    return f"brings back {name} {figures.plural(counts.error, 'error')}; the others stay as they ended"


# --- what is not listed -----------------------------------------------------------------------------


def unlisted_line(unlisted: Unlisted, *, filtered: bool) -> Line:
    """That there are more runs than are kept here, and what lists them; empty if there are none."""
    parts = [f"{unlisted.ended:,} older"] * bool(unlisted.ended) + [f"{unlisted.live:,} live"] * bool(unlisted.live)
    if not parts:
        return ()
    one = unlisted.ended + unlisted.live == 1
    what = f"{' and '.join(parts)} {'run is' if one else 'runs are'} not {'searched' if filtered else 'listed'}: "
    return line((what, "dim"), ("corral runs", "accent"))


# --- designed states --------------------------------------------------------------------------------


def empty_lines(link: Link, topics: Sequence[str], now: float) -> list[Line]:
    """What stands in place of an empty list of runs, with the next step."""
    if link.phase == "connecting":
        return [
            line(("Connecting", "strong")),
            (),
            line((clean(link.server), "dim")),
            line((_reason(link, now), "dim")),
        ]
    if link.phase == "offline":
        return [
            line(("Offline", "error")),
            (),
            line((_reason(link, now), "dim")),
            line(("it goes on by itself", "dim")),
        ]
    if not link.ready:
        return [line(("Reading runs", "strong"))]
    topic = clean(topics[0]) if topics else "TOPIC"
    help_line = f"served now: {' '.join(topics[:6])}" if topics else "no worker is up; start some:  corral up APP"
    return [
        line(("No runs yet", "strong")),
        (),
        line(("start one:  ", "dim"), (f"corral start {topic} '{{...}}'", "accent")),
        line((clean(help_line, 70), "dim")),
    ]


def _reason(link: Link, now: float) -> str:
    waited = f"for {figures.long(now - link.since)}"
    return f"{waited}: {clean(link.reason, 100)}" if link.reason else waited
