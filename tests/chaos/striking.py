"""How each fault is carried out. It heals by itself: what was ended is started again, what was held is let go."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from pathlib import Path
from typing import Literal

from corral.errors import CorralError
from corral.jetstream.publisher import Publisher
from corral.subjects import LEADER_KEY
from tests.chaos.plans import POOLS, Fault
from tests.chaos.world import World
from tests.servers import ServerProcess

_FILLER = 256 << 10
_CHILD = 4.0
"""Seconds to wait for an isolated task to be there."""
_OF_SERVERS = (
    "kill server", "stop server", "server away", "freeze server", "fill server", "lose tail", "rolling restart",
    "refuse node", "hold node", "hold node out", "hold node in",
)  # fmt: skip


async def strike(world: World, fault: Fault, pid: int | None = None) -> None:  # noqa: PLR0912  # a row of cases
    """Carry it out; `pid` is the process that has announced the step. Returns when it is healed."""
    if fault.what in _OF_SERVERS:
        world.servers_struck.append(fault.what)
        await _strike_server(world, fault)
        return
    match fault.what:
        case "kill" if pid is not None:
            world.kill([pid])
        case "kill":
            world.kill(_one(world.workers(), fault.which))
        case "kill pool":
            _kill_pool(world, _pool_of(world, fault, pid))
        case "kill pool only":
            _kill_pool(world, fault.whom, only=True)
        case "kill bookkeeper":
            _kill_pool(world, await world.bookkeeper())
        case "kill producer":
            world.kill(_known(world.parties[fault.whom].pid))
        case "kill child":
            world.kill(_one(await _children(world), fault.which))
        case "freeze" if pid is not None:
            await world.freeze([pid], fault.seconds)
        case "freeze":
            await world.freeze(_one(world.workers(), fault.which), fault.seconds)
        case "freeze pool":
            await world.freeze(_known(world.parties[fault.whom].pid), fault.seconds)
        case "freeze bookkeeper":
            await world.freeze(_known(world.parties[await world.bookkeeper()].pid), fault.seconds)
        case "drain":
            _drain(world, fault.whom)
        case "depose":
            await _depose(world)
        case "step down":
            await _step_down(world, fault.whom)
        case "kill leader":
            await _kill_leader(world, fault)
        case "cut" | "refuse" | "hold up" | "hold down" | "hold both" | "cut in frame" | "delay":
            await _strike_line(world, fault)


def _one(pids: list[int], which: int) -> list[int]:
    return [pids[which % len(pids)]] if pids else []


def _known(pid: int | None) -> list[int]:
    return [pid] if pid is not None else []


# --- processes -----------------------------------------------------------------------------------


def _pool_of(world: World, fault: Fault, pid: int | None) -> str:
    return (world.pool_of(pid) if pid is not None else None) or fault.whom or POOLS[0]


def _kill_pool(world: World, pool: str, *, only: bool = False) -> None:
    workers = world.workers(pool)
    if only:
        world.struck.update(dict.fromkeys(workers, "its pool was killed"))
    world.kill(_known(world.parties[pool].pid))
    if not only:
        world.kill(workers)


async def _children(world: World) -> list[int]:
    """The processes of isolated tasks, as soon as there is one."""
    for _ in range(int(_CHILD / 0.05)):
        if children := world.children():
            return children
        await asyncio.sleep(0.05)
    return []


def _drain(world: World, pool: str) -> None:
    world.struck.update(dict.fromkeys(world.workers(pool), "drained"))
    for pid in _known(world.parties[pool].pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


async def _depose(world: World) -> None:
    with contextlib.suppress(CorralError):  # the server may be away, or another one elected
        entry = await world.records.get(LEADER_KEY, leader=True)
        if entry is not None:
            await world.records.delete(LEADER_KEY, entry.revision)


# --- connections ---------------------------------------------------------------------------------


async def _strike_line(world: World, fault: Fault) -> None:
    world.lines_struck.add(fault.whom)
    line = world.parties[fault.whom].line
    for proxy in line.proxies:
        match fault.what:
            case "cut":
                proxy.cut()
            case "refuse":
                proxy.refuse()
            case "cut in frame":
                proxy.cut_in_frame(fault.which)
            case "delay":
                proxy.delay(0.1 + fault.which / 1000)
            case _:
                proxy.hold(_way(fault.what))
    if fault.seconds:
        await asyncio.sleep(fault.seconds)
        line.heal()


def _way(what: str) -> Literal["up", "down", "both"]:
    return "up" if what == "hold up" else "down" if what == "hold down" else "both"


# --- servers -------------------------------------------------------------------------------------


async def _strike_server(world: World, fault: Fault) -> None:
    nodes = world.servers.nodes
    node = nodes[fault.which % len(nodes)]
    match fault.what:
        case "kill server" | "server away":
            await _down(node, fault.seconds, kill=True)
        case "stop server":
            await _down(node, fault.seconds, kill=False)
        case "freeze server":
            node.freeze()
            await asyncio.sleep(fault.seconds)
            node.thaw()
        case "lose tail":
            await asyncio.to_thread(_remember, node)
            await asyncio.sleep(fault.seconds)
            await asyncio.to_thread(_go_back, node, _stream(world, fault.whom) if fault.whom else None)
        case "rolling restart":
            for offset in range(len(nodes)):
                await _down(nodes[(fault.which + offset) % len(nodes)], 0.05, kill=False)
                await world.servers.current()
        case "fill server":
            await _fill(world, fault.seconds)
        case _:
            await _cut_off(world, fault)


async def _down(node: ServerProcess, seconds: float, *, kill: bool) -> None:
    await asyncio.to_thread(node.kill if kill else node.stop)
    await asyncio.sleep(seconds)
    await asyncio.to_thread(node.start)


async def _cut_off(world: World, fault: Fault) -> None:
    """Cut a node, and who is on its side, off from the others. All of them run on."""
    node, side = fault.which % len(world.servers.nodes), fault.whom.split()
    links = [(i == node, j == node, proxy) for (i, j), proxy in world.servers.routes.items()]
    if side:
        for party in world.parties.values():
            links += [(party.name in side, j == node, proxy) for j, proxy in enumerate(party.line.proxies)]
    crossing = [(inside, proxy) for inside, there, proxy in links if inside != there]
    for inside, proxy in crossing:
        match fault.what:
            case "refuse node":
                proxy.refuse()
            case "hold node":
                proxy.hold("both")
            case "hold node out":
                proxy.hold("up" if inside else "down")
            case _:
                proxy.hold("down" if inside else "up")
    await asyncio.sleep(fault.seconds)
    for _, proxy in crossing:
        proxy.heal()


def _remember(node: ServerProcess) -> None:
    node.kill()
    node.remember()
    node.start()


def _go_back(node: ServerProcess, stream: str | None) -> None:
    node.kill()
    if stream is None:
        node.go_back()
    else:
        where = Path("jetstream", "$G", "streams", stream)
        shutil.rmtree(node.folder / "store" / where)
        shutil.copytree(node.folder / "earlier" / where, node.folder / "store" / where)
    node.start()


async def _fill(world: World, seconds: float) -> None:
    """Store until the server has no room; free it later."""
    connection = world.connection
    await connection.api("STREAM.CREATE.filler", {"name": "filler", "subjects": ["filler"]})
    publisher = Publisher(connection, timeout=5.0)
    try:
        with contextlib.suppress(CorralError):
            while True:
                await publisher.store("filler", bytes(_FILLER))
        await asyncio.sleep(seconds)
    finally:
        await connection.api("STREAM.DELETE.filler")
        await publisher.close()


# --- leaders -------------------------------------------------------------------------------------


def _stream(world: World, whom: str) -> str:
    names = world.names
    return {"TASKS": names.tasks_stream, "EVENTS": names.events_stream}.get(whom, names.bucket_stream)


async def _step_down(world: World, whom: str) -> None:
    world.servers_struck.append("step down")
    with contextlib.suppress(CorralError):
        await world.connection.api(f"STREAM.LEADER.STEPDOWN.{_stream(world, whom)}")


async def _kill_leader(world: World, fault: Fault) -> None:
    world.servers_struck.append("kill leader")
    with contextlib.suppress(CorralError):
        info = await world.connection.api(f"STREAM.INFO.{_stream(world, fault.whom)}")
        await _down(world.servers.named(info["cluster"]["leader"]), fault.seconds, kill=True)
