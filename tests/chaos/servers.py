"""The server of a history: one, or three as a cluster. Each is reached through proxies of the one who connects.

So are the nodes of a cluster by each other: a node dials each other one through a proxy, and by what it advertises,
by which the others would find their own way, nobody can be reached.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack, closing
from itertools import permutations
from pathlib import Path

from corral.errors import CorralError
from corral.jetstream.connection import Connection
from tests.chaos.proxy import Proxy
from tests.servers import ServerProcess
from tests.system.stage import within

_CLUSTER = """
server_name: n{number}
cluster {{
    name: chaos
    listen: "127.0.0.1:{port}"
    routes: [{routes}]
    advertise: "127.0.0.1:{nowhere}"
    no_advertise: true
}}
"""


class Servers:
    """One server, or a cluster of them."""

    def __init__(self, folder: Path, *, cluster: bool) -> None:
        self.cluster = cluster
        names, max_file = (("n0", "n1", "n2"), "100TB") if cluster else (("n0",), "64MB")
        self.nodes = [ServerProcess(folder / name, max_file=max_file) for name in names]
        self.routes: dict[tuple[int, int], Proxy] = {}
        """By the number of the node that dials, and of the one that it dials."""
        self._closing = AsyncExitStack()

    async def start(self) -> None:
        """Start, and return when JetStream works."""
        if self.cluster:
            await self._lay_routes()
        await asyncio.gather(*(asyncio.to_thread(node.start) for node in self.nodes))
        await within(self._works(), "a server that works")

    async def _lay_routes(self) -> None:
        numbers = range(len(self.nodes))
        nowhere = await self._closing.enter_async_context(Proxy(0))
        nowhere.refuse()
        for pair in permutations(numbers, 2):
            self.routes[pair] = await self._closing.enter_async_context(Proxy(0))
        ports = _free_ports(len(self.nodes))  # last, or a proxy might take one of them
        for number, node in enumerate(self.nodes):
            dialled = {number: ports[number]}  # a server finds out that this is itself
            for other in numbers:
                if other != number:
                    self.routes[number, other].target = ports[other]
                    dialled[other] = self.routes[number, other].port
            routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in dialled.values())
            node.extra = _CLUSTER.format(number=number, port=ports[number], routes=routes, nowhere=nowhere.port)

    async def _works(self) -> None:
        connection = await Connection.open(self.urls, name="chaos")
        try:
            while True:
                try:
                    await connection.api("STREAM.CREATE.ready", {"name": "ready", "num_replicas": len(self.nodes)})
                    await connection.api("STREAM.DELETE.ready")
                except CorralError:
                    await asyncio.sleep(0.1)
                else:
                    return
        finally:
            await connection.close()

    async def current(self) -> None:
        """Return when every copy of every stream is up to date again."""
        connection = await Connection.open(self.urls, name="chaos")
        try:
            await within(self._all_current(connection), "streams with all their copies")
        finally:
            await connection.close()

    async def _all_current(self, connection: Connection) -> None:
        while True:
            try:
                streams = (await connection.api("STREAM.LIST"))["streams"]
            except CorralError:
                streams = []
            copies = [copy for stream in streams for copy in stream.get("cluster", {}).get("replicas", ())]
            if (
                len(copies) == len(streams) * (len(self.nodes) - 1)
                and all(copy.get("current") and not copy.get("offline") for copy in copies)
                and streams
            ):
                return
            await asyncio.sleep(0.1)

    async def stop(self) -> None:
        """End all of them."""
        await asyncio.gather(*(asyncio.to_thread(node.kill) for node in self.nodes))
        await self._closing.aclose()

    @property
    def urls(self) -> list[str]:
        """Where they are, without a proxy."""
        return [node.url for node in self.nodes]

    def named(self, name: str) -> ServerProcess:
        """The node of this name."""
        return self.nodes[int(name.removeprefix("n"))]


class Line:
    """What lies between one party and the servers."""

    def __init__(self, proxies: list[Proxy]) -> None:
        self.proxies = proxies

    @classmethod
    async def lay(cls, servers: Servers, closing: AsyncExitStack) -> Line:
        """A new one, passing everything on."""
        return cls([await closing.enter_async_context(Proxy(node.port)) for node in servers.nodes])

    @property
    def url(self) -> str:
        """What the party connects to."""
        return ",".join(f"nats://127.0.0.1:{proxy.port}" for proxy in self.proxies)

    def heal(self) -> None:
        """As at first."""
        for proxy in self.proxies:
            proxy.heal()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        with closing(each):
            pass
    return ports
