"""Commands about runs that workers really execute: outcomes as exit codes, and JSON as the contract has it."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from corral.jetstream.connection import Connection
from corral.subjects import Names
from tests.system.commands import Corral
from tests.system.test_cli import RUN_FIELDS

APP = """
import asyncio
from corral import App, Context

app = App()

@app.processor("good")
async def good(message: object) -> None: ...

@app.processor("bad")
async def bad(message: object) -> None:
    raise ValueError("it is bad")

@app.processor("mixed")
async def mixed(message: object, ctx: Context) -> None:
    for topic in ("good", "good", "bad"):
        await ctx.send(topic, {"for": topic})

@app.processor("long")
async def long(message: object) -> None:
    await asyncio.Event().wait()

@app.processor("many")
async def many(message: int, ctx: Context) -> None:
    for number in range(message):
        await ctx.send("long", number)
"""
RECEIPT_FIELDS = ["run", "removed", "stopped", "killed", "finished_first", "seconds"]
pytestmark = pytest.mark.xdist_group("one pool")


@pytest.fixture(scope="module")
def corral(tmp_path_factory: pytest.TempPathFactory, nats_url: str) -> Iterator[Corral]:
    """Commands in a namespace that one worker with ten slots serves."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "app.py").write_text(APP)
    called = Corral(folder, {"NATS_URL": nats_url, "CORRAL_NAMESPACE": f"t-{folder.name}-{id(folder)}"})
    with called.running("pool", "app.py", "-p", "1", "-c", "10") as pool:
        pool.wait_for("at work", on="err")
        yield called
        pool.signal(signal.SIGTERM)
        assert pool.done().code == 0


@pytest.fixture
async def connection(nats_url: str) -> AsyncIterator[Connection]:
    opened = await Connection.open([nats_url], name="test")
    yield opened
    await opened.close()


@pytest.fixture
def names(corral: Corral) -> Names:
    return Names(corral.environment["CORRAL_NAMESPACE"])


def wait_until_it_runs(corral: Corral, run_id: str, running: int = 1) -> None:
    with corral.running("show", run_id, "--follow", "--json") as following:
        following.wait_for(f'"running":{running},')


@pytest.mark.parametrize(
    ("topic", "status", "code"), [("good", "success", 0), ("bad", "failed", 1), ("mixed", "failed", 1)]
)
def test_the_exit_code_is_the_outcome(corral: Corral, topic: str, status: str, code: int) -> None:
    waited = corral("start", topic, "1", "--wait")
    assert waited.code == code
    assert status in waited.err
    followed = corral("show", waited.id, "--follow", "--json")
    assert followed.code == code
    assert followed.lines[-1]["status"] == status
    assert corral("show", waited.id, "--follow").code == code
    assert corral("events", waited.id, "--follow").code == code
    assert corral("show", waited.id).code == 0


def test_the_end_that_was_waited_for_as_json(corral: Corral) -> None:
    waited = corral("start", "mixed", "--wait", "--json")
    run = waited.json
    assert waited.code == 1
    assert list(run) == RUN_FIELDS
    assert {name: run[name] for name in ("status", "root", "total", "pending", "running", "success", "error")} == {
        "status": "failed",
        "root": "success",
        "total": 3,
        "pending": 0,
        "running": 0,
        "success": 2,
        "error": 1,
    }
    assert {topic: counts["total"] for topic, counts in run["topics"].items()} == {"good": 2, "bad": 1}
    assert corral("show", run["id"], "--json").json == run


def test_errors_say_what_failed_and_why(corral: Corral) -> None:
    run_id = corral("start", "mixed", "--wait").id
    (error,) = corral("errors", run_id, "--json").json
    assert list(error) == [
        *("task", "topic", "type", "message", "traceback", "attempt", "at", "worker", "body", "fingerprint"),
    ]
    assert (error["topic"], error["type"], error["message"]) == ("bad", "ValueError", "it is bad")
    assert error["body"] == {"for": "bad"}
    assert error["attempt"] == 1
    shown = corral("errors", run_id)
    assert "ValueError: it is bad" in shown.out
    assert "app.py" in shown.out
    assert "1 error " in shown.err
    assert corral("errors", corral("start", "good", "--wait").id, "--json").json == []


