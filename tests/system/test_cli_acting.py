"""`corral retry` and `corral interrupt --kill-after` from outside, and following a run through a retry."""

from __future__ import annotations

import math
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from corral.client import Client
from corral.jetstream.connection import Connection
from corral.subjects import Names
from tests.system.commands import Corral
from tests.system.test_cli import RUN_FIELDS

APP = """
import asyncio
import threading
from pathlib import Path

from corral import App, Context

app = App()

@app.processor("good")
async def good(message: object) -> None: ...

@app.processor("fixed")
async def fixed(name: str) -> None:
    # Fails until the file is there; what the file says is what it does then.
    if Path(name).read_text() == "hold":
        await asyncio.Event().wait()

@app.processor("many")
async def many(name: str, ctx: Context) -> None:
    for topic in ("good", "good", "fixed", "fixed", "fixed"):
        await ctx.send(topic, name)

@app.processor("keyed", unique="key {name}")
async def keyed(message: dict[str, str]) -> None:
    Path(message["name"]).read_text()

@app.processor("long")
async def long(message: object) -> None:
    await asyncio.Event().wait()

@app.processor("stubborn", concurrency=4)
def stubborn(message: object) -> None:
    threading.Event().wait()
"""
pytestmark = pytest.mark.xdist_group("one pool that acts")


@pytest.fixture(scope="module")
def corral(tmp_path_factory: pytest.TempPathFactory, nats_url: str) -> Iterator[Corral]:
    """Commands in a namespace that one worker serves."""
    folder = tmp_path_factory.mktemp("acting")
    (folder / "app.py").write_text(APP)
    called = Corral(folder, {"NATS_URL": nats_url, "CORRAL_NAMESPACE": f"t-{folder.name}-{id(folder)}"})
    with called.running("pool", "app.py", "-p", "1", "-c", "10") as pool:
        pool.wait_for("at work", on="err")
        yield called
        pool.signal(signal.SIGTERM)
        assert pool.done().code == 0


@pytest.fixture
def flag(corral: Corral, request: pytest.FixtureRequest) -> Path:
    """The file that a test's processors look for."""
    return corral.folder / str(request.node.name)


@pytest.fixture
async def connection(nats_url: str) -> AsyncIterator[Connection]:
    opened = await Connection.open([nats_url], name="test")
    yield opened
    await opened.close()


def wait_until_it_runs(corral: Corral, run_id: str) -> None:
    with corral.running("show", run_id, "--follow", "--json") as following:
        following.wait_for('"running":1,')


# --- retry ------------------------------------------------------------------------------------------------


def test_a_retry_after_the_fix_ends_in_success(corral: Corral, flag: Path) -> None:
    failed = corral("start", "many", f'"{flag}"', "--wait")
    assert failed.code == 1
    flag.write_text("")
    retried = corral("retry", failed.id[:10], "--wait", "--json")
    assert retried.code == 0
    run = retried.json
    assert list(run) == RUN_FIELDS
    assert [run[name] for name in ("id", "status", "total", "success", "error")] == [failed.id, "success", 5, 5, 0]
    assert corral("verify", failed.id).code == 0
    assert corral("errors", failed.id, "--json").json == []


def test_what_a_retry_brings_back_is_said_and_the_command_returns(corral: Corral, flag: Path) -> None:
    failed = corral("start", "many", f'"{flag}"', "--wait")
    told = corral("retry", "last")
    assert (told.code, told.out) == (0, f"{failed.id}: 3 tasks brought back\n")
    assert corral("show", failed.id, "--follow").code == 1
    facts = corral("retry", failed.id, "--json").json
    assert list(facts) == ["run", "brought_back", "status"]
    assert (facts["run"], facts["brought_back"]) == (failed.id, 3)


