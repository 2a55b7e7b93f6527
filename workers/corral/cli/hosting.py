"""What `up` and `demo` run besides themselves: a server if none is there, and a pool as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType

from corral import tether
from corral.cli.exits import FAILED
from corral.cli.login import forget_login
from corral.cli.output import note
from corral.cli.session import find_server, hide_secret
from corral.errors import AlreadyRunning, NoServer
from corral.server import EmbeddedServer, discover, home
from corral.settings import Settings

_LOG_LIMIT = 10 * 1024 * 1024
_GRACE = 10.0
"""Seconds that a pool may take beyond its drain time-out, before it is killed."""
_SHOWN = 20
"""Lines of a failed pool's log that are shown."""


@contextmanager
def some_server(server: str | None = None, *, elsewhere: bool = True) -> Iterator[str]:
    """The URL of a server: a given one, else the embedded one that runs, else one that is started for what is inside.

    With `elsewhere` false only the last two.

    Raises:
        ServerStartFailed, BadName
    """
    if not elsewhere:
        forget_login()
    running = _given(server) if elsewhere else discover(home())
    if running is None:
        try:
            own = EmbeddedServer.start()
            forget_login()
        except AlreadyRunning:  # somebody was quicker
            running = discover(home())
            if running is None:
                raise
        else:
            note(f"Started a server at {hide_secret(own.url)}; its data is in {own.home}.")
            with own:
                yield own.url
            return
    yield running


def _given(server: str | None) -> str | None:
    try:
        return find_server(server).url
    except NoServer:
        return None


class PoolProcess:
    """A pool in a process of its own, which ends with this one however this one ends. Its log is in the home."""

    def __init__(self, app: str, url: str, settings: Settings, *, workers: int | None, slots: int) -> None:
        self.log = home() / "logs" / "pool.log"
        self._settings = settings
        self._log_start = _prepare_log(self.log)
        reading, writing = os.pipe()
        command = [app, "-n", settings.namespace, "-c", str(slots), "--ready-fd", str(writing)]
        command += [] if workers is None else ["-p", str(workers)]
        try:
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", tether.__file__, sys.executable, "-m", "corral", "pool", *command],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    pass_fds=(writing,),
                    # Ctrl-C in the terminal is for us: the pool is told by a signal of its own.
                    start_new_session=True,
                    # Not among the arguments: the password would be there for all to see.
                    env={**os.environ, "NATS_URL": url, "PYTHONUNBUFFERED": "1"},
                )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self._ready = reading

    async def ready(self) -> int | None:
        """Wait until all workers work; None then, or the exit code if the pool ended first."""
        # A thread that nobody joins: if we are told to stop meanwhile, nothing waits for the pool to be ready.
        said: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        threading.Thread(target=_read, args=(self._ready, said), daemon=True).start()
        return None if await said else await self.ended()

    async def ended(self) -> int:
        """Wait until the pool ends by itself; its exit code, 0 if its workers were told to leave."""
        while (code := self._process.poll()) is None:  # noqa: ASYNC110  # a process of our own, without an event
            await asyncio.sleep(0.1)
        return code if code >= 0 else FAILED

    @property
    def running(self) -> bool:
        """False once it has ended."""
        return self._process.poll() is None

    def complain(self) -> None:
        """Show the end of what the pool has logged since it was started, if it was not told to end."""
        if self._process.poll() == 0:
            note("The pool has ended: its workers were told to leave.")
            return
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode(errors="replace").splitlines()
        # Tracebacks stay in the file.
        for line in [line for line in lines if line[:1].strip() and not line.startswith("Traceback ")][-_SHOWN:]:
            note(line)
        note(f"The pool has ended. All that it said is in {self.log}.")

    def stop(self) -> None:
        """Drain and stop; Ctrl-C meanwhile stops it at once."""
        if self.running:
            self._process.send_signal(signal.SIGTERM)
            self._wait(self._settings.drain_timeout + _GRACE)
        if self._process.stdin is not None:
            self._process.stdin.close()  # the tether then kills what is left
        self._process.wait()

    def _wait(self, seconds: float) -> None:
        try:
            try:
                self._process.wait(1.0)
            except subprocess.TimeoutExpired:
                note("The workers finish what they are at; Ctrl-C stops them at once.")
                self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return
        except KeyboardInterrupt:
            if self.running:
                self._process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(_GRACE)


def _read(descriptor: int, said: asyncio.Future[bytes]) -> None:
    with open(descriptor, "rb", buffering=0) as pipe:
        word = pipe.read(1)
    with contextlib.suppress(RuntimeError):  # the loop has ended
        said.get_loop().call_soon_threadsafe(_answer, said, word)


def _answer(said: asyncio.Future[bytes], word: bytes) -> None:
    if not said.done():
        said.set_result(word)


def _prepare_log(path: Path) -> int:
    """Make the log's folder, put a log that has grown long aside; where the log begins now."""
    home().mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.mkdir(exist_ok=True)
    if path.exists() and path.stat().st_size > _LOG_LIMIT:
        path.replace(path.with_suffix(".log.1"))
    return path.stat().st_size if path.exists() else 0


@contextmanager
def pool_beside(app: str, url: str, settings: Settings, *, workers: int | None, slots: int) -> Iterator[PoolProcess]:
    """A pool that runs for as long as what is inside."""
    pool = PoolProcess(app, url, settings, workers=workers, slots=slots)
    try:
        yield pool
    finally:
        pool.stop()


class Told(SystemExit):
    """The process was told by a signal to end. A SystemExit, because asyncio swallows other exceptions of a handler."""


class ends_when_told:  # noqa: N801  # reads as `with ends_when_told():`
    """Leave what is inside at SIGTERM or SIGHUP, and go on behind it, with servers and pools stopped on the way."""

    def __enter__(self) -> None:
        self._before = {number: signal.signal(number, _tell) for number in (signal.SIGTERM, signal.SIGHUP)}

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        return isinstance(error, Told)


def _tell(_: int, __: FrameType | None) -> None:
    raise Told
