"""One history: a plan is carried out, everything heals, and the checker looks at what is left."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from corral import Client
from corral.errors import CorralError
from corral.jetstream.topology import destroy
from corral.runs import Record
from tests.chaos.check import check, how_it_stands
from tests.chaos.findings import Findings
from tests.chaos.plans import Fault, Interrupt, Plan, Retry, Start
from tests.chaos.producer import Order, Said
from tests.chaos.servers import Servers
from tests.chaos.striking import strike
from tests.chaos.work import heal
from tests.chaos.world import World
from tests.system.stage import Stage

ENDS = 90.0
"""Seconds after the last order and fault in which everything must have ended."""
BLOW = 0.3
"""Seconds for a blow to land, before a process that has announced a step goes on."""


class Told(NamedTuple):
    """What a producer was told, and what it said each time."""

    order: Order
    said: list[Said]


class Outcome(NamedTuple):
    """What a history came to."""

    plan: Plan
    findings: Findings
    struck: list[str]
    """The faults that took place."""
    seconds: float


async def run_history(plan: Plan, servers: Servers, folder: Path) -> Outcome:
    """Carry the plan out on running servers, in a namespace of its own; `folder` is new."""
    began = time.monotonic()
    folder.mkdir(parents=True)
    namespace = f"c{secrets.token_hex(4)}"
    async with Stage() as stage, World(plan, servers, folder, stage, namespace) as world:
        history = _History(world)
        try:
            findings = await history.run()
        finally:
            with contextlib.suppress(CorralError):  # the servers are thrown away, too
                await destroy(world.connection, world.names)
    return Outcome(plan, findings, history.struck, time.monotonic() - began)


class _History:
    def __init__(self, world: World) -> None:
        self.world = world
        self.plan = world.plan
        self.told: list[Told] = []
        self.struck: list[str] = []
        self.records: dict[str, Record] = {}
        self._news = asyncio.Condition()
        self._read_anew = asyncio.Event()
        self._known = False
        """All that was stored when reading began has been read."""
        self._begun_at = 0.0
        self._starting = Counter(start.id for start in self.plan.starts)

    async def run(self) -> Findings:
        """Everything, from the first order to the findings."""
        async with Client(",".join(self.world.servers.urls), settings=self.world.settings) as client:
            reading = asyncio.create_task(self._read(client))
            self._begun_at = time.monotonic()
            orders = [_task(self._start(order), f"start {order.id}") for order in self.plan.starts]
            orders += [_task(self._interrupt(order), f"interrupt {order.id}") for order in self.plan.interrupts]
            orders += [_task(self._retry(order), f"retry {order.id}") for order in self.plan.retries]
            blows = [_task(self._strike(i, fault), str(fault)) for i, fault in enumerate(self.plan.faults)]
            cued = [blow for blow, fault in zip(blows, self.plan.faults, strict=True) if fault.step]
            timed = [blow for blow in blows if blow not in cued]
            try:
                await self._all(client, timed, "the faults, and their healing")
                await self._all(client, orders, "the answers to all orders")
                stuck = await self._ended()
                if stuck and any(fault.what == "lose tail" and fault.whom for fault in self.plan.faults):
                    # Of a retry whose beginning only the records know, the events cannot tell how to go on.
                    self.struck.append(f"{stuck} stood still until they were interrupted")
                    for run_id in stuck:
                        await client.interrupt(run_id)
                    stuck = await self._ended()
                for i, blow in enumerate(cued):
                    blow.cancel()
                    self.world.stage.open(f"fault {i}")
                findings = await check(self.world, client, self.told, stuck=stuck)
            finally:
                for task in (*orders, *blows, reading):
                    task.cancel()
                await asyncio.wait([*orders, *blows, reading])
        return findings

    async def _all(self, client: Client, tasks: list[asyncio.Task[None]], what: str) -> None:
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=ENDS)
            if late:
                told = [f"{one.order.do} {one.order.id}: {one.said}" for one in self.told]
                live = [record.id for record in self.records.values() if record.live]
                await self.world.say_where()
                standing = [await how_it_stands(self.world, client, run_id) for run_id in live]
                raise AssertionError(
                    f"in {ENDS} s this did not come: {what}\n  {[task.get_name() for task in late]}\n  "
                    + "\n  ".join((*told, *standing))
                )
            await asyncio.gather(*tasks)

    # --- orders ------------------------------------------------------------------------------------

    async def _at(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, self._begun_at + seconds - time.monotonic()))

    async def _tell(self, producer: str, order: Order, *, gives_up: bool = False) -> Said:
        """Say it, and again as long as the answer is not known."""
        told = Told(order, [])
        self.told.append(told)
        while True:
            said = await self.world.order(producer, order)
            told.said.append(said)
            if not said.unknown or gives_up:
                return said
            await asyncio.sleep(0.2)

    async def _start(self, start: Start) -> None:
        await self._at(start.at)
        order = Order(0, "start", start.id, start.work, start.key, start.on_duplicate)
        try:
            await self._tell(start.producer, order, gives_up=start.gives_up)
        finally:
            self._starting[start.id] -= 1

    async def _interrupt(self, order: Interrupt) -> None:
        await self._at(order.at)
        await self._tell(order.producer, Order(0, "interrupt", order.id, kill_after=order.kill_after))

    async def _retry(self, order: Retry) -> None:
        def has_ended() -> bool:
            record = self.records.get(order.id)
            done = record is None or record.state in ("final", "aborted")
            return done and (record is not None or self._starting[order.id] == 0)

        await self._until(has_ended)
        if order.id in self.records and self.records[order.id].state == "final":
            heal(order.id)
            await self._tell(order.producer, Order(0, "retry", order.id, part=order.part))

    # --- faults ------------------------------------------------------------------------------------

    async def _strike(self, number: int, fault: Fault) -> None:
        if not fault.step:
            await self._at(fault.at)
            self.struck.append(str(fault))
            await strike(self.world, fault)
            if fault.what == "lose tail":
                self._read_anew.set()  # no news tells of what is not there any more
            return
        name = f"fault {number}"
        arrival = await self.world.stage.first(name)
        self.struck.append(f"{fault} (pid {arrival.pid})")
        self.world.stage.open(name)
        blow = asyncio.create_task(strike(self.world, fault, arrival.pid))
        await asyncio.wait({blow}, timeout=BLOW)
        arrival.answer()
        await blow

    # --- ends --------------------------------------------------------------------------------------

    async def _read(self, client: Client) -> None:
        while True:
            self._read_anew.clear()
            reading = asyncio.create_task(self._follow(client))
            try:
                await self._read_anew.wait()
            finally:
                reading.cancel()
                await asyncio.wait({reading})
            self._known = False
            self.records.clear()

    async def _follow(self, client: Client) -> None:
        async for batch in client.read_records():
            self._known = self._known or not batch
            for run_id, record in batch:
                if record is None:
                    self.records.pop(run_id, None)
                else:
                    self.records[run_id] = record
            async with self._news:
                self._news.notify_all()

    async def _until(self, fact: Callable[[], bool]) -> None:
        async with self._news:
            while not fact():
                # Not only records change it: an order may have been refused.
                try:
                    async with asyncio.timeout(0.5):
                        await self._news.wait()
                except TimeoutError:
                    continue

    async def _ended(self) -> list[str]:
        """The runs that do not end."""
        try:
            async with asyncio.timeout(ENDS):
                await self._until(lambda: self._known and not any(record.live for record in self.records.values()))
        except TimeoutError:
            return [run_id for run_id, record in self.records.items() if record.live]
        return []


def _task(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    return asyncio.create_task(work, name=name)


def describe(plan: Plan) -> str:
    """A plan in words."""
    lines = [f"seed {plan.seed}{' on a cluster' if plan.cluster else ''}: workers {plan.workers}, {plan.slots} slots"]
    lines += [f"  both lead: {plan.both_lead}, clocks: {plan.clocks}"] if plan.both_lead or plan.clocks else []
    for start in plan.starts:
        key = start.key or start.work.key
        keyed = f" key {key} {start.on_duplicate}" if key else ""
        lines.append(
            f"  {start.at:.2f} {start.producer} starts {start.id}"
            f" ({start.work.topic}, {len(start.work.family())} tasks)"
            f"{keyed}{' gives up' if start.gives_up else ''}"
        )
    lines += [
        f"  {order.at:.2f} {order.producer} interrupts {order.id}{' and kills' if order.kill_after else ''}"
        for order in plan.interrupts
    ]
    lines += [f"  {order.producer} retries {order.id} {order.part}".rstrip() for order in plan.retries]
    lines += [f"  fault: {fault}" for fault in plan.faults]
    return "\n".join(lines)


def encode(outcome: Outcome) -> str:
    """The plan, for looking into."""
    return msgspec.json.encode(outcome.plan).decode()
