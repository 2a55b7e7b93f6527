"""Commands from outside, without workers: what they print, what they exit with, what they refuse."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from corral.client import Client
from tests.system.commands import CORRAL, Corral

RUN_FIELDS = [
    *("id", "topic", "status", "root", "unique", "total", "pending", "running", "retrying", "success", "error"),
    *("interrupted", "created_at", "started_at", "finished_at", "updated_at", "seq", "interrupted_by"),
    *("interrupt_reason", "topics"),
]
COUNTS = ["total", "pending", "running", "retrying", "success", "error", "interrupted"]
COMMANDS = [
    "start",
    "runs",
    "show",
    "errors",
    "events",
    "topics",
    "workers",
    "interrupt",
    "retry",
    "drain",
    "stop",
    "verify",
    "doctor",
    "env",
]
SERVING = ["demo", "up", "server", "pool", "tui"]


@pytest.fixture
def corral(tmp_path: Path, nats_url: str, namespace: str) -> Corral:
    return Corral(tmp_path, {"NATS_URL": nats_url, "CORRAL_NAMESPACE": namespace})


# --- help ---------------------------------------------------------------------------------------------


def test_help_lists_every_command_and_the_first_steps(corral: Corral) -> None:
    shown = corral("--help")
    assert shown.code == 0
    assert not shown.err
    for command in (*COMMANDS, *SERVING):
        assert f"\n  {command} " in shown.out
    assert "corral demo" in shown.out


@pytest.mark.parametrize("command", [*COMMANDS, *SERVING])
def test_help_of_a_command_has_examples(corral: Corral, command: str) -> None:
    shown = corral(command, "--help")
    assert shown.code == 0
    assert not shown.err
    assert f"Usage: corral {command}" in shown.out
    assert "Examples:\n" in shown.out
    assert f"corral {command}" in shown.out.partition("Examples:\n")[2]


def test_version(corral: Corral) -> None:
    shown = corral("--version")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith("corral ")


# --- start, and what it stores --------------------------------------------------------------------------


def test_start_prints_the_id_and_nothing_else(corral: Corral) -> None:
    started = corral("start", "some.topic", '{"a": 1}')
    assert started.code == 0
    assert started.err == ""
    assert corral("show", started.id, "--json").json["id"] == started.id


def test_a_run_as_json(corral: Corral) -> None:
    started = corral("start", "some.topic", "--unique", "a key / with spaces", "--json").json
    assert list(started) == RUN_FIELDS
    assert list(started["topics"]) == ["some.topic"]
    assert list(started["topics"]["some.topic"]) == COUNTS
    assert started["created_at"].endswith("Z")
    facts = {name: started[name] for name in ("topic", "status", "root", "unique", "total", "pending", "seq")}
    assert facts == {
        "topic": "some.topic",
        "status": "queued",
        "root": "pending",
        "unique": "a key / with spaces",
        "total": 1,
        "pending": 1,
        "seq": 0,
    }
    assert corral("show", "last", "--json").json == started
    assert corral("runs", "--json").json == [started]


@pytest.mark.parametrize(
    ("given", "stdin", "stored"),
    [
        (['{"a": [1, 2.50, "ä"]}'], b"", '{"a":[1,2.50,"ä"]}'),
        (["-"], b' "from standard input"\n', '"from standard input"'),
        (["-"], b'\xef\xbb\xbf{"marked": true}', '{"marked":true}'),
        (["@message.json"], b"", '{"from":"a file"}'),
        (["7"], b"", "7"),
        (["12345678901234567890123"], b"", "12345678901234567890123"),
        ([], b"", "null"),
    ],
)
async def test_a_message_comes_from_anywhere(corral: Corral, given: list[str], stdin: bytes, stored: str) -> None:
    (corral.folder / "message.json").write_text('{\n  "from": "a file"\n}\n')
    started = corral("start", "t", *given, stdin=stdin)
    assert started.code == 0, started.err
    async with Client(corral.environment["NATS_URL"], corral.environment["CORRAL_NAMESPACE"]) as client:
        assert bytes((await client.operations.record(started.id)).body).decode() == stored


@pytest.mark.parametrize("given", ["", "{", "{'a': 1}", "text", "[1,]", "NaN", "-", "@nowhere.json", "@.", "@", "@bad"])
def test_a_message_that_is_not_json_is_refused(corral: Corral, given: str) -> None:
    (corral.folder / "bad").write_bytes(b'"\xff"')
    refused = corral("start", "t", "--", given)
    assert refused.code == 2
    assert refused.out == ""
    assert refused.err.startswith("Error: ")
    assert corral("runs", "--json").json == []


def test_a_message_that_is_nested_too_deep_is_refused(corral: Corral) -> None:
    assert corral("start", "t", "-", stdin=b"[" * 100_000).code == 2


def test_a_message_over_the_servers_limit_is_refused(corral: Corral) -> None:
    refused = corral("start", "t", "-", stdin=json.dumps("x" * 2_000_000).encode())
    assert refused.code == 2
    assert "limit" in refused.err
    assert corral("runs", "--json").json == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["start"],
        ["start", "Capital"],
        ["start", "a..b"],
        ["start", "*"],
        ["start", "a" * 129],
        ["start", "t", "--id", "a.b"],
        ["start", "t", "--unique", ""],
        ["start", "t", "--unique", "x" * 1025],
        ["start", "t", "--on-duplicate", "queue"],
        ["start", "t", "--timeout", "1"],
        ["start", "t", "1", "2"],
        ["show"],
        ["show", "nothing-like-it"],
        ["show", "a b"],
        ["show", "last"],
        ["errors", "last"],
        ["events", ">"],
        ["verify", "last"],
        ["interrupt"],
        ["interrupt", "last"],
        ["interrupt", "nothing-like-it", "--wait"],
        ["runs", "--status", "done"],
        ["runs", "--limit", "0"],
        ["runs", "--topic", "a b"],
        ["runs", "-n", "a.b"],
        ["runs", "-n", ""],
        ["runs", "-s", ""],
        ["runs", "-s", "http://localhost"],
        ["runs", "-s", "nats://localhost:port"],
        ["runs", "extra"],
        ["runs", "--unknown"],
        ["--json", "runs"],
        ["nonsense"],
        ["tui"],
        ["pool"],
        ["pool", "nowhere.py"],
        ["pool", "nowhere"],
        ["up", "nowhere.py"],
        ["demo", "nowhere"],
        ["demo", "empty"],
    ],
    ids=" ".join,
)
def test_bad_usage(corral: Corral, arguments: list[str]) -> None:
    (corral.folder / "empty" / "below").mkdir(parents=True)
    refused = corral(*arguments)
    assert refused.code == 2, refused
    assert refused.out == ""
    assert "Error: " in refused.err
    assert not corral.home.exists() or arguments[0] == "up"


def test_a_setting_that_is_no_number_is_refused(corral: Corral) -> None:
    refused = corral("runs", CORRAL_ACK_WAIT="soon", CORRAL_NAMESPACE="other")
    assert refused.code == 2
    assert "'ack_wait=soon' is not a setting: Expected `float`" in refused.err


def test_the_same_id_is_the_same_run_if_the_message_is(corral: Corral) -> None:
    assert corral("start", "t", '{"a":1}', "--id", "mine").id == "mine"
    assert corral("start", "t", '{ "a": 1 }', "--id", "mine").id == "mine"
    refused = corral("start", "t", '{"a":2}', "--id", "mine")
    assert (refused.code, refused.out) == (2, "")
    assert len(corral("runs", "--json").json) == 1


# --- unique keys ------------------------------------------------------------------------------------------


def test_a_held_key_refuses_and_names_the_holder(corral: Corral) -> None:
    holder = corral("start", "t", "--unique", "key").id
    refused = corral("start", "other", "--unique", "key")
    assert (refused.code, refused.out) == (3, "")
    assert holder in refused.err
    as_json = corral("start", "t", "--unique", "key", "--json")
    assert as_json.code == 3
    assert as_json.json == {"error": "duplicate_run", "unique": "key", "run": holder}
    assert [run["id"] for run in corral("runs", "--json").json] == [holder]


def test_a_start_can_join_the_holder(corral: Corral) -> None:
    holder = corral("start", "t", "--unique", "key").id
    assert corral("start", "t", "--unique", "key", "--on-duplicate", "join").id == holder


def test_a_template_that_a_pool_published_refuses_early(corral: Corral) -> None:
    (corral.folder / "app.py").write_text(
        "import asyncio\nfrom corral import App\napp = App()\n"
        "@app.processor('keyed', unique='{shop}/{number}')\n"
        "async def keyed(message: dict) -> None:\n    await asyncio.Event().wait()\n"
    )
    with corral.running("pool", "app.py", "-p", "1") as pool:
        pool.wait_for("at work", on="err")
        holder = corral("start", "keyed", '{"shop": "a", "number": 7}', "--json").json
        assert holder["unique"] == "a/7"
        assert corral("start", "keyed", '{"number": 7, "shop": "a"}').code == 3
        assert corral("start", "keyed", '{"shop": "a", "number": 8}').code == 0
        assert corral("start", "keyed", '{"wrong": "shape"}').code == 0


# --- looking ------------------------------------------------------------------------------------------------


def test_runs_are_listed_newest_first_and_can_be_picked(corral: Corral) -> None:
    ids = [corral("start", topic).id for topic in ("a", "b", "a")]
    assert [run["id"] for run in corral("runs", "--json").json] == ids[::-1]
    assert [run["id"] for run in corral("runs", "--json", "--limit", "1").json] == ids[-1:]
    assert [run["id"] for run in corral("runs", "--json", "--topic", "b").json] == [ids[1]]
    assert corral("runs", "--json", "--status", "success").json == []
    table = corral("runs").out.splitlines()
    assert table[0].split()[:3] == ["RUN", "TOPIC", "STATUS"]
    assert [line.split()[0] for line in table[1:]] == ids[::-1]


def test_an_empty_list_is_said_on_standard_error(corral: Corral) -> None:
    for command in ("runs", "topics", "workers"):
        shown = corral(command)
        assert (shown.code, shown.out) == (0, "")
        assert shown.err
        as_json = corral(command, "--json")
        assert (as_json.code, as_json.json, as_json.err) == (0, [], "")


def test_a_run_is_named_by_the_beginning_of_its_id(corral: Corral) -> None:
    corral("start", "t", "--id", "abcd-1")
    corral("start", "t", "--id", "abxy-2")
    assert corral("show", "abc", "--json").json["id"] == "abcd-1"
    ambiguous = corral("show", "ab")
    assert ambiguous.code == 2
    assert "abcd-1" in ambiguous.err
    assert "abxy-2" in ambiguous.err


def test_a_topic_that_nobody_serves_has_no_workers(corral: Corral) -> None:
    corral("start", "lonely")
    assert corral("topics", "--json").json == [{"topic": "lonely", "pending": 1, "running": 0, "workers": 0}]
    assert "Nobody serves 'lonely'" in corral("topics").err


def test_what_was_never_counted_verifies(corral: Corral) -> None:
    started = corral("start", "t").id
    verdict = corral("verify", started, "--json")
    assert verdict.code == 0
    assert list(verdict.json)[:6] == ["run", "ok", "events", "seq", "counted", "recorded"]
    assert verdict.json["counted"] == verdict.json["recorded"]
    assert verdict.json["counted"]["pending"] == verdict.json["queued"] == 1


def test_text_cannot_move_the_terminals_cursor(corral: Corral) -> None:
    corral("start", "t", "--unique", "red \x1b[31m\nnext\x07 line")
    for shown in (corral("runs"), corral("show", "last")):
        assert "\x1b" not in shown.out
        assert "\x07" not in shown.out
        assert "\\x1b[31m\\nnext\\x07 line" in shown.out
    assert corral("show", "last", "--json").json["unique"] == "red \x1b[31m\nnext\x07 line"


# --- waiting, and not waiting any longer --------------------------------------------------------------------


def test_a_timeout_is_not_an_outcome(corral: Corral) -> None:
    waited = corral("start", "t", "--wait", "--timeout", "0.5")
    assert waited.code == 6
    as_json = corral("start", "t", "--wait", "--timeout", "0.5", "--json")
    assert as_json.code == 6
    assert as_json.json["status"] == "queued"
    for command in (
        ["show", waited.id, "--follow"],
        ["events", waited.id, "--follow"],
        ["interrupt", "last", "--wait"],
    ):
        assert corral(*command, "--timeout", "0.5").code == 6


@pytest.mark.parametrize("command", [["start", "t", "--wait"], ["show", "mine", "--follow"], ["runs", "--follow"]])
def test_ctrl_c_leaves_the_run_alone(corral: Corral, command: list[str]) -> None:
    corral("start", "t", "--id", "mine")
    with corral.running(*command) as watching:
        watching.wait_for("\n")
        watching.signal(signal.SIGINT)
        assert watching.done().code == 130
    assert all(run["status"] == "queued" for run in corral("runs", "--json").json)


def test_changes_are_followed_a_line_each(corral: Corral) -> None:
    first = corral("start", "t").id
    with corral.running("runs", "--follow", "--json") as following:
        following.wait_for(first)
        second = corral("start", "t").id
        lines = [json.loads(line) for line in following.wait_for(second).splitlines()]
    assert [line["id"] for line in lines] == [first, second]
    assert all(list(line) == RUN_FIELDS for line in lines)


@pytest.mark.parametrize("command", ["runs --follow --json", "show last --follow", "runs"])
def test_a_reader_that_goes_away_is_no_failure(corral: Corral, command: str) -> None:
    for _ in range(2):
        corral("start", "t", "--unique", "x" * 1000, "--on-duplicate", "join")
    done = corral.in_bash(f"'{CORRAL}' {command} | true; exit ${{PIPESTATUS[0]}}")
    assert (done.code, done.err) == (141, "")


def test_closed_or_full_outputs_are_no_mistake_of_ours(corral: Corral) -> None:
    assert corral.in_bash(f"'{CORRAL}' start t '{{}}' --id mine >&-").code == 0
    assert corral.in_bash(f"'{CORRAL}' start t - <&-").code == 2
    full = corral.in_bash(f"'{CORRAL}' runs --json > /dev/full")
    assert (full.code, full.err) == (74, "Error: standard output cannot be written: No space left on device.\n")
    for helping in ("--help", "runs --help"):
        assert corral.in_bash(f"'{CORRAL}' {helping} > /dev/full") == full
    assert corral.in_bash(f"'{CORRAL}' --help | true; exit ${{PIPESTATUS[0]}}").code in (0, 141)
    assert [run["id"] for run in corral("runs", "--json").json] == ["mine"]
    mute = corral.in_bash(f"'{CORRAL}' run nobody --json 2> /dev/full")
    assert (mute.code, mute.out, mute.err) == (74, "", "")


# --- the server -----------------------------------------------------------------------------------------------


def test_no_server_says_what_was_tried_and_what_helps(tmp_path: Path) -> None:
    corral = Corral(tmp_path)
    refused = corral("runs", "--json")
    assert (refused.code, refused.out) == (4, "")
    assert "NATS_URL" in refused.err
    assert str(corral.home) in refused.err
    assert "corral up" in refused.err
    assert "corral server" in refused.err
    elsewhere = corral("runs", "--server", "nats://someone:secret@127.0.0.1:1")
    assert elsewhere.code == 4
    assert "127.0.0.1:1" in elsewhere.err
    assert "--server" in elsewhere.err
    assert "secret" not in elsewhere.err
    assert "NATS_URL" in corral("runs", NATS_URL="nats://127.0.0.1:1").err


def test_no_permission(tmp_path: Path, server_process: Callable[..., object]) -> None:
    corral = Corral(tmp_path)
    url = server_process(extra='authorization { user: "a", password: "b" }').url  # type: ignore[attr-defined]
    assert corral("runs", "-s", url).code == 4
    assert corral("runs", "-s", url.replace("://", "://a:wrong@")).code == 4
    assert corral("runs", "-s", url.replace("://", "://a:b@")).code == 0


def test_env_says_what_is_used_and_why(tmp_path: Path) -> None:
    corral = Corral(tmp_path)
    nothing = corral("env", "--json")
    assert nothing.code == 0
    assert nothing.json["server"] is None
    assert len(nothing.json["tried"]) == 2
    assert not corral.home.exists()
    given = corral("env", "--json", "-n", "mine", NATS_URL="nats://me:hidden@host:4222").json
    assert (given["server"], given["server_from"]) == ("nats://me:***@host:4222", "NATS_URL")
    assert (given["namespace"], given["namespace_from"]) == ("mine", "--namespace")
    assert (given["home"], given["home_from"]) == (str(corral.home), "CORRAL_HOME")
    shown = corral("env", "--show-secret", "-s", "nats://token@host", CORRAL_NAMESPACE="theirs")
    assert "nats://token@host" in shown.out
    assert "theirs  (CORRAL_NAMESPACE)" in shown.out
    assert "hidden" not in corral("env", NATS_URL="nats://me:hidden@host:4222").out