def test_events_are_shown_in_order(corral: Corral) -> None:
    run_id = corral("start", "mixed", "--wait").id
    listed = corral("events", run_id, "--json").json
    assert [event["seq"] for event in listed] == sorted(event["seq"] for event in listed)
    assert {event["run"] for event in listed} == {run_id}
    assert {"opened", "sent", "ended", "failed", "run-ended"} == {event["type"] for event in listed}
    assert corral("events", run_id, "--follow", "--json").lines == listed
    assert len(corral("events", run_id).out.splitlines()) == len(listed)


def test_who_works(corral: Corral) -> None:
    (worker,) = corral("workers", "--json").json
    assert list(worker) == [
        *("id", "pool", "host", "pid", "topics", "slots", "running", "rss", "started_at", "seen_at", "version"),
        *("waiting", "leaves", "leaves_by", "longest"),
    ]
    assert sorted(worker["topics"]) == ["bad", "good", "long", "many", "mixed"]
    assert worker["slots"] == 10
    topics = corral("topics", "--json").json
    assert all(list(topic) == ["topic", "pending", "running", "workers"] for topic in topics)
    assert {topic["topic"]: topic["workers"] for topic in topics} == dict.fromkeys(worker["topics"], 1)
    assert worker["id"] in corral("workers").out


def test_an_interrupt_gives_a_receipt(corral: Corral) -> None:
    run_id = corral("start", "many", "100").id
    wait_until_it_runs(corral, run_id, 10)
    stopped = corral("interrupt", run_id, "--wait", "--json", "--reason", "enough")
    receipt = stopped.json
    assert stopped.code == 0
    assert list(receipt) == RECEIPT_FIELDS
    assert (receipt["run"], receipt["stopped"], receipt["killed"]) == (run_id, 10, 0)
    assert receipt["removed"] + receipt["stopped"] + receipt["finished_first"] == 100
    run = corral("show", run_id, "--json").json
    assert (run["status"], run["interrupted"], run["interrupt_reason"]) == ("interrupted", 100, "enough")
    assert corral("show", run_id, "--follow").code == 5
    assert corral("events", run_id, "--follow", "--json").code == 5
    assert corral("verify", run_id).code == 0


def test_what_has_ended_stays_as_it_is(corral: Corral) -> None:
    run_id = corral("start", "good", "--wait").id
    for wait in ([], ["--wait"]):
        again = corral("interrupt", run_id, *wait)
        assert again.code == 0
        assert "ended already: success" in again.err
    assert set(corral("interrupt", run_id, "--wait", "--json").json.values()) == {run_id, 0}
    assert corral("show", run_id, "--json").json["status"] == "success"


def test_several_runs_are_stopped_at_once_or_none(corral: Corral) -> None:
    ids = [corral("start", "long", "--unique", f"several {number}").id for number in range(3)]
    assert corral("interrupt", *ids, "nothing-like-it").code == 2
    assert {corral("show", run_id, "--json").json["interrupted_by"] for run_id in ids} == {None}
    receipts = corral("interrupt", *ids[:2], "--unique", "several 2", "--wait", "--json").json
    assert [receipt["run"] for receipt in receipts] == ids
    nobody = corral("interrupt", "--unique", "several 2", "--json")
    assert (nobody.code, nobody.json) == (0, None)


def test_waiting_for_a_run_that_is_interrupted(corral: Corral) -> None:
    with corral.running("start", "long", "--wait", "--unique", "waiting") as waiting:
        run_id = waiting.wait_for("\n").strip()
        stopped = corral("interrupt", "--unique", "waiting", "--json")
        assert stopped.json["run"] == run_id
        assert stopped.json["ordered"]
        assert waiting.done().code == 5


def test_a_start_can_replace_the_holder(corral: Corral) -> None:
    first = corral("start", "long", "--unique", "replaced").id
    second = corral("start", "good", "--unique", "replaced", "--on-duplicate", "replace", "--wait")
    assert second.code == 0
    assert corral("show", first, "--json").json["status"] == "interrupted"


