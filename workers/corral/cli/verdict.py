"""Whether the counts of a run's record are what its events and the queue say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from corral.ledger import Counts
from corral.recount import Recounted, TaskCounts
from corral.runs import Record

_COMPARED = ("total", "pending", "success", "error", "interrupted")


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a comparison."""

    run_id: str
    events: int
    """How many were counted."""
    seq: int
    """The last event that the record counts."""
    counted: dict[str, Any]
    recorded: dict[str, Any]
    queued: int | None
    """Messages of the run in the queue, those that are being executed included; None where nothing can be compared."""
    differences: list[str]
    lacks_messages: bool
    """Tasks are open that have no message in the queue."""

    @property
    def ok(self) -> bool:
        """Whether everything agrees."""
        return not self.differences

    def fields(self) -> dict[str, Any]:
        """As `corral verify --json` shows it."""
        return {
            "run": self.run_id,
            "ok": self.ok,
            "events": self.events,
            "seq": self.seq,
            "counted": self.counted,
            "recorded": self.recorded,
            "queued": self.queued,
            "differences": self.differences,
        }

    def rows(self) -> Iterator[tuple[str, int, int]]:
        """(what, counted, recorded), for a table."""
        for name in _COMPARED:
            yield name, self.counted[name], self.recorded[name]


def judge(record: Record, upto: Recounted, now: Recounted, queued: int | None) -> Verdict:
    """Compare a record with the recount up to the record's last event; and the recount of all events with the queue.

    `queued` is None if the queue is no witness: tasks move while one looks, or are being removed.
    """
    counted = _fields(upto.counts) | {"topics": {topic: _fields(counts) for topic, counts in upto.topics.items()}}
    recorded = _fields(record.counts) | {"topics": {topic: _fields(counts) for topic, counts in record.topics.items()}}
    if not record.topics:  # nothing was counted yet
        recorded["topics"] = {record.topic: _fields(record.counts)}
    differences = list(_differences("", counted, recorded))
    for topic in sorted({*counted["topics"], *recorded["topics"]}):
        pair = [side["topics"].get(topic, _fields(TaskCounts())) for side in (counted, recorded)]
        differences += _differences(f" of {topic}", *pair)
    if record.state == "final" and upto.root != record.root:
        differences.append(f"the root: counted {upto.root or 'open'}, recorded {record.root}")
    lacks = False
    if queued is None:
        pass
    elif record.state == "final" and queued:
        differences.append(f"the run has ended, and {queued:,} of its messages are still in the queue")
    elif record.state == "running" and not now.over and now.counts.pending > queued:
        # A task's message is in the queue before the event that tells of it, and until after the event of its end.
        lacks = True
        differences.append(f"{now.counts.pending:,} tasks are open, and only {queued:,} messages are in the queue")
    return Verdict(
        run_id=record.id,
        events=upto.events,
        seq=record.seq,
        counted=counted,
        recorded=recorded,
        queued=queued,
        differences=differences,
        lacks_messages=lacks,
    )


def _fields(counts: Counts | TaskCounts) -> dict[str, Any]:
    """Counts that can be compared: what is running is among what is pending, because events don't tell them apart."""
    running = counts.running if isinstance(counts, Counts) else 0
    return {
        "total": counts.total,
        "pending": counts.pending + running,
        "success": counts.success,
        "error": counts.error,
        "interrupted": counts.interrupted,
    }


def _differences(where: str, counted: dict[str, Any], recorded: dict[str, Any]) -> Iterator[str]:
    for name in _COMPARED:
        if counted[name] != recorded[name]:
            yield f"{name}{where}: the events say {counted[name]:,}, the record says {recorded[name]:,}"
