"""What the processors under test tell the test, and wait for. Sockets and files only: NATS may be down."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from functools import cache
from pathlib import Path

PORT = "CORRAL_TEST_STAGE"
FOLDER = "CORRAL_TEST_FOLDER"


async def cue(name: str, **facts: object) -> str:
    """Tell the test that this point is reached, and wait for its answer; empty if it goes away instead."""
    reader, writer = await asyncio.open_connection("127.0.0.1", _port())
    try:
        writer.write(_line(name, facts))
        return (await reader.readline()).decode().strip()
    finally:
        writer.close()


def blocking_cue(name: str, **facts: object) -> str:
    """As `cue`, for threads; in a coroutine it blocks the loop."""
    with socket.create_connection(("127.0.0.1", _port())) as connection:
        connection.sendall(_line(name, facts))
        return connection.makefile().readline().strip()


def note(line: object) -> None:
    """Write down that this was executed: a line in a file of this process's own, which outlives it."""
    os.write(_truth(os.getpid()), f"{line}\n".encode())


def _port() -> int:
    return int(os.environ[PORT])


def _line(name: str, facts: dict[str, object]) -> bytes:
    return json.dumps({"name": name, "pid": os.getpid(), **facts}).encode() + b"\n"


@cache
def _truth(pid: int) -> int:
    return os.open(Path(os.environ[FOLDER]) / str(pid), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
