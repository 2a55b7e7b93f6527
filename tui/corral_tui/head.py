"""The head of a run, from values: what it is, every task accounted for, how fast it goes, what else there is to say.

Where it is narrow, what is least important is left out: nothing that counts is cut in the middle.
"""

from __future__ import annotations

import math

from corral.events import quantile
from corral.ledger import Ledger
from corral_tui import figures
from corral_tui.columns import NARROW, SMALL, WIDE
from corral_tui.fold import Detail
from corral_tui.forecast import forecast, stalled_for
from corral_tui.fronts import Stragglers
from corral_tui.pulse import Pulse
from corral_tui.spans import Line, Span, bar, fitting, joined, line, number, percent, plain, spark, status
from corral_tui.text import clean
from corral_tui.values import RunView
from corral_tui.view import receipt_text

SPACE: Span = ("   ", "text")


def run_title(run: RunView, now: float, width: int) -> Line:
    """What it is, how it stands, and since when."""
    parts = [
        line((clean(run.topic), "strong"), ("  ", "text"), (run.id, "accent")),
        status(run.status),
        line((_when(run, now, short=width < NARROW), "dim")),
        line((clean(run.unique), "text")) if run.unique else (),
    ]
    return joined(parts, SPACE)


def _when(run: RunView, now: float, *, short: bool) -> str:
    begun = run.started_at or run.created_at
    if run.finished_at and run.ended:
        took, ago = figures.long(run.finished_at - begun), figures.long(now - run.finished_at)
        return f"took {took}, {ago} ago" if short else f"took {took}, ended {figures.clock(run.finished_at)}, {ago} ago"
    if run.status == "queued":
        return f"waits for {figures.long(now - run.created_at)}"
    lasts = f"for {figures.long(now - begun)}"
    return lasts if short else f"since {figures.clock(begun)}, {lasts}"


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
    second = (*_term(counts.success, "success", "success"), plus, *_term(counts.error, "error", "error"))
    second += (plus, *_term(counts.interrupted, "interrupted", "interrupted"))
    more: Line = (("  + ", "faint"),)
    whole, short = (SPACE, *proof(run, agrees=agrees)), (SPACE, *proof(run, agrees=agrees, short=True))
    ways: list[list[Line]] = [
        [(*first, plus, *second, *(whole if width >= WIDE else short))],
        [first, (*more, *second, *whole)],
        [first, (*more, *second, *short)],
        [(*first, *short), (*more, *second)],
    ]
    fitting_ways = [way for way in ways if max(len(plain(each)) for each in way) <= width]
    return (fitting_ways or ways[-1:])[0]


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
        return line(("✗ disproved", "error"))
    word = "proven" if agrees else "holds" if run.folded else "recorded"
    at = f" at event {figures.count(run.sequence)}" if run.sequence and not short else ""
    return line((f"✓ {word}{at}", "success"))


def run_pulse(
    run: RunView,
    pulse: Pulse | None,
    ledger: Ledger | None,
    *,
    late: Stragglers,
    now: float,
    width: int,
    longest: float = 0.0,
) -> list[Line]:
    """How fast it goes: the last minute or so, rate and ETA; and how long tasks take, if there is room for it.

    `now` is by the server's clock; of an ended run its last minute is shown. `longest` is for how many seconds a task
    of it has been executed by now, as far as that is known.
    """
    end = now if pulse is None or not run.ended or pulse.last_at is None else pulse.last_at + 1
    columns: Line = ()
    if pulse is not None and pulse.first_at is not None:
        values = pulse.columns(end, 60 if width >= WIDE else 30 if width >= SMALL else 14)
        columns = spark(values, "accent-dim" if run.ended else "running")
    rate = line((figures.rate(run.rate), "dim" if run.ended else "strong"), (" on average" if run.ended else "", "dim"))
    pace = [
        columns,
        rate if run.rate else (),
        *_eta(run, pulse, ledger, now),
        line((f"{figures.count(run.counts.retrying)} retrying", "warning")) if run.counts.retrying else (),
    ]
    times = []
    if ledger is not None:
        shares = (50, 95, 99) if width >= SMALL else (50, 99)
        times = [_latency("run", ledger.durations, shares), _latency("wait", ledger.waits, shares)]
    if not run.ended and (late.count or longest >= 1):
        over = line((figures.plural(late.count, "straggler"), "warning"), (f" over {figures.long(late.after)}", "dim"))
        times.append(joined([over if late.count else (), _longest(longest) if longest >= 1 else ()], (", ", "dim")))
    rows = [[*pace, *times]] if width >= WIDE else [pace, times]
    return [fitting(row, SPACE, width) for row in rows if any(row)]


