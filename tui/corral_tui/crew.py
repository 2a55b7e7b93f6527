"""The workers: how fast each is, and how they stand in the list and below it."""

from __future__ import annotations

from collections.abc import Sequence

from corral.messages import task_text
from corral.runs import LONG, LONGEST
from corral_tui import figures
from corral_tui.columns import NARROW, SMALL, WIDE, Column, filling
from corral_tui.pulse import Pulse
from corral_tui.spans import Line, Span, joined, line, number, wrapped
from corral_tui.text import clean
from corral_tui.values import WorkerView

Row = tuple[Line, ...]

POOLS = 4
"""Pools that are told above the list."""
BAR = 20
"""Cells of the bar of what takes longest."""
BESIDE: Span = ("   ", "text")
KEPT = 500
"""Workers whose ends are counted; of more, those that have been quiet for longest are forgotten."""


class Paces:
    """Ends over time, by worker."""

    def __init__(self) -> None:
        self._pulses: dict[str, Pulse] = {}

    def note(self, at: float, worker: str, ended: int) -> None:
        """So many tasks of any run have ended there."""
        pulse = self._pulses.pop(worker, None) or Pulse(kept=80)
        pulse.add(at, ended)
        self._pulses[worker] = pulse  # the latest is the last
        if len(self._pulses) > KEPT:
            del self._pulses[next(iter(self._pulses))]

    def rate(self, worker: str, now: float) -> float:
        """Ends per second, by the server's clock."""
        pulse = self._pulses.get(worker)
        return pulse.rate(now, 5.0) if pulse is not None else 0.0


# --- the list ---------------------------------------------------------------------------------------


def worker_columns(width: int, id_width: int = 14) -> tuple[Column, ...]:
    """The columns of the workers; `id_width` is that of the longest id."""
    columns: tuple[Column, ...] = (
        Column("state", "STATE", 9, gap=1),
        Column("worker", "WORKER", max(8, min(id_width, 18))),
        Column("host", "HOST", 12),
        Column("pid", "PID", 7, right=True),
        Column("load", "SLOTS", 10),
        Column("slots", "IN USE", 9, right=True),
        Column("rate", "RATE", 7, right=True),
        Column("memory", "MEMORY", 6, right=True),
        Column("up", "UP", 5, right=True),
        Column("seen", "HEARD", 5, right=True),
        Column("longest", "LONGEST", 7, right=True),
        Column("version", "VERSION", 8),
        Column("doing", "DOING", 10),
    )
    left_out: tuple[str, ...] = ()
    if width < SMALL:
        left_out = ("host", "pid", "load", "rate", "memory", "up", "seen", "version")
    elif width < NARROW:
        left_out = ("host", "load", "rate", "memory", "up", "seen", "version")
    elif width < WIDE:
        left_out = ("version", "host", "seen")
    return filling(width, tuple(column for column in columns if column.name not in left_out), "doing")


def worker_row(worker: WorkerView, columns: Sequence[Column], now: float) -> Row:
    """A worker process."""
    text = "dim" if worker.silent else "text"
    cells: dict[str, Line] = {
        "state": _state(worker),
        "worker": line((clean(worker.id), "strong" if text == "text" else text)),
        "host": line((clean(worker.host), text)),
        "pid": line((str(worker.pid), "dim")),
        "load": _load(worker, 10),
        "slots": line(
            (figures.count(worker.busy), "running" if worker.busy else "faint"),
            (f"/{figures.count(worker.slots)}", "dim"),
        ),
        "rate": line((figures.rate(worker.rate), text)) if worker.rate else (),
        "memory": line((figures.size(worker.rss) if worker.rss else "", text)),
        "up": line((figures.age(now - worker.started_at), "dim")),
        "seen": line((figures.age(now - worker.seen_at), "error" if worker.silent else "dim")),
        "longest": _longest_cell(worker, now),
        "version": line((clean(worker.version), "dim")),
        "doing": _doing(worker, text),
    }
    return tuple(cells[column.name] for column in columns)


