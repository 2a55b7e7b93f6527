"""The embedded server, with real processes; the lock of its folder tells when one has ended."""

import fcntl
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest

from corral import server as module
from corral.errors import AlreadyRunning, NoServer, ServerStartFailed
from corral.server import EmbeddedServer, config_file, discover, home, locate

pytestmark = pytest.mark.timeout(60)

START_AND_WAIT = """
import sys
from pathlib import Path
from corral.server import EmbeddedServer
server = EmbeddedServer.start(Path(sys.argv[1]))
print(server.url, flush=True)
sys.stdin.read()
server.stop()
"""
DISCOVER = """
import sys
from pathlib import Path
from corral.server import discover
print(discover(Path(sys.argv[1])), end="")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "a home with spaces"


@pytest.fixture
def server(folder: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer.start(folder) as running:
        yield running


@pytest.fixture
def starter(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has started a server."""
    command = [sys.executable, "-c", START_AND_WAIT, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("nats://")
        yield process
        process.kill()


def wait_until_ended(folder: Path) -> None:
    with (folder / "server.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def log_in(url: str, secret: str) -> str:
    """What the server says to somebody who gives `secret`, by the bare protocol."""
    with socket.create_connection(("127.0.0.1", port_of(url)), timeout=10) as connection:
        file = connection.makefile("rwb", buffering=0)
        file.readline()
        file.write(b'CONNECT {"verbose":true,"user":"corral","pass":"%s"}\r\n' % secret.encode())
        return file.readline().decode().strip()


def secret_of(url: str) -> str:
    return url.split(":")[2].partition("@")[0]


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def test_another_process_discovers_a_running_server(server: EmbeddedServer, folder: Path) -> None:
    found = subprocess.run([sys.executable, "-c", DISCOVER, folder], check=True, capture_output=True, text=True).stdout
    assert found == server.url
    assert log_in(found, secret_of(found)) == "+OK"


def test_nobody_gets_in_without_the_secret(server: EmbeddedServer) -> None:
    assert log_in(server.url, "a guess") == "-ERR 'Authorization Violation'"


def test_a_second_start_is_refused(server: EmbeddedServer, folder: Path) -> None:
    with pytest.raises(AlreadyRunning) as caught:
        EmbeddedServer.start(folder)
    assert caught.value.home == str(folder)
    assert discover(folder) == server.url


def test_the_lock_outlives_the_address_file(
    server: EmbeddedServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("corral.server_folder._LOCK_TIMEOUT", 0.0)
    (folder / "server.json").unlink()
    with pytest.raises(AlreadyRunning):
        EmbeddedServer.start(folder)
    assert server.running


def test_a_stopped_server_is_gone(folder: Path) -> None:
    server = EmbeddedServer.start(folder)
    assert server.running
    server.stop()
    assert discover(folder) is None
    server.stop()


def test_the_address_of_a_killed_server_is_not_trusted(server: EmbeddedServer, folder: Path) -> None:
    os.kill(server.pid, signal.SIGKILL)
    wait_until_ended(folder)
    assert (folder / "server.json").exists()
    assert discover(folder) is None


def test_a_stranger_on_the_old_port_is_not_taken_for_the_server(folder: Path, tmp_path: Path) -> None:
    with EmbeddedServer.start(folder) as server:
        left_behind = (folder / "server.json").read_bytes()
    with EmbeddedServer.start(tmp_path / "other") as stranger:
        port, strange_port = (str(port_of(url)).encode() for url in (server.url, stranger.url))
        (folder / "server.json").write_bytes(left_behind.replace(port, strange_port))
        assert discover(folder) is None


def test_secrets_are_readable_by_their_owner_only(server: EmbeddedServer, folder: Path) -> None:
    secret = secret_of(server.url).encode()
    holders = {path for path in folder.rglob("*") if path.is_file() and secret in path.read_bytes()}
    assert {path.name for path in holders} == {"identity.json", "server.conf", "server.json"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in holders} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_it_listens_on_the_loopback_address_only(server: EmbeddedServer, folder: Path) -> None:
    (ports,) = (folder / "ports").iterdir()
    assert json.loads(ports.read_text()) == {"nats": [f"nats://127.0.0.1:{port_of(server.url)}"]}


def test_it_stops_when_its_starter_ends(starter: subprocess.Popen[str], folder: Path) -> None:
    starter.communicate("")
    assert starter.returncode == 0
    wait_until_ended(folder)
    assert discover(folder) is None


def test_it_stops_when_its_starter_is_killed(starter: subprocess.Popen[str], folder: Path) -> None:
    assert discover(folder) is not None
    starter.kill()
    wait_until_ended(folder)
    assert discover(folder) is None


def test_a_start_right_after_the_starter_was_killed_succeeds(starter: subprocess.Popen[str], folder: Path) -> None:
    starter.kill()
    with EmbeddedServer.start(folder) as server:
        assert discover(folder) == server.url


async def test_a_restart_keeps_address_and_data(folder: Path) -> None:
    with EmbeddedServer.start(folder) as first:
        client = await nats.connect(first.url)
        await client.jetstream().add_stream(name="KEPT", subjects=["kept"])
        await client.jetstream().publish("kept", b"still here")
        await client.close()
    with EmbeddedServer.start(folder) as second:
        assert second.url == first.url
        client = await nats.connect(second.url)
        assert (await client.jetstream().get_last_msg("KEPT", "kept")).data == b"still here"
        await client.close()


def test_a_port_that_is_taken_is_left_to_its_owner(folder: Path) -> None:
    with EmbeddedServer.start(folder) as first:
        port = port_of(first.url)
    with socket.socket() as owner:
        owner.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        owner.bind(("127.0.0.1", port))
        owner.listen()
        with EmbeddedServer.start(folder) as second:
            assert second.url != first.url
            assert discover(folder) == second.url


def test_a_port_that_is_taken_in_the_last_moment_is_left_to_its_owner(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_is_free", lambda _port: True)
    test_a_port_that_is_taken_is_left_to_its_owner(folder)


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ServerStartFailed, match=f"cannot use {file}/home: Not a directory"):
        EmbeddedServer.start(file / "home")


def test_what_the_server_says_against_its_configuration_is_passed_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = tmp_path / "wrong.conf"
    wrong.write_text("no_such_option: 1\n")
    monkeypatch.setattr(module, "config_file", lambda: wrong)
    with pytest.raises(ServerStartFailed, match="no_such_option"):
        EmbeddedServer.start(folder)
    wait_until_ended(folder)


def test_a_missing_nats_server_says_what_to_install(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerStartFailed, match="its extra 'server'"):
        EmbeddedServer.start(folder)


def test_the_home_is_given_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CORRAL_HOME", str(tmp_path))
    assert home() == tmp_path
    monkeypatch.delenv("CORRAL_HOME")
    assert home().name == "corral"
    assert home().is_absolute()


def test_a_given_url_comes_before_the_environment_before_the_embedded_server(
    server: EmbeddedServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NATS_URL", "nats://from-environment")
    assert locate("nats://given", folder)[:2] == ("nats://given", "--server")
    assert locate(None, folder)[:2] == ("nats://from-environment", "NATS_URL")
    monkeypatch.delenv("NATS_URL")
    assert locate(None, folder)[:2] == (server.url, "embedded")


def test_without_any_server_what_was_tried_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NATS_URL", raising=False)
    with pytest.raises(NoServer, match="corral up") as caught:
        locate(None, folder)
    assert str(folder) in caught.value.tried[-1]
    assert not folder.exists()


def test_the_configuration_is_valid_as_it_is() -> None:
    program = shutil.which("nats-server", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert program is not None
    subprocess.run([program, "-t", "-c", config_file()], check=True, capture_output=True)