def _longest(seconds: float) -> Line:
    """For how long the task that takes longest has been executed."""
    return line(("longest ", "dim"), (figures.long(seconds), "text"))


def _eta(run: RunView, pulse: Pulse | None, ledger: Ledger | None, now: float) -> list[Line]:
    """When it will be done: likely, and between which times; or the word `stalled`."""
    if pulse is None or ledger is None:
        return []
    quiet = stalled_for(run, pulse, ledger, now)
    if quiet is not None:
        return [line(("stalled", "shout"), (f" for {figures.long(quiet)}", "warning"))]
    found = forecast(run, pulse, now)
    if found is None:
        return []
    high = "?" if math.isinf(found.high) else figures.short(found.high)
    between = f" ({figures.short(found.low)} - {high})"
    eta = line(("ETA ", "dim"), (figures.long(found.likely), "text"), (between, "dim"))
    return [eta, line(("more may come", "dim")) if run.growing else ()]


def _latency(name: str, histogram: dict[int, int], shares: tuple[int, ...]) -> Line:
    spans: list[Span] = [(name, "dim")]
    for share in shares:
        seconds = quantile(histogram, share / 100)
        if seconds is None:
            return ()
        spans += [(f" p{share} ", "dim"), (figures.short(seconds), "text")]
    return tuple(spans)


def reading(run: RunView, detail: Detail | None) -> str:
    """How far the reading of a run's events is, as far as that can be said."""
    if detail is None or not 0 < detail.first < run.sequence:
        return "reading events"
    # What others have stored in between counts too: it is about the share.
    read = detail.fold.ledger.sequence - detail.first
    return f"reading events {min(99, 100 * read // (run.sequence - detail.first))}%"


def run_notes(run: RunView, width: int, *, served: bool, agrees: bool | None) -> list[Line]:
    """What else there is to say: who stopped it and how that went, why it does not begin, what is to be checked."""
    notes: list[Line] = []
    who = f" by {clean(run.interrupted_by, 40)}" if run.interrupted_by else ""
    why = f" ({clean(run.interrupt_reason, 80)})" if run.interrupt_reason else ""
    if run.status == "interrupting":
        left = f": {figures.count(run.counts.running)} still run"
        notes.append(line(("■ ", "interrupted"), (f"ordered to stop{who}{why}{left}", "text")))
    elif run.receipt is not None:
        receipt, ordered = receipt_text(run.receipt), f"{who}{why}"
        said = line(("■ ", "interrupted"), (receipt, "text"))
        if len(receipt) + len(ordered) + 4 <= width:
            notes.append((*said, ("  ", "text"), (ordered, "dim")))
        else:
            notes += [said, line((f" {ordered}", "dim"))] if ordered else [said]
    elif run.status == "interrupted" and (who or why):
        notes.append(line(("■ ", "interrupted"), (f"some tasks stay stopped{who}{why}", "text")))
    elif run.status == "queued" and not served:
        topic = clean(run.topic)
        notes.append(line(("· ", "warning"), (f"no worker serves {topic}: start a pool that does", "warning")))
    if agrees is False:
        notes.append(
            line(("✗ ", "error"), ("the record says otherwise than the events: ", "text"), ("corral verify ", "accent"))
            + line((run.id, "accent"))
        )
    return notes
