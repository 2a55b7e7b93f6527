"""A TCP proxy between a process and its server, which does to connections what networks do."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Literal, Self

Way = Literal["up", "down", "both"]
"""From the client to the server, from the server to the client."""
_CHUNK = 65_536


class Proxy:
    """Passes bytes on, until it is told otherwise. `target` is the port of the server."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = {"up": asyncio.Event(), "down": asyncio.Event()}
        self._refusing = False
        self._cut_after: int | None = None
        self._delay = 0.0
        self.heal()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # --- what networks do --------------------------------------------------------------------------

    def cut(self) -> None:
        """End all connections; new ones are let through."""
        for writer in list(self._writers):
            writer.transport.abort()

    def refuse(self) -> None:
        """End all connections and let none through."""
        self._refusing = True
        self.cut()

    def hold(self, way: Way) -> None:
        """Keep what is sent; it arrives when the proxy is healed."""
        for name, gate in self._open.items():
            if way in (name, "both"):
                gate.clear()

    def cut_in_frame(self, size: int) -> None:
        """End the connections after so many more bytes of what a client sends."""
        self._cut_after = size

    def delay(self, seconds: float) -> None:
        """Let everything arrive later."""
        self._delay = seconds

    def heal(self) -> None:
        """As at first."""
        self._refusing, self._cut_after, self._delay = False, None, 0.0
        for gate in self._open.values():
            gate.set()

    # --- inside ------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            if self._refusing:
                return
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
            self._writers.add(back)
            try:
                await self._both(reader, writer, there, back)
            finally:
                self._writers.discard(back)
                back.transport.abort()
        except (OSError, asyncio.CancelledError):
            pass  # the server is not there; or the proxy ends
        finally:
            self._writers.discard(writer)
            writer.transport.abort()
            self._tasks.discard(task)

    async def _both(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        there: asyncio.StreamReader,
        back: asyncio.StreamWriter,
    ) -> None:
        pumps = [
            asyncio.create_task(self._pump(reader, back, "up")),
            asyncio.create_task(self._pump(there, writer, "down")),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.wait(pumps)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                if self._delay:
                    await asyncio.sleep(self._delay)
                await self._open[way].wait()
                if way == "up" and self._cut_after is not None:
                    data, self._cut_after = data[: self._cut_after], None
                    writer.write(data)
                    await writer.drain()
                    self.cut()
                    return
                writer.write(data)
                await writer.drain()
