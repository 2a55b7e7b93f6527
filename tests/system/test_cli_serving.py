"""`server`, `pool`, `up` and `demo` as processes: they start what is missing, and leave nothing behind."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from corral.client import Client
from tests.system.commands import CORRAL, DEADLINE, Corral

APP = """
import asyncio
from pathlib import Path
from corral import App

app = App()

@app.processor("good")
async def good(message: object) -> None: ...

@app.processor("other")
async def other(message: object) -> None: ...

@app.processor("fixed")
async def fixed(name: str) -> None:
    Path(name).read_text()
"""


@pytest.fixture
def corral(tmp_path: Path) -> Corral:
    (tmp_path / "app.py").write_text(APP)
    files = tmp_path / "files" / "below"
    files.mkdir(parents=True)
    (files / "fine.py").write_text("x = 1\n")
    (files / "broken.json").write_text("{\n")
    return Corral(tmp_path)


def wait_until_the_server_has_ended(corral: Corral) -> None:
    with (corral.home / "server.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


# --- server ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_server_is_found_by_the_other_commands(corral: Corral, number: signal.Signals, code: int) -> None:
    with corral.running("server") as server:
        address = server.wait_for("\n").strip()
        assert address.startswith("nats://corral:***@127.0.0.1:")
        assert corral("start", "good").code == 0
        used = corral("env", "--json").json
        assert (used["server"], used["server_from"]) == (address, "embedded")
        assert "***" not in corral("env", "--show-secret").out
        second = corral("server")
        assert second.code == 2
        assert "already runs" in second.err
        server.signal(number)
        assert server.done().code == code
    wait_until_the_server_has_ended(corral)
    assert corral("runs").code == 4


def test_a_server_that_cannot_start_says_why(corral: Corral) -> None:
    corral.home.write_text("a file where the folder should be")
    refused = corral("server")
    assert refused.code == 4
    assert str(corral.home) in refused.err


# --- pool -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_pool_works_until_it_is_told_to_stop(
    corral: Corral, nats_url: str, namespace: str, number: signal.Signals, code: int
) -> None:
    at = ("-s", nats_url, "-n", namespace)
    with corral.running("pool", "app:app", "-p", "2", "-c", "3", "--topics", "good", *at) as pool:
        pool.wait_for("2 workers at work", on="err")
        assert corral("start", "good", "--wait", *at).code == 0
        workers = corral("workers", "--json", *at).json
        assert [(worker["topics"], worker["slots"]) for worker in workers] == [(["good"], 3)] * 2
        pool.signal(number)
        assert pool.done().code == code
    assert corral("workers", "--json", *at).json == []


@pytest.mark.parametrize(
    ("spec", "more"),
    [("app:nothing", []), ("broken.py", []), ("nothing_like_it", []), ("app.py", ["--topics", "unknown"])],
)
def test_a_pool_without_an_app_is_refused(corral: Corral, nats_url: str, spec: str, more: list[str]) -> None:
    (corral.folder / "broken.py").write_text("1 / 0\n")
    refused = corral("pool", spec, *more, "-s", nats_url)
    assert (refused.code, refused.out) == (2, "")
    assert "no app at" in refused.err


# --- up -------------------------------------------------------------------------------------------------


def test_up_tells_of_a_run_that_a_retry_brings_back(corral: Corral) -> None:
    flag = corral.folder / "fixed"
    with corral.running("up", "app.py", "--no-tui", "-p", "1") as up:
        up.wait_for("workers are ready", on="err")
        run_id = corral("start", "fixed", f'"{flag}"', "--wait").id
        up.wait_for(f"{run_id} fixed failed", on="err")
        flag.touch()
        assert corral("retry", run_id, "--wait").code == 0
        up.wait_for(f"{run_id} fixed success", on="err")
        up.signal(signal.SIGTERM)
        assert up.done().code == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_up_brings_a_server_and_workers_and_takes_them_away(corral: Corral, number: signal.Signals, code: int) -> None:
    with corral.running("up", "app.py", "-p", "1") as up:
        up.wait_for("workers are ready", on="err")
        run_id = corral("start", "good", "--wait").id
        up.wait_for(f"{run_id} good success", on="err")
        up.signal(number)
        done = up.done()
        assert done.code == code
        heading, summary = done.out.splitlines()
        assert heading.startswith("RUN")
        assert summary.split()[:4] == [run_id, "good", "success", "1"]
    wait_until_the_server_has_ended(corral)


def test_up_joins_a_server_that_runs_and_leaves_it(corral: Corral) -> None:
    with corral.running("server") as server:
        server.wait_for("\n")
        waits = corral("start", "of.nobody").id
        with corral.running("up", "app.py", "-p", "1") as up:
            up.wait_for("workers are ready", on="err")
            assert "Started a server" not in up.wait_for("\n", on="err")
            run_id = corral("start", "good", "--wait").id
            up.wait_for(f"{run_id} good success", on="err")
            up.signal(signal.SIGTERM)
            done = up.done()
        assert done.code == 0
        assert [row.split()[0] for row in done.out.splitlines()[1:]] == [run_id]  # the other one has not moved
        assert waits not in done.err
        assert corral("workers", "--json").json == []


def test_up_without_an_app_says_so_and_takes_the_server_away(corral: Corral) -> None:
    refused = corral("up", "nothing_like_it.py")
    assert refused.code == 2
    assert "no app at 'nothing_like_it.py'" in refused.err
    wait_until_the_server_has_ended(corral)


async def test_a_killed_up_leaves_no_workers_behind(corral: Corral, nats_url: str, namespace: str) -> None:
    left = asyncio.Event()
    async with Client(nats_url, namespace) as client:
        await client.on_beat(lambda beat, _: left.set() if beat.leaving else None)
        with corral.running("up", "app.py", "-p", "1", "-s", nats_url, "-n", namespace) as up:
            await asyncio.to_thread(up.wait_for, "workers are ready", on="err")
            up.signal(signal.SIGKILL)
            await asyncio.wait_for(left.wait(), DEADLINE)


def test_a_killed_up_leaves_no_server_behind(corral: Corral) -> None:
    with corral.running("up", "app.py", "-p", "1") as up:
        up.wait_for("workers are ready", on="err")
        up.signal(signal.SIGKILL)
        wait_until_the_server_has_ended(corral)


# --- demo -----------------------------------------------------------------------------------------------


def test_the_demo_works_through_files_and_ends(corral: Corral) -> None:
    done = corral("demo", "files", NATS_URL="nats://127.0.0.1:1")
    assert done.code == 0
    assert "JSONDecodeError" in done.out
    assert "demo.checksum" in done.out
    assert "4 of 4 done" in done.err
    wait_until_the_server_has_ended(corral)


def test_the_demo_as_json(corral: Corral) -> None:
    done = corral("demo", "files", "--json")
    assert done.code == 0
    run = json.loads(done.out)
    assert (run["status"], run["total"], run["success"], run["error"]) == ("failed", 4, 3, 1)


# --- on a terminal --------------------------------------------------------------------------------------


class Terminal:
    """A terminal with a command in it; what it shows is read all the time."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self.process = process
        self._descriptor = descriptor
        self._shown = b""
        self._news = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                some = os.read(self._descriptor, 65536)
            except OSError:
                some = b""
            with self._news:
                self._shown += some
                self._news.notify_all()
            if not some:
                return

    def wait_for(self, text: bytes) -> None:
        with self._news:
            assert self._news.wait_for(lambda: text in self._shown, DEADLINE), self._shown[-2000:]

    def press(self, key: bytes) -> None:
        os.write(self._descriptor, key)


@contextmanager
def terminal(corral: Corral, *arguments: str) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    environment = {**corral.environment, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    with subprocess.Popen(
        [CORRAL, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=corral.folder,
        env=environment,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        try:
            yield Terminal(process, ours)
        finally:
            process.kill()
    os.close(ours)


@pytest.mark.parametrize("command", [["up", "app.py", "-p", "1"], ["demo", "files"]])
def test_a_terminal_gets_the_dashboard_and_leaving_it_ends_everything(corral: Corral, command: list[str]) -> None:
    with terminal(corral, *command) as shown:
        shown.wait_for(b"\x1b[?1049h")  # the dashboard has taken the screen
        shown.wait_for(b"demo" if command[0] == "demo" else b"No runs yet")
        shown.press(b"q")
        assert shown.process.wait(DEADLINE) == 0
    wait_until_the_server_has_ended(corral)
