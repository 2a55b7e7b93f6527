"""Other Python processes that take part; none outlives the benchmark."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

TOP = Path(__file__).parents[1]
DEADLINE = 120.0
"""Seconds after which a benchmark that does not get on is given up."""
_LEAVING = 10.0


class Child:
    """A running process: what it says, line by line, is what it has to tell. It ends when its standard input does."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.pid = process.pid
        self._out = cast("asyncio.StreamReader", process.stdout)
        self._log = log

    async def line(self) -> str:
        """The next line that it says."""
        async with asyncio.timeout(DEADLINE):
            line = await self._out.readline()
        if not line:
            raise RuntimeError(f"a process of the benchmark has ended:\n{self._log.read_text()}")
        return line.decode().strip()


@asynccontextmanager
async def child(module: str, *arguments: str, log: Path, environment: Mapping[str, str]) -> AsyncIterator[Child]:
    """Run a module in the present Python, from the top of the repository; its errors go to `log`."""
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=TOP,
            env=environment,
        )
    try:
        yield Child(process, log)
    finally:
        cast("asyncio.StreamWriter", process.stdin).close()
        try:
            async with asyncio.timeout(_LEAVING):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
