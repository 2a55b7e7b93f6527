"""The server of a history: one, or three as a cluster. Each is reached through proxies of the one who connects."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack, closing
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
    no_advertise: true
}}
"""


class Servers:
    """One server, or a cluster of them."""

    def __init__(self, folder: Path, *, cluster: bool) -> None:
        self.cluster = cluster
        self.nodes = _cluster(folder) if cluster else [ServerProcess(folder / "n0", max_file="64MB")]

    async def start(self) -> None:
        """Start, and return when JetStream works."""
        await asyncio.gather(*(asyncio.to_thread(node.start) for node in self.nodes))
        await within(self._works(), "a server that works")

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


def _cluster(folder: Path) -> list[ServerProcess]:
    ports = _free_ports(3)
    routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
    return [
        ServerProcess(folder / f"n{number}", extra=_CLUSTER.format(number=number, port=port, routes=routes))
        for number, port in enumerate(ports)
    ]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        with closing(each):
            pass
    return ports
