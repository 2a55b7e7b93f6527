"""Rows of the lists: a cell for each column, from values."""

from __future__ import annotations

from collections.abc import Sequence

from corral.ledger import Counts
from corral.messages import task_text
from corral.runs import ENDED
from corral_tui import figures
from corral_tui.columns import PERCENT, Column
from corral_tui.groups import GroupView
from corral_tui.spans import Line, Span, bar, line, number, percent, spark, status
from corral_tui.text import clean
from corral_tui.values import AtWork, ErrorView, EventView, RunView, ShareView

Row = tuple[Line, ...]
KEY = 8
"""Cells behind a topic from which on a unique key is shown."""

KIND_ROLES = {
    "failed": "error",
    "crashed": "error",
    "retrying": "warning",
    "interrupted": "interrupted",
    "run-ended": "accent",
    "reopened": "accent",
}


def run_row(run: RunView, columns: Sequence[Column], now: float) -> Row:
    """A run in the list. What has ended is dim, so that the eye finds what lives, and what went wrong."""
    text = "dim" if run.ended else "text"
    return tuple(_run_cell(run, column, now, text) for column in columns)


def _run_cell(run: RunView, column: Column, now: float, text: str) -> Line:
    cell: Line = ()
    match column.name:
        case "status":
            cell = status(run.status, word=column.width > 1)
        case "run":
            cell = ((run.id[: column.width], "dim" if run.ended else "strong"),)
        case "topic":
            cell = _name(run, column.width, text)
        case "bar":
            cell = (*bar(run, column.width - PERCENT), (" ", text), *percent(run))
        case "rate" if run.stalled:
            cell = (("stalled", "warning"),)
        case "rate":
            cell = ((figures.rate(run.rate), text),) if run.rate else ()
        case "eta" if run.eta is not None and not run.ended:
            # While the root sends, more may come: what is known is a lower bound.
            cell = ((f"{figures.short(run.eta)}{'+' if run.growing else ''}", text),)
        case "age":
            since = run.finished_at if run.ended and run.finished_at else run.created_at
            cell = ((figures.age(now - since), "dim"),)
        case name if name in COUNTS:
            cell = _count_cell(run.counts, name, text)
    return cell


def _name(run: RunView, width: int, text: str) -> Line:
    """The topic, and behind it the unique key where enough of it fits to be recognized."""
    topic = line((clean(run.topic), text))
    if not run.unique or len(run.topic) + KEY > width:
        return topic
    return (*topic, (f"  {clean(run.unique)}", "dim"))


COUNTS = {
    "total": "text",
    "pending": "text",
    "running": "running",
    "retrying": "warning",
    "success": "success",
    "error": "error",
    "stopped": "interrupted",
}
"""The columns of counts, and the role of each while the run lives."""


def _count_cell(counts: Counts, name: str, text: str) -> Line:
    value: int = counts.interrupted if name == "stopped" else getattr(counts, name)
    calm = text == "dim" and name in ("total", "pending", "success")
    return number(value, "dim" if calm else COUNTS[name])


def topic_row(run: RunView, topic: str, columns: Sequence[Column]) -> Row:
    """One topic of a run."""
    counts = run.topics[topic]
    part = RunView(id=run.id, topic=topic, status=run.status, counts=counts, topics={}, created_at=run.created_at)
    text = "dim" if run.status in ENDED else "text"
    cells: list[Line] = []
    for column in columns:
        if column.name == "topic":
            cells.append(((clean(topic), "strong" if text == "text" else "dim"),))
        elif column.name == "bar":
            cells.append((*bar(part, column.width - PERCENT), (" ", text), *percent(part)))
        else:
            cells.append(_count_cell(counts, column.name, text))
    return tuple(cells)


RETRIED: Span = ("↻ retried  ", "dim")
"""Before an error of an earlier round: it counts no more."""


def error_row(error: ErrorView, columns: Sequence[Column], *, retried: bool) -> Row:
    """An error in the list; its traceback stands in the pane. One whose task a retry has brought back since is dim."""
    cells = {
        "at": line((figures.clock(error.at), "dim")),
        "topic": line(error.topic),
        "task": line((error.task, "dim")),
        "attempt": line((str(error.attempt), "dim")),
        "error": line(
            RETRIED if retried else ("", "text"),
            (error.type, "dim" if retried else "error"),
            (f"  {error.message}", "dim" if retried else "text"),
        ),
    }
    return tuple(cells[column.name] for column in columns)


def group_row(group: GroupView, columns: Sequence[Column], *, retried: bool) -> Row:
    """A group of errors. One that is empty is dim, and says so if a retry has brought its last one back."""
    text = "text" if group.count else "dim"
    retried = retried and not group.count
    cells = {
        "count": number(group.count, "error"),
        "spark": spark(group.spark, "error"),
        "first": line((figures.clock(group.first_at), "dim")),
        "last": line((figures.clock(group.last_at), "dim")),
        "error": line(
            RETRIED if retried else ("", "text"),
            (group.type, "error" if group.count else "dim"),
            (f"  {group.normal}", text),
        ),
        "place": line((group.place, "accent-dim")),
    }
    return tuple(cells[column.name] for column in columns)


def share_row(share: ShareView, columns: Sequence[Column], now: float) -> Row:
    """A worker on a run."""
    state = line(("▶ busy", "running")) if share.running else line(("· idle", "dim"))
    if not share.host:
        state = line(("○ gone", "dim")) if share.known else ()
    cells = {
        "state": state,
        "worker": line((clean(share.worker), "strong" if share.host or not share.known else "dim")),
        "host": line((clean(share.host), "text")),
        "running": number(share.running, "running"),
        "rate": line((figures.rate(share.rate), "text")) if share.rate else (),
        "success": number(share.success, "success"),
        "error": number(share.error, "error"),
        "stopped": number(share.interrupted, "interrupted"),
        "last": line((figures.age(now - share.last_at), "dim")) if share.last_at else (),
        "longest": at_work_cell(share.longest, now) if share.longest is not None else (),
    }
    return tuple(cells[column.name] for column in columns)


def at_work_cell(task: AtWork, now: float) -> Line:
    """Since when a worker executes a task, and which it is."""
    return line(
        (f"{figures.long(task.seconds(now)):>8}", "text"),
        (f"  {task_text(task.task)}", "accent-dim"),
        (f"  {clean(task.topic, 40)}", "dim"),
    )


def event_row(event: EventView, columns: Sequence[Column]) -> Row:
    """An event in the list."""
    cells = {
        "sequence": line((figures.count(event.sequence), "dim")),
        "at": line((figures.clock_ms(event.at), "dim")),
        "kind": line((event.kind, KIND_ROLES.get(event.kind, "accent-dim"))),
        "text": line((event.text, "text")),
    }
    return tuple(cells[column.name] for column in columns)
