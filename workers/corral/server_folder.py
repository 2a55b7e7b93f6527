"""What the embedded server keeps in its folder, and the lock on it.

`nats.conf` (a copy of the packaged one), `server.conf` (which includes that, and adds address and
password), `identity.json` (the password and the port, kept from one start to the next so that clients
find the server again), `server.json` (where the running server is), `server.lock`, `data/`, `logs/`
and `ports/`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import msgspec

from corral.decoding import decoder
from corral.errors import AlreadyRunning
from corral.private import write_private

HOST = "127.0.0.1"
USER = "corral"

_LOCK_TIMEOUT = 5.0
_LOCK_GRACE = 0.5
_LOCK_POLL = 0.01


class Identity(msgspec.Struct, frozen=True):
    """What stays the same from one start to the next. Port -1 lets the server choose."""

    secret: str
    port: int = -1

    @property
    def url(self) -> str:
        """Where a client connects, password included."""
        return f"nats://{USER}:{self.secret}@{HOST}:{self.port}"


class Address(msgspec.Struct, frozen=True):
    """Where a running server is, and the name by which it is recognised."""

    url: str
    port: int
    pid: int
    server_id: str
    version: str


_decode_identity: Callable[[bytes], Identity] = decoder(Identity, "identity.json")
_decode_address: Callable[[bytes], Address] = decoder(Address, "server.json")


class Folder:
    """The folder of one embedded server; creates nothing until it is asked to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = path / "logs" / "nats-server.log"
        self.output = path / "logs" / "start.log"

    def prepare(self) -> None:
        """Create what is missing. OSError if that is not possible."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("logs", "ports"):
            (self.path / name).mkdir(exist_ok=True)

    @contextlib.contextmanager
    def locked(self, answers: Callable[[], bool]) -> Iterator[IO[bytes]]:
        """Hold the lock; a program that is started meanwhile inherits it and holds it while it lives.

        Raises:
            AlreadyRunning: somebody else holds it, and still answers after half a second or is there after five.
        """
        asked = time.monotonic()
        with (self.path / "server.lock").open("ab") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    # The holder may be on its way out: its starter was killed just now.
                    waited = time.monotonic() - asked
                    if waited > _LOCK_TIMEOUT or (waited > _LOCK_GRACE and answers()):
                        raise AlreadyRunning(str(self.path)) from None
                    time.sleep(_LOCK_POLL)
                else:
                    yield lock
                    return

    def identity(self) -> Identity:
        """That of the last start, or a new one."""
        try:
            return _decode_identity((self.path / "identity.json").read_bytes())
        except (FileNotFoundError, msgspec.DecodeError):
            return Identity(secrets.token_urlsafe(24))

    def address(self) -> Address | None:
        """Where the last server was; whether it still runs is another question."""
        try:
            return _decode_address((self.path / "server.json").read_bytes())
        except (OSError, msgspec.DecodeError):
            return None

    def remember(self, identity: Identity, address: Address) -> None:
        """Keep the identity, and say where the server is."""
        write_private(self.path / "identity.json", msgspec.json.encode(identity))
        write_private(self.path / "server.json", msgspec.json.encode(address))

    def forget_address(self) -> None:
        """Say that no server runs here."""
        (self.path / "server.json").unlink(missing_ok=True)

    def configure(self, identity: Identity, packaged: Path) -> Path:
        """Write the server's configuration, remove what the last one left; the file to start it with.

        All paths in it are relative: the server runs in the folder, and refuses an absolute include.
        """
        shutil.copyfile(packaged, self.path / "nats.conf")
        overlay = f"""\
# Written anew at every start: to change something, run a server of your own and name it in NATS_URL.
include "nats.conf"
listen: "{HOST}:{identity.port}"
authorization {{ user: "{USER}", password: "{identity.secret}" }}
ports_file_dir: "ports"
log_file: "logs/{self.log.name}"
logfile_size_limit: 10MB
logfile_max_num: 3
"""
        path = self.path / "server.conf"
        write_private(path, overlay.encode())
        self.forget_address()
        self.forget_ports()
        return path

    def forget_ports(self) -> None:
        """Remove what a server that was killed has left."""
        for stale in (self.path / "ports").glob("*.ports"):
            stale.unlink()

    def ports(self) -> tuple[int, int] | None:
        """The server's process id and port, from the file that it writes once it takes connections."""
        for path in (self.path / "ports").glob("*.ports"):
            with contextlib.suppress(ValueError, LookupError):  # half written
                url = json.loads(path.read_bytes())["nats"][0]
                return int(path.stem.rpartition("_")[2]), int(url.rpartition(":")[2])
        return None

    def log_size(self) -> int:
        """Bytes in the log, to be given to `complaint`."""
        return self.log.stat().st_size if self.log.exists() else 0

    def complaint(self, log_start: int) -> str:
        """What the server said on its way out: of its configuration on its output, of the rest in its log."""
        text = self.output.read_text(errors="replace")
        if self.log.exists():
            with self.log.open("rb") as file:
                file.seek(log_start)
                text += file.read().decode(errors="replace")
        lines = [line for line in text.splitlines() if line.strip()]
        grave = [line.partition("] ")[2] for line in lines if "[FTL]" in line or "[ERR]" in line]
        return "; ".join(grave[-3:] or lines[-1:]) or f"it ended without a word; see {self.log}"
