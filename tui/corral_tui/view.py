"""The lines around the lists, from values: where the numbers come from, how a run stands, what an action does."""

from __future__ import annotations

import math
from collections.abc import Sequence

from corral.events import Receipt, quantile
from corral.ledger import Ledger
from corral_tui import figures
from corral_tui.code import json_line, trace_line
from corral_tui.columns import NARROW, WIDE
from corral_tui.forecast import forecast, stalled_for
from corral_tui.fronts import Stragglers
from corral_tui.pulse import Pulse
from corral_tui.spans import Line, Span, bar, joined, line, number, percent, spark, status
from corral_tui.text import clean
from corral_tui.values import ErrorView, Link, RunView, Truth

STALE = 5.0
"""Seconds after which records that stand still are worth a word: a change of bookkeeper takes less."""

LAGGING = 2.0
"""Seconds after which it is said everywhere that events come late."""


# --- the line of truth --------------------------------------------------------------------------------


def truth_left(truth: Truth, width: int) -> Line:
    """Where this is, who works, how much, how fast."""
    slots = line(
        (figures.count(truth.busy), "running" if truth.busy else "dim"), (f"/{figures.count(truth.slots)} slots", "dim")
    )
    workers = line((figures.plural(truth.workers, "worker"), "dim"))
    pools = line((figures.plural(truth.pools, "pool"), "dim")) if width >= NARROW else ()
    rate = line((figures.rate(truth.rate), "strong" if truth.rate else "dim"))
    work = joined([pools, workers, slots, rate]) if truth.workers else line(("no workers", "warning"))
    if truth.link.phase == "connecting" or (not truth.workers and (truth.unheard or truth.link.phase == "offline")):
        work = ()  # that there are none is not known
    return (("corral", "title"), ("  ", "text"), (clean(truth.link.server), "dim"), ("   ", "text"), *work)


def truth_right(truth: Truth, now: float, width: int, *, frozen_at: float | None = None, late_frames: int = 0) -> Line:
    """How fresh it is, as far as there is room: what is wrong stands first."""
    link = truth.link
    since = figures.short(now - link.since)
    if frozen_at is not None:
        return line((f"frozen for {figures.short(now - frozen_at)}, p goes on", "warning"))
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
        parts.append(line(("records current", "faint")))
    if width >= WIDE and truth.link.ready:
        parts.append(line((f"lag {figures.short(truth.lag)}", "faint")) if truth.lag < LAGGING else ())
        parts.append(line((f"bookkeeper {clean(truth.bookkeeper, 24)}", "faint")) if truth.bookkeeper else ())
    if late_frames and width >= NARROW:
        parts.append(line((figures.plural(late_frames, "frame"), "dim"), (" dropped", "dim")))
    return parts


# --- a run ------------------------------------------------------------------------------------------


def run_title(run: RunView, now: float) -> Line:
    """What it is, how it stands, and since when."""
    parts = [
        line((clean(run.topic), "strong"), ("  ", "text"), (run.id, "accent")),
        status(run.status),
        line((_when(run, now), "dim")),
        line((clean(run.unique), "text")) if run.unique else (),
    ]
    return joined(parts, ("   ", "text"))


def _when(run: RunView, now: float) -> str:
    begun = run.started_at or run.created_at
    if run.finished_at and run.ended:
        took = figures.long(run.finished_at - begun)
        return f"took {took}, ended {figures.clock(run.finished_at)}, {figures.long(now - run.finished_at)} ago"
    if run.status == "queued":
        return f"waits for {figures.long(now - run.created_at)}"
    return f"since {figures.clock(begun)}, for {figures.long(now - begun)}"


def run_bar(run: RunView, width: int) -> Line:
    """The bar over the whole width, and the percentage."""
    return (*bar(run, max(8, width - 6)), ("  ", "text"), *percent(run))


def conservation(run: RunView, width: int, *, agrees: bool | None) -> list[Line]:
    """Every task accounted for, in one line, or two where it is narrow; with a mark when it adds up.

    `agrees` says whether the record of an ended run was found to say what its events say.
    """
    counts = run.counts
    plus = (" + ", "faint")
    first = (*number(counts.total, "strong"), (" total = ", "dim"), *_term(counts.pending, "pending", "text"))
    first += (plus, *_term(counts.running, "running", "running"))
    second = (plus, *_term(counts.success, "success", "success"), plus, *_term(counts.error, "error", "error"))
    second += (plus, *_term(counts.interrupted, "interrupted", "interrupted"))
    space = ("   ", "text")
    if width < NARROW:
        return [first, (space, *second, space, *proof(run, agrees=agrees))]
    return [(*first, *second, space, *proof(run, agrees=agrees, short=width < WIDE))]