def _longest_cell(worker: WorkerView, now: float) -> Line:
    if not worker.longest:
        return ()
    return line((figures.short(worker.longest[0].seconds(now)), "dim" if worker.silent else "text"))


def _state(worker: WorkerView) -> Line:
    if worker.silent:
        return line(("✗ silent", "error"))
    if worker.blocked:
        return line(("✗ BLOCKED", "shout"))
    if worker.leaves:
        return line(("■ stops", "interrupted") if worker.leaves == "stop" else ("◐ drains", "warning"))
    if worker.waiting:
        return line(("‖ no room", "warning"))
    return line(("▶ busy", "running")) if worker.busy else line(("· idle", "dim"))


def _load(worker: WorkerView, width: int) -> Line:
    full = min(width, -(-width * worker.busy // max(1, worker.slots)))
    return (("━" * full, "bar-live"), ("─" * (width - full), "bar-rest"))


def _doing(worker: WorkerView, text: str) -> Line:
    """What it executes, the most first; or what it could."""
    if worker.blocked and not worker.silent:
        return line((f"for {figures.short(worker.blocked)} by {clean(worker.blocked_by, 120)}", "shout"))
    if not worker.doing:
        return line((f"serves {clean(' '.join(worker.topics), 120)}", "dim"))
    return joined([line((f"{each.count} ", "running"), (clean(each.topic, 60), text)) for each in worker.doing[:8]])


# --- around it --------------------------------------------------------------------------------------


def summary_lines(workers: Sequence[WorkerView], bookkeeper: str | None, width: int) -> list[Line]:
    """Above the list: what is wrong with workers, and the pools; each is told whole."""
    silent = sum(worker.silent for worker in workers)
    blocked = sum(bool(worker.blocked) and not worker.silent for worker in workers)
    waiting = sum(worker.waiting for worker in workers if not worker.silent)
    leaving = [worker for worker in workers if worker.leaves and not worker.silent]
    said: list[Line] = [line(("Workers", "strong"))]
    if blocked:
        said.append(line((f"{blocked} BLOCKED: nothing else moves there", "shout")))
    if silent:
        said.append(line((f"{silent} silent: taken for dead, their tasks run elsewhere", "error")))
    if leaving:
        leave = f"{len(leaving)} {'leaves' if len(leaving) == 1 else 'leave'}{_told_by(leaving)}"
        said.append(line((f"{leave}: nothing new is taken there", "warning")))
    if waiting:
        tasks = figures.plural(waiting, "task that sends waits", "tasks that send wait")
        said.append(line((f"the queue is full: {tasks} for room", "warning")))
    return [(), *wrapped(said, BESIDE, width), *_pools(workers, bookkeeper, width), ()]


def _told_by(leaving: Sequence[WorkerView]) -> str:
    """Who told them to, as far as it was somebody."""
    names = sorted({clean(worker.leaves_by, 40) for worker in leaving if worker.leaves_by})
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return f", told by {', '.join(names[:2])}{more}" if names else ""


def _pools(workers: Sequence[WorkerView], bookkeeper: str | None, width: int) -> list[Line]:
    pools: dict[str, list[WorkerView]] = {}
    for worker in workers:
        if not worker.silent:
            pools.setdefault(worker.pool, []).append(worker)
    said = []
    if bookkeeper == "":
        said.append(line(("no bookkeeper", "error")))
    elif bookkeeper and bookkeeper not in pools:
        said.append(line((clean(bookkeeper, 30), "accent"), (" keeps the books", "dim")))
    # Who keeps the books stands first: of many pools only some are told.
    for pool in sorted(pools, key=lambda pool: pool != bookkeeper):
        members = pools[pool]
        keeps = ", keeps the books" if pool == bookkeeper else ""
        hosts = " ".join(sorted({clean(member.host, 20) for member in members}))
        busy, slots = sum(member.busy for member in members), sum(member.slots for member in members)
        said.append(
            line(
                (clean(pool, 20), "accent"),
                (f" on {hosts}: {figures.plural(len(members), 'worker')}, {busy:,}/{slots:,}{keeps}", "dim"),
            )
        )
    shown = said[:POOLS]
    if len(said) > POOLS:
        shown.append(line((f"and {figures.plural(len(said) - POOLS, 'more pool', 'more pools')}", "dim")))
    return wrapped(shown, BESIDE, width)


def worker_lines(worker: WorkerView, now: float, *, roomy: bool = True) -> list[Line]:
    """Below the list: the worker under the cursor in full; its parts are set apart where there is room for that."""
    facts = [
        line((clean(worker.id), "strong"), (f"  pool {clean(worker.pool)}  Corral {clean(worker.version)}", "dim")),
        line(
            (f"pid {worker.pid} on {clean(worker.host)}", "text"),
            (f"   up {figures.long(now - worker.started_at)}, heard {figures.age(now - worker.seen_at)}", "dim"),
            (f"   {figures.size(worker.rss)}" if worker.rss else "", "dim"),
            (f"   {figures.rate(worker.rate)}" if worker.rate else "", "text"),
        ),
        line(("serves ", "dim"), (clean(" ".join(worker.topics), 400), "text")),
    ]
    if worker.leaves:
        by = f" by {clean(worker.leaves_by, 100)}" if worker.leaves_by else ": its pool ends"
        facts.append(line((f"told to {worker.leaves}{by}", "warning")))
    if worker.settings:
        settings = "  ".join(f"{clean(name, 30)}={value:g}" for name, value in worker.settings)
        facts.append(line(("set otherwise: ", "dim"), (settings, "text")))
    if worker.blocked and not worker.silent:
        facts.append(
            line(
                (f"BLOCKED for {figures.long(worker.blocked)} by {clean(worker.blocked_by, 200)}", "shout"),
                ("   the stack is in its pool's log", "warning"),
            )
        )
    if worker.stopping:
        facts.append(line(("still stops ", "warning"), (clean(" ".join(worker.stopping), 200), "text")))
    longest = _longest(worker, now)
    apart: list[Line] = [()] if roomy else []
    return [*facts, (), *_lanes(worker), *(apart if longest else []), *longest]


def _lanes(worker: WorkerView) -> list[Line]:
    """A line for each run and topic, with a mark for each slot."""
    most = max((each.count for each in worker.doing), default=0)
    width = len(f"{most:,}")
    lanes = []
    for each in worker.doing:
        marks = "━" * min(each.count, 40)
        lanes.append(
            (
                (" " * (width - len(f"{each.count:,}")), "text"),
                *number(each.count, "running"),
                (f" {marks:<{min(most, 40)}} ", "bar-live"),
                (clean(each.topic, 60), "text"),
                (f"  {clean(each.run, 64)}", "accent-dim"),
            )
        )
    return lanes or [line(("nothing to do", "dim"))]


def _longest(worker: WorkerView, now: float) -> list[Line]:
    """The tasks that it executes for longest, each with a bar for how long that is; and how young all others are."""
    shown = worker.longest
    if not shown:
        return [line(("each for less than a second", "dim"))] if worker.busy else []
    oldest = max(0.001, shown[0].seconds(now))
    topics = max(len(clean(each.topic, 40)) for each in shown)
    tasks = max(len(task_text(each.task)) for each in shown)
    lines: list[Line] = [line(("for longest", "head"))]
    for each in shown:
        age = each.seconds(now)
        length = max(1, round(BAR * age / oldest))
        lines.append(
            (
                (f"{figures.long(age):>8}  ", "text"),
                ("━" * length, "bar-live"),
                (" " * (BAR - length), "text"),
                (f"  {task_text(each.task):<{tasks}}", "text"),
                (f"  {clean(each.topic, 40):<{topics}}", "text"),
                (f"  {clean(each.run, 64)}", "accent-dim"),
            )
        )
    others = worker.busy - len(shown)
    if others > 0:
        # Only the longest are named, and none that has just begun: so much is known of all others.
        below = shown[-1].seconds(now) if len(shown) == LONGEST else LONG + max(0.0, now - worker.seen_at)
        said = f"{figures.plural(others, 'other', 'others')}, {'' if others == 1 else 'each '}for less"
        lines.append(line((f"{said} than {figures.long(below)}", "dim")))
    return lines
