"""A program in a real terminal, for what a pilot does not see."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager

from tests.system.stage import within

ESCAPES = re.compile(r"\x1b(\[[0-9;?<>=]*[a-zA-Z]|\][^\a\x1b]*(\a|\x1b\\)|P[^\x1b]*\x1b\\|[()][A-Z0-9]|[=>78])")

OTHERS = ("NO_COLOR", "COLORTERM", "TMUX", "COLUMNS", "LINES")
"""Variables that speak of the terminal in which the tests run."""


class Terminal:
    """What a program writes, and keys for it."""

    def __init__(self, program: subprocess.Popen[bytes], master: int) -> None:
        self.program = program
        self._master = master
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self.written = b""

    def read(self) -> None:
        """Take what it writes from now on."""
        self._loop.add_reader(self._master, self._take)

    def silent(self) -> None:
        """Take nothing any more."""
        self._loop.remove_reader(self._master)

    def _take(self) -> None:
        try:
            found = os.read(self._master, 65_536)
        except OSError:  # it has left
            found = b""
        if not found:
            self.silent()
        self.written += found
        self._news.set()

    @property
    def text(self) -> str:
        """What it has written, without escape sequences."""
        return ESCAPES.sub("", self.written.decode(errors="replace"))

    async def shows(self, text: str) -> None:
        """Until it has written this."""

        async def wait() -> None:
            while text not in self.text:
                self._news.clear()
                await self._news.wait()

        await within(wait(), f"{text!r} in the terminal")

    async def is_told(self, sequence: bytes) -> None:
        """Until it has written this, escape sequences included."""

        async def wait() -> None:
            while sequence not in self.written:
                self._news.clear()
                await self._news.wait()

        await within(wait(), f"{sequence!r} to the terminal")

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.program.send_signal(signal.SIGWINCH)

    def close(self) -> None:
        """Let there be no terminal any more, without a signal."""
        self.silent()
        os.close(self._master)
        self._master = os.open(os.devnull, os.O_RDWR)

    async def ended(self) -> int:
        """The exit code, once it has ended."""
        return await within(asyncio.to_thread(self.program.wait), "the end of the program")

    async def left(self) -> int:
        """The exit code, once it has ended and all that it wrote was taken."""
        code = await self.ended()
        while self._take_rest():
            pass
        return code

    def _take_rest(self) -> bool:
        before = len(self.written)
        os.set_blocking(self._master, False)
        with contextlib.suppress(BlockingIOError):
            self._take()
        return len(self.written) > before


@contextmanager
def dashboard(url: str, namespace: str, *arguments: str, **environment: str) -> Iterator[Terminal]:
    """`corral tui` in a terminal of 120x40."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("NO_COLOR", "COLORTERM", "TMUX", "COLUMNS", "LINES")
    }
    program = subprocess.Popen(
        [sys.executable, "-m", "corral", "tui", "-s", url, "-n", namespace, *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**kept, "TERM": "xterm-256color", **environment},
        start_new_session=True,
    )
    os.close(slave)
    here = Terminal(program, master)
    here.read()
    try:
        yield here
    finally:
        here.silent()
        with contextlib.suppress(ProcessLookupError):
            program.kill()
        program.wait()
        here.close()