def test_ctrl_c_while_waiting_leaves_the_run_alone(corral: Corral) -> None:
    with corral.running("start", "long", "--wait") as waiting:
        run_id = waiting.wait_for("\n").strip()
        wait_until_it_runs(corral, run_id)
        waiting.signal(signal.SIGINT)
        left = waiting.done()
    assert left.code == 130
    assert f"Run {run_id} goes on" in left.err
    assert corral("show", run_id, "--json").json["status"] == "running"
    corral("interrupt", run_id, "--wait")


def test_counts_are_verified_from_the_events(corral: Corral) -> None:
    run_id = corral("start", "mixed", "--wait").id
    verdict = corral("verify", run_id, "--json")
    assert verdict.code == 0
    facts = verdict.json
    assert list(facts)[:6] == ["run", "ok", "events", "seq", "counted", "recorded"]
    assert (facts["run"], facts["ok"], facts["queued"]) == (run_id, True, 0)
    assert facts["counted"] == facts["recorded"]
    assert (facts["counted"]["total"], facts["counted"]["error"]) == (3, 1)


async def test_a_lost_event_is_a_mismatch_and_lost_events_are_not_known(
    corral: Corral, connection: Connection, names: Names
) -> None:
    run_id = corral("start", "mixed", "--wait").id
    ended = [event["seq"] for event in corral("events", run_id, "--json").json if event["type"] == "ended"]
    await connection.api(f"STREAM.MSG.DELETE.{names.events_stream}", {"seq": ended[-1]})
    mismatch = corral("verify", run_id, "--json")
    assert mismatch.code == 1
    assert not mismatch.json["ok"]
    assert mismatch.json["differences"]
    await connection.api(f"STREAM.PURGE.{names.events_stream}", {"filter": names.run_events(run_id)})
    for command in ("verify", "errors", "events"):
        assert corral(command, run_id).code == 6
    assert corral("events", run_id, "--follow").code == 6


# --- what must not happen ---------------------------------------------------------------------------------


class SilentProxy:
    """Passes everything on, up to the client's first bytes with a certain mark; then nothing any more."""

    def __init__(self, url: str, mark: bytes) -> None:
        self._mark = mark
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"nats://127.0.0.1:{self._listening.getsockname()[1]}"
        address = urlsplit(url)
        assert address.hostname
        assert address.port
        self._server = socket.create_connection((address.hostname, address.port))
        self._serving = threading.Thread(target=self._serve)
        self._serving.start()

    def _serve(self) -> None:
        client, _ = self._listening.accept()
        answering = threading.Thread(target=self._answer, args=(client,))
        answering.start()
        with client:
            seen = b""
            while some := client.recv(65536):
                seen += some
                if self._mark not in seen:
                    self._server.sendall(some)
            self._server.shutdown(socket.SHUT_RDWR)
            answering.join()

    def _answer(self, client: socket.socket) -> None:
        # A client that has gone takes its leave with an error, and there is nobody left to answer.
        with suppress(OSError):
            while some := self._server.recv(65536):
                client.sendall(some)

    def close(self) -> None:
        self._serving.join(60)
        self._listening.close()
        self._server.close()


def test_a_start_without_an_answer_is_not_known_and_can_be_repeated(corral: Corral, nats_url: str) -> None:
    with closing(SilentProxy(nats_url, b".task.")) as proxy:
        unknown = corral("start", "good", "--id", "repeated", "-s", proxy.url, CORRAL_PUBLISH_TIMEOUT="0.5")
    assert (unknown.code, unknown.out) == (6, "")
    assert "--id repeated" in unknown.err
    assert corral("start", "good", "--id", "repeated", "--wait").code == 0


BUG = """
from corral.client import Client

async def enter(self):
    raise ZeroDivisionError("a bug")

Client.__aenter__ = enter
"""


def test_our_own_mistakes_leave_a_report(tmp_path: Path, nats_url: str, namespace: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(BUG)
    corral = Corral(tmp_path, {"CORRAL_NAMESPACE": namespace, "PYTHONPATH": str(tmp_path)})
    failed = corral("show", "mine", "--server", nats_url.replace("://", "://user:secret@"))
    assert (failed.code, failed.out) == (70, "")
    report = corral.home / "logs" / "corral.log"
    assert str(report) in failed.err
    assert "Traceback" in report.read_text()
    assert "secret" not in report.read_text()
