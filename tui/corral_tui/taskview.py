"""Tasks in words: what is under the cursor of the map, what its signs mean, and the story of one task."""

from __future__ import annotations

from corral.ledger import Ledger
from corral.messages import ROOT, TaskId, task_text
from corral_tui import figures
from corral_tui.code import json_line
from corral_tui.describe import body_lines
from corral_tui.spans import Line, fitting, joined, line
from corral_tui.story import Story
from corral_tui.taskmap import Tally
from corral_tui.text import clean
from corral_tui.values import AtWork
from corral_tui.view import error_lines

KIND_ROLES = {"failed": "error", "crashed": "error", "retrying": "warning", "interrupted": "interrupted"}


def cell_line(  # noqa: PLR0917  # in the order in which they are said
    tally: Tally, span: tuple[int, int], per: int, task: TaskId | None, at_work: AtWork | None, now: float
) -> Line:
    """What the cursor is on, from a first place up to and without a last; `at_work` where a worker names it."""
    if task is None:
        return line(("no tasks yet", "dim"))
    here = f"task {task_text(task)}" if per == 1 else f"{figures.count(span[0] + 1)} to {figures.count(span[1])}"
    counts = [
        line((f"{figures.count(value)} {word}", role)) if per > 1 else line((word, role))
        for value, word, role in (
            (tally.error, "error", "error"),
            (tally.interrupted, "interrupted", "interrupted"),
            (tally.retrying, "waits for another attempt", "warning"),
            (tally.running, at_work_text(at_work, now) if at_work else "in work", "running"),
            (tally.pending, "pending" if per > 1 else "not ended", "dim"),
            (tally.success, "success", "success"),
        )
        if value
    ]
    scale = "a cell is a task" if per == 1 else f"a cell is {figures.count(per)} tasks"
    return joined([line((here, "strong")), joined(counts, (", ", "faint")), line((scale, "dim"))], ("   ", "text"))


def at_work_text(task: AtWork, now: float) -> str:
    """Who executes a task, and for how long by now."""
    return f"in work on {clean(task.worker, 40)} for {figures.long(task.seconds(now))}"


def map_legend(width: int) -> Line:
    """What the signs of the map mean, as many as fit."""
    signs = [("✗", "error"), ("■", "interrupted"), ("↻", "retrying"), ("▶", "running"), ("·", "pending")]
    parts = [line((f"{glyph} ", f"map-{word}"), (word, "dim")) for glyph, word in signs]
    parts.append(line(("░▒▓ ", "map-partly"), ("part", "dim")))
    parts.append(line(("█ ", "map-success"), ("success", "dim")))
    return fitting(parts, ("  ", "text"), width)


def task_stands(task: TaskId, ledger: Ledger, at_work: AtWork | None, now: float) -> Line:
    """How a task stands now, by the ledger; `at_work` where a worker says that it executes it."""
    tree = ledger.tree
    batch = tree.batches.get(task[0])
    if batch is None or task[1] not in batch.known():
        return line(("not known here (yet)", "dim"))
    outcome = tree.outcome(task)
    waits = outcome is None and task[1] in batch.waiting
    glyph, word, role = {
        "success": ("✓", "success", "success"),
        "error": ("✗", "error", "error"),
        "interrupted": ("■", "interrupted", "interrupted"),
    }.get(outcome or "", ("↻", "waits for another attempt", "warning") if waits else ("·", "not ended", "queued"))
    if outcome is None and not waits and at_work is not None:
        glyph, word, role = "▶", at_work_text(at_work, now), "running"
    parts = [line((f"{glyph} {word}", role)), line((clean(tree.topic_of(task)), "text"))]
    if outcome is None and tree.attempt(task) > 1:
        parts.append(line((f"attempt {tree.attempt(task)} comes next", "dim")))
    if crashes := ledger.crashes(task):
        parts.append(line((f"{figures.plural(crashes, 'worker')} died under it", "error")))
    if sent := sum(count for _, count in tree.sent_by(task)):
        parts.append(line((f"has sent {figures.plural(sent, 'task')}", "dim")))
    if not tree.is_counted(task) and task != ROOT:
        parts.append(line(("does not count: a later execution of its dispatcher has replaced it", "warning")))
    return joined(parts, ("   ", "text"))


def standing(task: TaskId, ledger: Ledger) -> object:
    """What changes with each thing that is stored of a task's fate."""
    tree = ledger.tree
    batch = tree.batches.get(task[0])
    waits = batch is not None and task[1] in batch.waiting
    return tree.outcome(task), waits, tree.attempt(task), ledger.crashes(task), ledger.round


def story_lines(story: Story, body: bytes, problem: str) -> list[Line]:
    """All that is stored about a task: what happened and when, then why it failed, and the message."""
    if problem:
        return [line((clean(problem), "error"))]
    if not story.complete:
        return [line(("reading what is stored about it", "dim"))]
    lines: list[Line] = []
    before: float | None = None
    for step in story.steps:
        later = f"+{figures.short(step.at - before)}" if before is not None else ""
        before = step.at
        when = line((figures.clock_ms(step.at), "dim"), (f" {later:>8}  ", "dim"))
        lines.append((*when, (f"{step.kind:<12}", KIND_ROLES.get(step.kind, "accent-dim")), (step.text, "text")))
    if not story.steps:
        lines.append(line(("nothing is stored about it any more", "dim")))
    for error in reversed(story.errors[-3:]):
        lines += [(), *error_lines(error)]
    if body and not story.errors:
        lines += [(), line(("message", "head")), *(json_line(text) for text in body_lines(body))]
    return lines
