"""Real servers for the tests: one for the whole session, and others that a test may stop and start."""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.servers import ServerProcess

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in the background with Ctrl-C ignored, and children inherit that.
    # Tests that press it, and programs under test that wait for it, would hang.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes depends on what else the machine does, which is no property of the code.
settings.register_profile("corral", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("corral")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--make-snapshots", action="store_true", help="keep what the dashboard draws, instead of comparing"
    )


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
