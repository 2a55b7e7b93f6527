"""What is left on the normal screen when the dashboard has closed."""

from __future__ import annotations

from collections import Counter

from corral.runs import ENDED
from corral_tui import figures
from corral_tui.spans import GLYPHS
from corral_tui.state import State
from corral_tui.text import clean
from corral_tui.values import RunView

SHOWN = 5
"""Runs that are named."""
EXIT_CODES = {"success": 0, "failed": 1, "interrupted": 5}


def summary(state: State, now: float, run_id: str | None = None) -> list[str]:
    """A few lines: what lives, and what to type to see it again. With `run_id`, that run alone."""
    if run_id is not None:
        run = state.run(run_id, now)
        return [_line(run)] if run else []
    order = state.runs()
    views = [run for run in (state.run(name, now) for name in order) if run is not None]
    if not views:
        return []
    live = [run for run in views if not run.ended]
    unlisted = state.unlisted()
    tally = Counter(run.status for run in views if run.ended)
    tally.update({status: getattr(unlisted, status) for status in ENDED})
    lives, all_runs = len(live) + unlisted.live, len(views) + unlisted.live + unlisted.ended
    ended = ", ".join(f"{tally[status]:,} {status}" for status in ENDED if tally[status])
    counted = f"{figures.plural(all_runs, 'run')}: {lives:,} live" + (f"; {ended}" if ended else "")
    lines = [counted, *(_line(run) for run in (live or views)[:SHOWN])]
    if lives > SHOWN:
        lines.append(f"  and {lives - SHOWN:,} more: corral runs")
    return lines


def _line(run: RunView) -> str:
    counts = run.counts
    parts = [f"{figures.count(counts.success)} success", f"{figures.count(counts.error)} error"]
    if counts.interrupted:
        parts.append(f"{figures.count(counts.interrupted)} interrupted")
    if not run.ended:
        parts.append(f"{figures.count(counts.running)} running, {figures.count(counts.pending)} pending")
    return f"{GLYPHS[run.status]} {run.id} {clean(run.topic)}  {run.status}  {', '.join(parts)}"


def exit_code(state: State, now: float, run_id: str | None) -> int:
    """0 for success, 1 for failed, 5 for interrupted; 0 while it is live, and without a run."""
    run = state.run(run_id, now) if run_id is not None else None
    return EXIT_CODES.get(run.status, 0) if run else 0
