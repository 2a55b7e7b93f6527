"""Somebody with a socket to the server, who keeps to no client's rules."""

from __future__ import annotations

import asyncio
from typing import Self
from urllib.parse import urlsplit

from tests.system.stage import within


class Attacker:
    """Publishes any bytes on any subject that the server takes."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(self._url.hostname, self._url.port)
        await self._reader.readline()
        self._writer.write(b'CONNECT {"verbose":false,"pedantic":false,"headers":true}\r\n')
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    def publish(self, subject: str | bytes, data: bytes = b"", *, reply: bytes = b"", headers: bytes = b"") -> None:
        """Publish without waiting; `headers` are whatever stands where headers should."""
        name = subject if isinstance(subject, bytes) else subject.encode()
        sizes = b"%d %d" % (len(headers), len(headers) + len(data)) if headers else b"%d" % len(data)
        self._writer.write(b"%b %b %b %b\r\n" % (b"HPUB" if headers else b"PUB", name, reply, sizes))
        self._writer.write(headers + data + b"\r\n")

    async def done(self) -> None:
        """Return when the server has taken everything."""
        self._writer.write(b"PING\r\n")

        async def answer() -> bytes:
            while True:
                line = await self._reader.readline()
                if line == b"PING\r\n":
                    self._writer.write(b"PONG\r\n")
                elif not line.startswith(b"INFO"):
                    return line

        assert await within(answer(), "the server's answer") == b"PONG\r\n"