def test_only_the_selected_tasks_are_retried(corral: Corral, flag: Path) -> None:
    run_id = corral("start", "many", f'"{flag}"', "--wait").id
    first, second, third = [error["task"] for error in corral("errors", run_id, "--json").json]
    flag.write_text("")
    told = corral("retry", run_id, "--task", first, "--wait")
    assert told.code == 1
    assert told.out.startswith(f"{run_id}: 1 task brought back\n")
    assert [error["task"] for error in corral("errors", run_id, "--json").json] == [second, third]
    assert corral("verify", run_id).code == 0
    told = corral("retry", run_id, "--task", first, "--task", first)
    assert (told.code, told.out) == (0, f"{run_id}: nothing to bring back, what was selected has succeeded\n")
    assert corral("retry", run_id, "--topic", "good", "--json").json["brought_back"] == 0
    told = corral("retry", run_id, "--task", "-", "--json", stdin=f"{second}\n{first}".encode())
    assert (told.code, told.json["brought_back"]) == (0, 1)
    assert corral("show", run_id, "--follow").code == 1
    assert corral("retry", run_id, "--topic", "fixed", "--topic", "good", "--wait").code == 0
    assert corral("verify", run_id).code == 0


def test_a_selection_of_what_is_not_there_is_refused(corral: Corral) -> None:
    run_id = corral("start", "good", "--wait").id
    before = corral("show", run_id, "--json").json
    for arguments, said in (
        (["--task", "7-7"], f"run {run_id} has no task 7-7"),
        (["--task", "0-0", "--task", "0-1"], f"run {run_id} has no task 0-1"),
        (["--topic", "nobody"], f"run {run_id} has no task of topic 'nobody'"),
        (["--task", "first"], "'first' is not a task: it is batch-ordinal, such as 41-7"),
        (["--topic", "No One"], "'No One' is not a topic"),
    ):
        refused = corral("retry", run_id, *arguments)
        assert (refused.code, refused.out) == (2, ""), arguments
        assert said in refused.err
        assert ("corral errors" in refused.err) == ("has no task" in said)
    assert corral("retry", run_id, "--task", "-", stdin=b"").out.endswith("what was selected has succeeded\n")
    assert corral("retry", run_id, "--task", "-", stdin=b"1-\xe9").code == 2
    assert corral("show", run_id, "--json").json == before


def test_a_retry_that_fails_again_exits_with_1(corral: Corral, flag: Path) -> None:
    failed = corral("start", "fixed", f'"{flag}"', "--wait")
    again = corral("retry", failed.id, "--wait")
    assert again.code == 1
    assert "failed" in again.err


def test_an_interrupted_run_comes_back_whole(corral: Corral, flag: Path) -> None:
    flag.write_text("hold")
    run_id = corral("start", "many", f'"{flag}"').id
    with corral.running("show", run_id, "--follow", "--json") as following:
        following.wait_for('"running":3,')
    assert corral("interrupt", run_id, "--wait").code == 0
    flag.write_text("")
    retried = corral("retry", run_id, "--wait", "--json")
    assert retried.code == 0
    assert [retried.json[name] for name in ("status", "total", "success")] == ["success", 5, 5]
    assert retried.json["interrupted_by"] is None


def test_nothing_to_bring_back_is_nothing_done(corral: Corral) -> None:
    run_id = corral("start", "good", "--wait").id
    before = corral("show", run_id, "--json").json
    told = corral("retry", run_id)
    assert told.code == 0
    assert "nothing to bring back" in told.out
    assert corral("retry", run_id, "--json").json == {"run": run_id, "brought_back": 0, "status": "success"}
    assert corral("retry", run_id, "--wait").code == 0
    assert corral("show", run_id, "--json").json == before


def test_a_run_that_has_not_ended_is_not_retried(corral: Corral) -> None:
    run_id = corral("start", "long").id
    refused = corral("retry", run_id)
    assert (refused.code, refused.out) == (2, "")
    assert "has not ended" in refused.err
    assert f"corral show {run_id} --follow" in refused.err
    assert f"corral interrupt {run_id} --wait" in refused.err
    assert corral("interrupt", run_id, "--wait").code == 0


def test_a_retry_is_refused_while_another_run_holds_the_key(corral: Corral, flag: Path) -> None:
    failed = corral("start", "keyed", f'{{"name": "{flag}"}}', "--wait")
    assert failed.code == 1
    key = f"key {flag}"
    holder = corral("start", "long", "--unique", key).id
    refused = corral("retry", failed.id)
    assert (refused.code, refused.out) == (3, "")
    assert f"corral interrupt {holder}" in refused.err
    assert "--on-duplicate" not in refused.err  # which is an option of start
    as_json = corral("retry", failed.id, "--wait", "--json")
    assert (as_json.code, as_json.json) == (3, {"error": "duplicate_run", "unique": key, "run": holder})
    assert corral("show", failed.id, "--json").json["status"] == "failed"
    flag.write_text("")
    assert corral("interrupt", "--unique", key, "--wait").code == 0
    assert corral("retry", failed.id, "--wait").code == 0


