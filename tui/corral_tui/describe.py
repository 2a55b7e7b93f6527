"""Events and errors in words: made once when they arrive, so that nothing big is kept."""

from __future__ import annotations

import json
from typing import assert_never

import msgspec

from corral import events
from corral.events import AnyEvent
from corral.messages import task_text
from corral.parts import named
from corral_tui import figures
from corral_tui.text import clean, clean_lines
from corral_tui.values import ErrorView, EventView

TRACEBACK_LIMIT, BODY_LIMIT = 400, 60
"""Lines of an error that are kept."""


def event_view(sequence: int, at: float, event: AnyEvent) -> EventView:
    """The event as one line."""
    return EventView(sequence=sequence, at=at, kind=events.kind(event), text=clean(_words(event), 300))


def error_view(at: float, event: events.Failed, *, group: str = "") -> ErrorView:
    """Why a task failed; `group` is the key of its kind."""
    task = task_text(event.task)
    return ErrorView(
        key=f"{task}/{event.round}",
        group=group,
        task=task,
        topic=clean(event.topic),
        type=clean(event.error, 200),
        message=clean(event.message, 500),
        traceback=tuple(clean_lines(event.traceback.rstrip(), TRACEBACK_LIMIT)),
        body=body_lines(bytes(event.body)),
        attempt=event.attempt,
        at=at,
        worker=clean(event.worker, 100),
        round=event.round,
    )


def body_lines(body: bytes) -> tuple[str, ...]:
    """A message as indented JSON, cut to what a person reads."""
    return tuple(clean_lines(_pretty(body), BODY_LIMIT))


def ended_in(event: AnyEvent) -> int:
    """How many tasks the event says have ended."""
    if not isinstance(event, events.Ended):
        return 0
    return sum(end - start for ends in event.tasks for start, end in ends.ranges) + len(event.dispatchers)


def _words(event: AnyEvent) -> str:
    match event:
        case events.Opened():
            kept = f", keeps {figures.plural(len(event.keep), 'batch', 'batches')}" if event.keep else ""
            words = f"task {task_text(event.parent)} begins to send{kept}"
        case events.Sent():
            last = figures.count(event.count - 1)
            words = (
                f"batch {event.batch}: {figures.count(event.first)} to {last} are queued ({', '.join(event.topics)})"
            )
        case events.Ended():
            words = _ended_words(event)
        case events.Retrying():
            why = f": {event.error}" if event.error else ""
            again = f"again in {figures.long(event.delay)} as attempt {event.attempt}"
            words = f"{event.topic} {task_text(event.task)} comes {again}{why}"
        case events.Failed():
            words = f"{event.topic} {task_text(event.task)}: {event.error}: {event.message}"
        case events.Crashed():
            why = f": {event.reason}" if event.reason else ""
            words = f"worker {event.worker} died with {figures.plural(len(event.tasks), 'task')}{why}"
        case events.Reopened():
            back = figures.plural(sum(ordinals.count() for _, ordinals in named(event)), "task")
            part = f", part {event.part + 1} of {event.parts}" if event.parts > 1 else ""
            words = f"round {event.round} brings {back} back{part}"
        case events.Interrupted():
            why = f": {event.reason}" if event.reason else ""
            words = f"ordered to stop by {event.by or 'unknown'}{why}"
        case events.RunEnded():
            words = f"the run is over{', what was open is interrupted' if event.interrupted else ''}"
        case _:
            assert_never(event)
    return words


def _ended_words(event: events.Ended) -> str:
    tallies: dict[tuple[str, str], int] = {}
    for ends in event.tasks:
        place = (ends.topic, ends.outcome)
        tallies[place] = tallies.get(place, 0) + sum(end - start for start, end in ends.ranges)
    for end in event.dispatchers:
        place = (end.topic, end.outcome)
        tallies[place] = tallies.get(place, 0) + 1
    parts = [f"{figures.count(n)} {topic} {outcome}" for (topic, outcome), n in tallies.items()]
    return f"{', '.join(parts) or 'nothing'} by {event.worker}"


def _pretty(body: bytes) -> str:
    try:
        return json.dumps(msgspec.json.decode(body), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return body.decode("utf-8", "replace")
