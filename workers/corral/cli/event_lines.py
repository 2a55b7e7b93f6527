"""Events as JSON, and as lines for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, assert_never

from corral import events
from corral.cli.output import plural
from corral.client import StoredEvent
from corral.events import AnyEvent, kind
from corral.messages import TaskId, task_text
from corral.parts import named
from corral.runs import moment


def event_fields(stored: StoredEvent) -> dict[str, Any]:
    """An event as `corral events --json` shows it: where and when it was stored, its type, and all of its fields."""
    event = stored.event
    fields = {name: getattr(event, name) for name in event.__struct_fields__}
    return {"run": stored.run_id, "seq": stored.seq, "at": moment(stored.at), "type": kind(event), **fields}


def event_line(stored: StoredEvent) -> str:
    """An event in one line."""
    at = moment(stored.at).astimezone().strftime("%H:%M:%S.%f")[:-3]
    return f"{stored.seq:>8}  {at}  {kind(stored.event):<11} {_describe(stored.event)}".rstrip()


def _describe(event: AnyEvent) -> str:  # noqa: PLR0911  # one for each event
    match event:
        case events.Opened():
            kept = f", keeps batch {', '.join(str(batch) for batch, _ in event.keep)}" if event.keep else ""
            return f"task {task_text(event.parent)} begins to send{kept}"
        case events.Sent():
            return f"batch {event.batch}: {event.count:,} tasks so far, {', '.join(event.topics)}"
        case events.Ended():
            return f"{_ends(event)} on worker {event.worker}"
        case events.Retrying():
            because = f" after {event.error}" if event.error else ""
            return f"{event.topic} {task_text(event.task)}: attempt {event.attempt} in {event.delay:g} s{because}"
        case events.Failed():
            return f"{event.topic} {task_text(event.task)}: {event.error}: {event.message}".splitlines()[0]
        case events.Crashed():
            return f"worker {event.worker} died ({event.reason}) with {_tasks(event.tasks)}"
        case events.Reopened():
            back = plural(sum(ordinals.count() for _, ordinals in named(event)), "task")
            return f"round {event.round}: {back} brought back{_part(event)}"
        case events.Interrupted():
            return f"by {event.by}" + (f": {event.reason}" if event.reason else "")
        case events.RunEnded():
            return "everything that was open is interrupted" if event.interrupted else ""
        case _:
            assert_never(event)


def _ends(event: events.Ended) -> str:
    counts: dict[tuple[str, str], int] = {}
    for ends in event.tasks:
        tasks = sum(last - first for first, last in ends.ranges)
        counts[ends.topic, ends.outcome] = counts.get((ends.topic, ends.outcome), 0) + tasks
    parts = [f"{count:,} {topic} {outcome}" for (topic, outcome), count in counts.items()]
    for one in event.dispatchers:
        sent = sum(count for _, count in one.sent)
        parts.append(f"{one.topic} {task_text(one.task)} {one.outcome}, having sent {sent:,}")
    return "; ".join(parts)


def _part(event: events.Reopened) -> str:
    return f", part {event.part + 1} of {event.parts}" if event.parts > 1 else ""


def _tasks(tasks: Iterable[TaskId]) -> str:
    names = [task_text(task) for task in tasks]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") if names else "no tasks"
