"""What must be true of all runs of a history together."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from corral.runs import Record
from corral.subjects import key_hash
from tests.chaos.findings import Findings, Truth, why
from tests.chaos.producer import Order, Said
from tests.chaos.work import Begun, Work

if TYPE_CHECKING:
    from tests.chaos.world import World


class Told(Protocol):
    """An order, and what was said each time."""

    @property
    def order(self) -> Order: ...
    @property
    def said(self) -> list[Said]: ...


def check_orders(world: World, told: Sequence[Told], records: dict[str, Record], findings: Findings) -> None:
    """What was confirmed is there; what was refused is not."""
    if "lose tail" in world.servers_struck:
        return  # what was confirmed may be among what was lost
    confirmed = {one.order.id for one in told if one.order.do == "start" and _ran(one)}
    for one in told:
        last = one.said[-1]
        text = f"{one.order.do} {one.order.id}: {[each.result for each in one.said]} {last.text}"
        record = records.get(one.order.id)
        if last.error:
            findings.check(last.result in _PROPER[one.order.do] or last.unknown or "undone" in last.text, text)
        elif one.order.do == "start" and last.result == one.order.id:
            findings.check(record is not None and record.state == "final", f"{text}: and there is no run")
        elif one.order.do == "start":
            findings.check(last.result in records, f"{text}: joined no run")
        if one.order.do == "start" and last.result == "DuplicateRun" and one.order.id not in confirmed:
            unclear = any(each.unknown for other in told if other.order.id == one.order.id for each in other.said)
            gone = record is None or record.state == "aborted"
            findings.check(gone or unclear, f"{text}: and the run is there")


def check_started(world: World, records: dict[str, Record], truth: Truth, findings: Findings) -> None:
    """What tasks start is started, and no more than once."""
    roots = Counter(
        msgspec.json.decode(record.body, type=Work).name for record in records.values() if record.state == "final"
    )
    # A dispatcher that runs again may send its last window again: the same message is then two tasks, of which one
    # counts, and each starts a run.
    # Also those of a run whose record the server has lost.
    copies = Counter(name for run_id in list(truth.runs) for name in truth.tasks(run_id))
    for name, count in roots.items():
        most = copies[name.removesuffix(".run")] if name.endswith(".run") else 1
        findings.check(count <= most, f"{name} was started {count} times, by {most} tasks")
    if "lose tail" in world.servers_struck:
        return
    for record in records.values():
        for work in msgspec.json.decode(record.body, type=Work).family():
            if work.how == "start" and truth.succeeded(record.id, work.name):
                findings.check(roots[f"{work.name}.run"], f"{work.name} has started no run")


_PROPER = {
    "start": ("DuplicateRun",),
    "interrupt": ("RunNotFound",),
    "retry": ("NotEnded", "DuplicateRun"),
}
"""Refusals that are right where producers race."""


def _ran(one: Told) -> bool:
    return one.said[-1].result == one.order.id


def check_keys(world: World, records: dict[str, Record], truth: Truth, findings: Findings) -> None:
    """No two runs with the same key were executed at the same time, by processes that nothing was done to."""
    spans: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    for record in records.values():
        if record.unique is not None:
            spans[key_hash(record.unique)] += [(*span, record.id) for span in _spans(world, truth.of(record.id), truth)]
    for found in spans.values():
        latest: tuple[float, float, str] = (0.0, 0.0, "")
        for span in sorted(found):
            if span[2] != latest[2] and span[0] < latest[1]:
                findings.wrong.append(f"{span[2]} and {latest[2]} were executed at once, and have the same key")
            latest = max(latest, span, key=lambda each: each[1])


def _spans(world: World, executed: dict[str, list[Begun]], truth: Truth) -> Iterator[tuple[float, float]]:
    for begun in executed.values():
        for one in begun:
            end = truth.end(one)
            if end is not None and why(world, one) is None:
                yield one.at, end.at
