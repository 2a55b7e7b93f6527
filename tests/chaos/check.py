"""The checker: what the processors wrote down, the raw events, the records, the queue and the keys must agree."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from corral import Client, events
from corral.client import StoredEvent
from corral.errors import CorralError, EventsExpired
from corral.jetstream.records import Entry
from corral.jetstream.topology import consumers, queue_counts
from corral.messages import task_text
from corral.recount import _History as Recount
from corral.recount import recount
from corral.runs import Record, decode_marker, decode_record, status_of
from tests.chaos.findings import Findings, Truth, why
from tests.chaos.together import Told, check_keys, check_orders, check_started
from tests.chaos.work import Begun, Over, Work
from tests.system.pools import COUNTS

if TYPE_CHECKING:
    from tests.chaos.world import World

QUIET = 20.0
"""Seconds in which the queue must be empty once all runs have ended."""


async def check(world: World, client: Client, told: Sequence[Told], *, stuck: list[str]) -> Findings:
    """Look at everything, when all has healed."""
    findings = Findings()
    for run_id in stuck:
        findings.wrong.append(f"run {run_id} does not end: {await how_it_stands(world, client, run_id)}")
    if stuck:
        return findings
    await _check_queue(world, findings)
    entries = {kind: [one async for one in _entries(world, kind)] for kind in ("run", "unique", "interrupt")}
    records = {record.id: record for record in (decode_record(entry.value) for entry in entries["run"])}
    for entry in entries["unique"]:
        holder = records.get(entry.value.decode())
        # A producer that died, or was not answered, may leave a key that names a start that was undone: it is free.
        undone = holder is None or holder.state == "aborted"
        findings.check(undone, f"a key is still held: {entry.key} by {entry.value!r}")
    for entry in entries["interrupt"]:
        marked = records.get(entry.key.partition(".")[2])
        marker = decode_marker(entry.value)
        findings.check(marked is None or marker.round <= marked.round, f"a marker of a later round: {marker} {marked}")
    truth = Truth(world)
    for record in records.values():
        if record.state == "final":
            await _check_run(world, client, record, truth, findings)
        else:
            findings.check(record.state == "aborted", f"run {record.id} is left {record.state}")
            findings.check(not truth.of(record.id), f"run {record.id} was executed and is {record.state}")
    check_orders(world, told, records, findings)
    check_started(world, records, truth, findings)
    check_keys(world, records, truth, findings)
    return findings


async def _entries(world: World, kind: str) -> AsyncIterator[Entry]:
    """What is stored now: who reads a list may be given an older one by a copy of the stream that lags behind."""
    for entry in await world.records.entries(kind):
        if (now := await world.records.get(entry.key, leader=True)) is not None:
            yield now


async def _check_queue(world: World, findings: Findings) -> None:
    counts: object = None
    waiting: object = None
    try:
        async with asyncio.timeout(QUIET):
            while True:
                try:
                    counts = await queue_counts(world.connection, world.names)
                    found = await consumers(world.connection, world.names)
                    waiting = {topic: some for topic, some in found.items() if some[0] or some[1]}
                except CorralError as error:
                    counts = error
                if not counts and not waiting:
                    return
                await asyncio.sleep(0.1)
    except TimeoutError:
        findings.wrong.append(f"the queue is not empty: {counts}, {waiting}")


async def how_it_stands(world: World, client: Client, run_id: str) -> str:
    """All that is known of a run that does not end."""
    keys = [await world.records.get(f"{kind}.{run_id}", leader=True) for kind in ("run", "interrupt")]
    stored = [one async for one in client.events(run_id)]
    queue = await queue_counts(world.connection, world.names)
    waiting = await consumers(world.connection, world.names)
    return "\n".join(map(str, [*keys, *stored[-12:], queue, waiting, *world.beats.values()]))


# --- one run -------------------------------------------------------------------------------------


async def _check_run(world: World, client: Client, record: Record, truth: Truth, findings: Findings) -> None:
    try:
        stored = [one async for one in client.events(record.id)]
    except EventsExpired:
        stored = []
    before = len(findings.wrong)
    wrong = _Wrong(record.id, findings)
    status = status_of(record)
    pairs = [(one.seq, one.event) for one in stored]
    again = recount(record.topic, pairs)
    if not again.over and _events_lost_more(world):
        return  # it had ended before, and its record is not written anew
    for name in COUNTS:
        counted, recorded = getattr(again.counts, name), getattr(status, name)
        wrong.check(counted == recorded, f"{name} is {recorded}, and {counted} by the events")
    for topic in {*again.topics, *status.topics}:
        one, other = again.topics.get(topic), status.topics.get(topic)
        same = one and other and all(getattr(one, name) == getattr(other, name) for name in COUNTS)
        wrong.check(same, f"topic {topic}: {other}, and {one} by the events")
    wrong.check(status.total == status.success + status.error + status.interrupted, "the counts do not add up")
    wrong.check(again.over, "no end of the run is stored")
    wrong.check(again.finished, "not finished by the events")
    wrong.check(again.root == status.root, f"the root is {status.root}, and {again.root} by the events")
    findings.runs += 1
    findings.rounds += record.round
    findings.tasks += status.total
    findings.outcomes[status.status] += 1
    _check_tasks(world, record, stored, truth, findings)
    if len(findings.wrong) > before:
        text = "\n".join(map(str, (record, *stored)))
        (world.folder / f"events-{record.id}.txt").write_text(text)


def _events_lost_more(world: World) -> bool:
    """Whether the server has lost more of the events than of the records."""
    lost = any(fault.what == "lose tail" and fault.whom == "EVENTS" for fault in world.plan.faults)
    return lost and "lose tail" in world.servers_struck


class _Wrong:
    def __init__(self, run_id: str, findings: Findings) -> None:
        self.run_id = run_id
        self.findings = findings

    def check(self, fact: object, what: str) -> None:
        self.findings.check(fact, f"run {self.run_id}: {what}")


def _check_tasks(world: World, record: Record, stored: list[StoredEvent], truth: Truth, findings: Findings) -> None:
    """Every task that counts was executed as its outcome says, and what its message wanted has come out."""
    wrong = _Wrong(record.id, findings)
    history = Recount(record.topic)
    for one in stored:
        history.add(one.seq, one.event)
    executed = truth.of(record.id)
    failed = {one.event.task: one.event.error for one in stored if isinstance(one.event, events.Failed)}
    wanted = {work.name: work for work in msgspec.json.decode(record.body, type=Work).family()}
    names: Counter[str] = Counter()
    gaps = False
    # Else the same number may have named two tasks, and that tasks were sent may be among what was lost.
    whole = "lose tail" not in world.servers_struck
    for task in [(id, ordinal) for id, *span, _ in history.counted() for ordinal in range(*span)]:
        batch = history.batches[task[0]]
        outcome = batch.outcomes.get(task[1])
        begun = executed.get(task_text(task), [])
        ends = [end.how for one in begun if (end := truth.end(one)) is not None]
        gaps |= outcome in ("interrupted", "killed", "removed") or failed.get(task) in _TOLD_BY_OTHERS
        names.update({one.name for one in begun})
        wrong.check(not whole or len({one.name for one in begun}) <= 1, f"task {task} is two: {begun}")
        if outcome == "success":
            wrong.check("ok" in ends, f"task {task} is recorded as success, and was executed as {begun} {ends}")
        elif outcome == "error":
            others = failed.get(task) in _TOLD_BY_OTHERS
            wrong.check(others or "error" in ends, f"task {task} is recorded as error, and was executed as {ends}")
            if others:
                fickle = record.round > 0 and any(_is_fickle(wanted, one) for one in begun)
                explained = fickle if failed[task] == "ContentChanged" else _is_explained(world, begun, failed[task])
                wrong.check(explained, f"task {task} ended as {failed[task]}")
        if outcome in ("success", "error") and begun and failed.get(task) not in _TOLD_BY_OTHERS:
            work = wanted.get(begun[0].name, Work(begun[0].name))  # a whim of something fickle is in no plan
            expected = _expected(work, healed=record.round > 0)
            full = work.how == "start" and failed.get(task) == "StorageFull" and "fill server" in world.servers_struck
            right = expected in (None, outcome) or full  # a start is refused where there is no room
            wrong.check(right, f"{work.name} ({work.how} {work.times}) ended as {outcome}")
        rounds = batch.brought_back.get(task[1]) or 0
        attempts = bool(begun) and begun[0].name in wanted and wanted[begun[0].name].how == "fail"
        again = sum(_needs_another(truth.end(one), attempts=attempts) for one in begun[:-1])
        # A dispatcher that brings tasks back, and runs more than once for that, brings what is open back each time.
        sender = len(executed.get(task_text(batch.sender), []))
        findings.executions += len(begun)
        if (extra := len(begun) - 1 - again - rounds) > 0:
            findings.extra += extra
            explained = 0 < rounds < sender - 1 or any(why(world, one) for one in begun)
            wrong.check(explained, f"task {task} was executed {len(begun)} times without a fault: {begun} {ends}")
    wrong.check(
        not whole or all(count == 1 for count in names.values()), f"counted more than once: {names.most_common(3)}"
    )
    missing = wanted.keys() - names.keys()
    if whole and not gaps:
        wrong.check(not missing, f"{len(missing)} tasks were not executed or do not count: {sorted(missing)[:5]}")


_TOLD_BY_OTHERS = ("Killed", "Lost", "DuplicateRun", "ContentChanged")
"""Errors that are not the processor's own."""


def _is_fickle(wanted: dict[str, Work], execution: Begun) -> bool:
    return execution.name in wanted and wanted[execution.name].how == "fickle"


def _is_explained(world: World, begun: list[Begun], error: str) -> bool:
    if error == "Lost":
        return "lose tail" in world.servers_struck
    if error == "Killed":  # its own process died: that of the worker, or the isolated one with it
        return any(why(world, one) for one in begun)
    return True


def _expected(work: Work, *, healed: bool) -> str | None:
    """How the task must end; None: it depends."""
    match work.how:
        case "reject":
            return "error"
        case "flaky":
            return None if healed else "error"
        case "fail":
            attempts = {"tough": 3, "thread": 2, "alone-twice": 2}.get(work.topic, 1)
            return "error" if work.times >= attempts else "success"
        case _:
            return "success"


def _needs_another(end: Over | None, *, attempts: bool) -> bool:
    """Whether this execution was to be followed by another one: `Requeue`, or a failed attempt."""
    return end is not None and (end.how == "again" or (end.how == "error" and attempts))
