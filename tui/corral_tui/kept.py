"""Which records are kept, however many runs there are: so many of those that live, that succeeded, and so on.

Of the runs that have ended the last ones are kept, of those that live the first ones, until they end. Of all others
the id is known: so they are counted, and each of them once.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from typing import Literal

import msgspec

from corral.runs import ENDED, Record, Status, outcome
from corral_tui.values import RunView, Unlisted
from corral_tui.views import record_view

MOST = 10_000
"""Records of each kind that are kept: what a person may look through, and some 20 MB."""
BODY = 4_096
"""Bytes of a run's first message that are kept."""

Kind = Literal["live"] | Status
KINDS: tuple[Kind, ...] = ("live", *ENDED)


class Kept:
    """The records that are kept, by age, and the ids of the others. `most` are kept of each kind."""

    def __init__(self, most: int = MOST) -> None:
        self.records: dict[str, Record] = {}
        self._most = most
        self._queues: dict[Kind, OrderedDict[str, None]] = {kind: OrderedDict() for kind in KINDS}
        """What is kept of each kind, the next one to go first. What is held stands in none."""
        self._others: dict[Kind, set[str]] = {kind: set() for kind in KINDS}
        self._ages: list[tuple[float, str]] = []
        """When each kept one was created, the oldest first."""
        self._order: list[str] | None = []
        self._views: dict[str, RunView] = {}
        """Of those that have ended, as far as somebody wanted to see them."""
        self._held: str | None = None

    def put(self, record: Record) -> bool:
        """A run's record as it is now; whether it is kept."""
        kind, before = _kind(record), self.records.get(record.id)
        self._leave(record.id)
        self._views.pop(record.id, None)
        if before is None and kind == "live" and len(self._queues[kind]) >= self._most and record.id != self._held:
            self._others[kind].add(record.id)
            return False
        if before is None or before.created_at != record.created_at:
            self._forget(before)
            insort(self._ages, (record.created_at, record.id))
            self._order = None
        self.records[record.id] = _slim(record)
        self._enter(record.id, kind)
        return True

    def drop(self, run_id: str) -> None:
        """A run's record is gone."""
        self._leave(run_id)
        self._forget(self.records.pop(run_id, None))

    def hold(self, run_id: str | None) -> str | None:
        """Keep this one in any case, from when its record comes, and no other one any longer; which is let go."""
        before, self._held = self._held, run_id
        if run_id in self.records:
            self._leave(run_id)
        if before is None or before == run_id or (record := self.records.get(before)) is None:
            return None
        return self._enter(before, _kind(record))

    def view(self, run_id: str) -> RunView | None:
        """A run by its record; None if that is not kept."""
        view, record = self._views.get(run_id), self.records.get(run_id)
        if view is not None or record is None:
            return view
        view = record_view(record)
        if not record.live:
            self._views[run_id] = view
        return view

    def order(self) -> list[str]:
        """The kept ones, the newest first. The list is replaced when it changes, never altered."""
        if self._order is None:
            self._order = [run_id for _, run_id in reversed(self._ages)]
        return self._order

    def leaves_out(self, run_id: str) -> bool:
        """Whether there is this run, and its record is not kept."""
        return any(run_id in others for others in self._others.values())

    def unlisted(self) -> Unlisted:
        """How many are not kept."""
        live, *ended = (len(self._others[kind]) for kind in KINDS)
        return Unlisted(live, *ended)

    def _enter(self, run_id: str, kind: Kind) -> str | None:
        """Queue it, and let go of one if there are too many; which."""
        queue = self._queues[kind]
        if run_id != self._held:
            queue[run_id] = None
        if len(queue) <= self._most:
            return None
        gone, _ = queue.popitem(last=kind == "live")
        self._forget(self.records.pop(gone))
        self._others[kind].add(gone)
        return gone

    def _leave(self, run_id: str) -> None:
        for kind in KINDS:
            self._queues[kind].pop(run_id, None)
            self._others[kind].discard(run_id)

    def _forget(self, record: Record | None) -> None:
        if record is not None:
            del self._ages[bisect_left(self._ages, (record.created_at, record.id))]
            self._order = None
            self._views.pop(record.id, None)


def _kind(record: Record) -> Kind:
    return "live" if record.live else outcome(record.counts)


def _slim(record: Record) -> Record:
    """Without the bytes that it was decoded from, which its body would keep."""
    body = record.body.copy() if len(record.body) <= BODY else msgspec.Raw(b"")
    return msgspec.structs.replace(record, body=body)