def test_a_wait_for_a_retry_can_end_before_the_run(corral: Corral, flag: Path) -> None:
    run_id = corral("start", "fixed", f'"{flag}"', "--wait").id
    flag.write_text("hold")
    passed = corral("retry", run_id, "--wait", "--timeout", "0.5")
    assert passed.code == 6
    assert "has not ended" in passed.err
    with corral.running("show", run_id, "--follow") as following:
        assert corral("interrupt", run_id, "--wait").code == 0
        assert following.done().code == 5


async def test_without_its_events_a_run_cannot_be_retried(corral: Corral, flag: Path, connection: Connection) -> None:
    run_id = corral("start", "fixed", f'"{flag}"', "--wait").id
    names = Names(corral.environment["CORRAL_NAMESPACE"])
    await connection.api(f"STREAM.PURGE.{names.events_stream}", {"filter": names.run_events(run_id)})
    refused = corral("retry", run_id)
    assert refused.code == 6
    assert "`corral start`" in refused.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([], "Missing argument"), (["nobody"], "there is no run"), (["last", "--timeout", "3"], "it goes with --wait")],
)
def test_a_wrong_retry(corral: Corral, arguments: list[str], said: str) -> None:
    refused = corral("retry", *arguments)
    assert (refused.code, refused.out) == (2, "")
    assert said in refused.err


def test_following_the_events_goes_on_through_a_retry(corral: Corral, flag: Path) -> None:
    run_id = corral("start", "fixed", f'"{flag}"', "--wait").id
    flag.write_text("hold")
    assert corral("retry", run_id).code == 0
    wait_until_it_runs(corral, run_id)
    with corral.running("events", run_id, "--follow", "--json") as following:
        following.wait_for('"type":"reopened"')
        assert corral("interrupt", run_id, "--wait").code == 0
        done = following.done()
    assert done.code == 5
    ends = [event["round"] for event in done.lines if event["type"] == "run-ended"]
    assert ends == [0, 1]
    assert done.lines[-1]["type"] == "run-ended"
    assert done.lines == corral("events", run_id, "--json").json
    again = corral("events", run_id, "--follow", "--json")
    assert (again.code, again.lines) == (5, done.lines)


# --- interrupt --kill-after -------------------------------------------------------------------------------


def test_kill_after_ends_a_thread_that_does_not_stop(corral: Corral) -> None:
    run_id = corral("start", "stubborn").id
    wait_until_it_runs(corral, run_id)
    stopped = corral("interrupt", run_id, "--wait", "--kill-after", "0.1", "--json")
    assert stopped.code == 0
    receipt = stopped.json
    assert [receipt[name] for name in ("removed", "stopped", "killed", "finished_first")] == [0, 0, 1, 0]
    assert receipt["seconds"] >= 0.1
    assert corral("show", run_id, "--follow").code == 5
    assert corral("verify", run_id).code == 0
    assert corral("start", "good", "--wait", "--timeout", "50").code == 0


def test_who_waits_for_a_thread_is_told_and_a_second_order_ends_it(corral: Corral) -> None:
    run_id = corral("start", "stubborn").id
    wait_until_it_runs(corral, run_id)
    with corral.running("interrupt", run_id, "--wait") as waiting:
        said = waiting.wait_for("--kill-after", on="err")
        assert f"1 task of run {run_id} still runs" in said
        assert corral("interrupt", run_id, "--kill-after", "0").code == 0
        done = waiting.done()
    assert done.code == 0
    assert "1 killed" in done.out


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "soon"])
def test_kill_after_is_a_number_of_seconds(corral: Corral, seconds: str) -> None:
    refused = corral("interrupt", "last", "--kill-after", seconds)
    assert (refused.code, refused.out) == (2, "")
    assert "--kill-after" in refused.err


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf])
async def test_the_client_takes_only_such_a_number_too(nats_url: str, namespace: str, seconds: float) -> None:
    async with Client(nats_url, namespace) as client:
        run = await client.start("nobody.serves.it", None)
        with pytest.raises(ValueError, match="number of seconds"):
            await run.interrupt(kill_after=seconds)
        assert (await run.status()).status == "queued"
