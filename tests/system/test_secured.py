"""The folder of a secured server: made once, kept for ever, and readable by nobody else."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from corral.errors import BadName, ServerStartFailed
from corral.roles import roles
from corral.secured import settle
from corral.server import config_file
from corral.subjects import Names
from tests.system.commands import Corral
from tests.system.secured import ROLES, Secured

pytestmark = pytest.mark.timeout(60)

NAMES = Names("shop")
USERS = {*ROLES, "bookkeeper"}


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def context(folder: Path, role: str) -> dict[str, str]:
    found: dict[str, str] = json.loads((folder / f"{role}.json").read_text())
    return found


def test_everything_is_made_once_and_then_kept(tmp_path: Path) -> None:
    folder = tmp_path / "queue"
    first = settle(folder, NAMES, config_file(), port=4333)
    assert first.url == "tls://127.0.0.1:4333"
    assert {path.name for path in first.made} >= {"server.conf", "roles.conf", "ca.pem", "viewer.json", "server.key"}
    (folder / "server.conf").write_text("# changed by hand\n")
    before = contents(folder)
    again = settle(folder, Names("other"), config_file(), hosts=["elsewhere"], port=5555)
    assert (again.url, again.made) == (first.url, ())
    assert contents(folder) == before


def test_what_is_deleted_is_made_anew_and_fits_the_rest(tmp_path: Path) -> None:
    settle(tmp_path, NAMES, config_file(), port=4333)
    before = contents(tmp_path)
    (tmp_path / "roles.conf").unlink()
    (tmp_path / "tls" / "server.pem").unlink()
    (tmp_path / "viewer.json").unlink()
    made = settle(tmp_path, NAMES, config_file()).made
    assert {path.name for path in made} == {"roles.conf", "server.pem", "viewer.json"}
    after = contents(tmp_path)
    assert after[tmp_path / "ca.pem"] == before[tmp_path / "ca.pem"]
    assert after[tmp_path / "worker.json"] == before[tmp_path / "worker.json"]
    for role in USERS:
        assert context(tmp_path, role)["password"] in (tmp_path / "roles.conf").read_text()
    assert context(tmp_path, "viewer")["url"] == "tls://127.0.0.1:4333"


def test_nobody_else_can_read_a_secret(tmp_path: Path) -> None:
    folder = tmp_path / "queue"
    folder.mkdir(mode=0o755)
    settle(folder, NAMES, config_file())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    secrets = {context(folder, role)["password"] for role in USERS}
    assert len(secrets) == len(USERS)
    assert min(len(secret) for secret in secrets) >= 40
    for path, content in contents(folder).items():
        if b"PRIVATE KEY" in content or any(secret.encode() in content for secret in secrets):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    for inner in (folder / "tls", folder / "logs"):
        assert stat.S_IMODE(inner.stat().st_mode) == 0o700


def test_others_are_let_in_only_where_a_host_is_named(tmp_path: Path) -> None:
    settle(tmp_path / "alone", NAMES, config_file())
    assert 'listen: "127.0.0.1:4222"' in (tmp_path / "alone" / "server.conf").read_text()
    named = settle(tmp_path / "named", NAMES, config_file(), hosts=["queue.example.org", "10.1.2.3"])
    assert named.url == "tls://queue.example.org:4222"
    assert 'listen: "0.0.0.0:4222"' in (tmp_path / "named" / "server.conf").read_text()


def test_only_what_is_in_the_table_is_in_the_configuration(tmp_path: Path) -> None:
    settle(tmp_path, NAMES, config_file())
    text = (tmp_path / "roles.conf").read_text()
    known = {
        subject
        for rights in roles(NAMES).values()
        for subject in (*(f"$JS.API.{call}" for call in rights.calls), *rights.publishes, *rights.tells)
    }
    assert set(re.findall(r'(?:service|stream): "([^"]+)"', text)) == known
    assert set(re.findall(r'account: \w+, subject: "([^"]+)"', text)) == known


@pytest.mark.parametrize("host", ["", "a b", "a:4222", 'a"', "*.example.org", "-a", "tls://a", "a\n", "ä.example"])
def test_a_host_that_is_none_is_refused_before_anything_is_made(tmp_path: Path, host: str) -> None:
    with pytest.raises(BadName):
        settle(tmp_path / "queue", NAMES, config_file(), hosts=[host])
    assert not (tmp_path / "queue").exists()


def test_a_password_of_ones_own_cannot_break_out_of_the_configuration(tmp_path: Path) -> None:
    settle(tmp_path, NAMES, config_file())
    changed = {**context(tmp_path, "viewer"), "password": 'x" }] } evil { users: [{ user: "y'}
    (tmp_path / "viewer.json").write_text(json.dumps(changed))
    (tmp_path / "roles.conf").unlink()
    with pytest.raises(ServerStartFailed, match=r"the password in viewer\.json"):
        settle(tmp_path, NAMES, config_file())


@pytest.mark.parametrize("broken", ["viewer.json", "tls/ca.key"])
def test_a_file_that_cannot_be_read_is_named_and_left_alone(tmp_path: Path, broken: str) -> None:
    settle(tmp_path, NAMES, config_file())
    (tmp_path / broken).write_text("broken")
    (tmp_path / "tls" / "server.pem").unlink()
    with pytest.raises(ServerStartFailed, match="cannot be read"):
        settle(tmp_path, NAMES, config_file())
    assert (tmp_path / broken).read_text() == "broken"


def test_without_the_extra_it_is_said_what_is_missing(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from corral.cli import main\n"
        f"sys.argv = ['corral', 'server', '--secure', {str(tmp_path / 'q')!r}]\n"
        "sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert "pip install 'corral[secure]'" in done.stderr


def test_the_command_says_what_comes_next_and_no_secret(tmp_path: Path) -> None:
    secured = Secured(Corral(tmp_path))
    with secured.running() as server:
        said = server.wait_for("send them safely", on="err") + server.wait_for("tls://")
        for role in ROLES:
            assert f"--context {secured.context(role)}" in said
        assert not any(context(secured.folder, role)["password"] in said for role in USERS)
        again = secured.corral("server", "--secure", str(secured.folder))
        assert (again.code, "already runs" in again.err) == (2, True)
        server.signal(signal.SIGTERM)
        assert server.done().code == 0
    before = contents(secured.folder)
    with secured.running() as server:
        assert "Made in" not in server.wait_for("send them safely", on="err")
    assert {path: before[path] for path in before if path.suffix in (".conf", ".json", ".pem", ".key")}.items() <= (
        contents(secured.folder).items()
    )


def test_a_server_that_ends_by_itself_ends_the_command(tmp_path: Path) -> None:
    secured = Secured(Corral(tmp_path))
    with secured.corral.running("server", "--secure", str(secured.folder), "--port", "0", "--json") as server:
        said = json.loads(server.wait_for("}"))
        assert {role: said[role] for role in USERS} == {role: secured.context(role) for role in USERS}
        os.kill(said["pid"], signal.SIGKILL)
        done = server.done()
    assert (done.code, "it has ended by itself" in done.err) == (4, True)


def test_the_bookkeeper_can_be_elsewhere_and_several_stand_by(tmp_path: Path) -> None:
    """As on a server that is started otherwise."""
    secured = Secured(Corral(tmp_path))
    with secured.running():
        beside = ("bookkeeper", "--context", secured.context("bookkeeper"))
        with secured.corral.running(*beside) as bookkeeper:
            bookkeeper.wait_for("Ready", on="err")
            bookkeeper.signal(signal.SIGTERM)
            assert bookkeeper.done().code == 0
        refused = secured.corral("bookkeeper", "--context", secured.context("viewer"))
        assert refused.code == 4
        assert "no permission" in refused.err


def test_a_pool_that_may_not_work_says_so(tmp_path: Path) -> None:
    secured = Secured(Corral(tmp_path))
    with secured.running():
        for role, subject in (("producer", "corral.beat.*"), ("viewer", "CORRAL.API.CONSUMER.INFO.corral_TASKS.many")):
            done = secured.corral("pool", str(secured.app), "-p", "1", "--context", secured.context(role))
            assert (done.code, f"'{subject}'" in done.err) == (4, True), done.err


def test_the_options_of_a_login_go_before_the_environment(tmp_path: Path) -> None:
    corral = Corral(tmp_path, {"NATS_USER": "ann", "NATS_PASSWORD": "secret", "NATS_URL": "nats://other:1"})
    (tmp_path / "my.creds").write_text("")
    shown = corral("env", "--json", "-s", "nats://queue:1", "--creds", "my.creds").json
    assert (shown["login"], shown["login_from"]) == ({"creds": str(tmp_path / "my.creds")}, ["NATS_CREDS"])
    (tmp_path / "c.json").write_text('{"url": "tls://queue:1", "token": "secret", "ca": "my.creds"}')
    shown = corral("env", "--json", "--context", "./c.json").json
    assert (shown["server"], shown["server_from"]) == ("tls://queue:1", "context")
    assert shown["login"] == {"token": "***", "ca": str(tmp_path / "my.creds")}
    # The embedded server brings a login of its own, whatever else is said for other servers.
    with corral.running("server") as server:
        server.wait_for("nats://")
        assert corral("runs", NATS_URL="", NATS_CA=str(tmp_path / "c.json")).code == 0


def test_hosts_and_ports_are_for_secured_servers(tmp_path: Path) -> None:
    done = Corral(tmp_path)("server", "--port", "5000")
    assert (done.code, "it goes with --secure" in done.err) == (2, True)