def _term(value: int, word: str, role: str) -> Line:
    return (*number(value, role), (f" {word}", "dim"))


def proof(run: RunView, *, agrees: bool | None, short: bool = False) -> Line:
    """The mark behind the conservation line: that the counts add up, and how that is known.

    Those of a live run are folded here from its events; those of an ended run are recorded, and proven once its
    events were folded again.
    """
    if not run.holds:
        return line(("✗ does not add up", "error"))
    if agrees is False:
        return line(("✗ the record says otherwise: corral verify", "error"))
    word = "proven" if agrees else "holds" if run.folded else "recorded"
    at = "" if short else f" at event {figures.count(run.sequence)}"
    return line((f"✓ {word}{at}", "success"))


def run_pulse(
    run: RunView, pulse: Pulse | None, ledger: Ledger | None, *, late: Stragglers, now: float, width: int
) -> list[Line]:
    """How fast it goes: the last minute or so, rate and ETA; and how long tasks take, if there is room for it.

    `now` is by the server's clock; of an ended run its last minute is shown.
    """
    end = now if pulse is None or not run.ended or pulse.last_at is None else pulse.last_at + 1
    columns: Line = ()
    if pulse is not None and pulse.first_at is not None:
        values = pulse.columns(end, 60 if width >= WIDE else 30)
        columns = spark(values, "accent-dim" if run.ended else "running")
    rate = line((figures.rate(run.rate), "dim" if run.ended else "strong"), (" on average" if run.ended else "", "dim"))
    pace = [
        columns,
        rate if run.rate else (),
        _eta(run, pulse, ledger, now),
        line((f"{figures.count(run.counts.retrying)} retrying", "warning")) if run.counts.retrying else (),
    ]
    times = []
    if ledger is not None:
        times = [_latency("run", ledger.durations), _latency("wait", ledger.waits)]
    if late.count and not run.ended:
        times.append(
            line((figures.plural(late.count, "straggler"), "warning"), (f" over {figures.long(late.after)}", "dim"))
        )
    space = ("   ", "text")
    if width >= WIDE:
        return [joined([*pace, *times], space)]
    return [joined(pace, space), joined(times, space)] if any(times) else [joined(pace, space)]


def _eta(run: RunView, pulse: Pulse | None, ledger: Ledger | None, now: float) -> Line:
    """When it will be done: likely, and between which times; or the word `stalled`."""
    if pulse is None or ledger is None:
        return ()
    quiet = stalled_for(run, pulse, ledger, now)
    if quiet is not None:
        return line(("stalled", "shout"), (f" for {figures.long(quiet)}", "warning"))
    found = forecast(run, pulse, now)
    if found is None:
        return ()
    high = "?" if math.isinf(found.high) else figures.short(found.high)
    growing = " and growing" if run.growing else ""
    return line(
        ("ETA ", "dim"),
        (figures.long(found.likely), "text"),
        (f" ({figures.short(found.low)} - {high}){growing}", "dim"),
    )


def _latency(name: str, histogram: dict[int, int]) -> Line:
    shares = [(share, quantile(histogram, share / 100)) for share in (50, 95, 99)]
    spans: list[Span] = [(name, "dim")]
    for share, seconds in shares:
        if seconds is None:
            return ()
        spans += [(f" p{share} ", "dim"), (figures.short(seconds), "text")]
    return tuple(spans)


def run_note(run: RunView, *, served: bool) -> Line:
    """What else there is to say: who stopped it and how that went, or why it does not begin."""
    who = f" by {clean(run.interrupted_by, 40)}" if run.interrupted_by else ""
    why = f" ({clean(run.interrupt_reason, 80)})" if run.interrupt_reason else ""
    if run.status == "interrupting":
        left = f": {figures.count(run.counts.running)} still run"
        return line(("■ ", "interrupted"), (f"ordered to stop{who}{why}{left}", "text"))
    if run.receipt is not None:
        return line(("■ ", "interrupted"), (f"{receipt_text(run.receipt)}", "text"), (f"  {who}{why}", "dim"))
    if run.status == "queued" and not served:
        return line(("· ", "warning"), (f"no worker serves {clean(run.topic)}: start a pool that does", "warning"))
    return ()


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
