"""Why nothing moves, of systems that do not move for the reason in question."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from corral import __version__
from corral.checkup import Known, examine
from corral.credentials import Access
from corral.doctor import Facts, Finding, diagnose, wrong
from corral.errors import PermissionDenied, RunNotFound, StorageFull
from corral.jetstream.connection import Connection
from corral.messages import task_text
from corral.operations import Operations
from corral.runs import LONG, Execution, Record, encode
from corral.settings import Settings
from corral.subjects import LEADER_KEY, Names, run_key
from tests.servers import ServerProcess
from tests.system.commands import Corral
from tests.system.pools import System
from tests.system.secured import Secured
from tests.system.stage import standing_still, within


async def look(system: System, run_id: str | None = None, *, later: float = 0.0) -> tuple[Facts, dict[str, Finding]]:
    """The facts, and the findings by code; as if so many seconds had passed."""
    client = await system.client()
    facts = await examine(client.operations, version=__version__, run_id=run_id)
    found = diagnose(msgspec.structs.replace(facts, at=facts.at + later))
    print(*found, sep="\n")  # noqa: T201  # pytest shows it if the test has failed
    return facts, {finding.code: finding for finding in found}


async def test_a_system_that_works_is_told_with_its_numbers(system: System) -> None:
    await system.pool("stopping", workers=2)
    keeper = await system.bookkeeper()
    client = await system.client()
    await system.end(await client.start("crowd", {"n": 50, "topic": "quick"}))
    facts, found = await look(system)
    assert found == {}
    assert facts.bookkeeper is not None
    assert (facts.bookkeeper.pool, facts.bookkeeper.answers) == (keeper, True)
    assert [stream.kind for stream in facts.streams] == ["tasks", "events", "runs"]
    assert all(stream.limit > stream.bytes for stream in facts.streams)
    assert facts.streams[1].bytes > 0
    assert len(facts.workers or []) == 2
    assert facts.server_ahead is not None
    assert abs(facts.server_ahead) < 30


async def test_a_topic_without_workers_is_named_with_its_runs(system: System) -> None:
    await system.pool("stopping", topics="quick")
    client = await system.client()
    waits = await client.start("crowd", {"n": 1})
    _, found = await look(system)
    assert found["topic-unserved"].text == f"no worker serves topic crowd: 1 message of run {waits.id} waits"
    assert found["topic-unserved"].severity == "wrong"
    _, found = await look(system, waits.id)
    assert "topic-unserved" in found


async def test_without_any_worker_all_that_waits_is_counted(system: System) -> None:
    client = await system.client()
    await client.start("quick", 1)
    _, found = await look(system)
    assert found["no-workers"].text == "no worker is heard: 1 message of 1 run waits"
    assert found["no-bookkeeper"].severity == "wrong"


async def test_tasks_in_back_off_are_told_with_the_time_of_the_next_attempt(system: System) -> None:
    await system.pool("stopping")
    client = await system.client()
    run = await client.start("backs.off", 1)
    await system.reached(run, lambda status: status.retrying == 1, "a back-off")
    facts, found = await look(system, run.id)
    assert "1 task, waits for its next attempt; the first is due at" in found["backing-off"].text
    due = facts.runs[0].next_attempt
    assert due is not None
    assert 3000 < due - time.time() < 3700
    assert "tasks-held" not in (await look(system))[1]


async def test_a_held_key_is_told_with_its_run_and_since_when(system: System) -> None:
    client = await system.client()
    run = await client.start("plain", 1, unique="Product/7")
    _, found = await look(system)
    assert found["key-held"].text.startswith(f"run {run.id} (plain) holds the key 'Product/7' since 20")


async def test_what_a_run_waits_for_is_named_with_the_worker_that_executes_it(system: System) -> None:
    await system.pool("stopping", workers=2, slots=3)
    client = await system.client()
    run = await client.start("crowd", {"n": 2})
    arrived = await system.stage.arrivals("member", 2)

    def longest() -> list[tuple[str, str, Execution]]:
        found = [(beat.id, each) for beat in system.beats.values() for each in beat.longest]
        return [(worker, task_text(each.task), each) for worker, each in found]

    await system.until(lambda: len(longest()) == 2, "two tasks that are executed for longer than a second")
    assert {(each.run, each.topic) for _, _, each in longest()} == {(run.id, "member")}
    assert min(each.seconds for _, _, each in longest()) >= LONG
    await system.reached(run, lambda status: status.running == 2 and status.root == "success", "its record")
    facts, found = await look(system, run.id)
    assert "long-running" not in found  # so far it is no news
    slow = [
        msgspec.structs.replace(
            worker,
            beat=msgspec.structs.replace(
                worker.beat, longest=[msgspec.structs.replace(each, seconds=90.0) for each in worker.beat.longest]
            ),
        )
        for worker in facts.workers or []
    ]
    (told,) = [each for each in diagnose(msgspec.structs.replace(facts, workers=slow)) if each.code == "long-running"]
    assert f"all that is left of run {run.id} is being executed, 2 tasks; for longest" in told.text
    assert any(f"{task} of topic member, for 90 s, by worker {worker}" in told.text for worker, task, _ in longest())
    for_users = [each for worker in await client.workers() for each in worker.longest]
    assert {(each.run, each.topic) for each in for_users} == {(run.id, "member")}
    for arrival in arrived:
        arrival.answer()
    await system.end(run)
    await system.until(lambda: not longest(), "heartbeats without what has ended")


async def test_workers_that_are_full_are_told_with_what_they_do(system: System) -> None:
    await system.pool("stopping", slots=3)
    client = await system.client()
    run = await client.start("crowd", {"n": 9})
    arrived = await system.stage.arrivals("member", 3)
    await system.until(lambda: any(beat.busy == 3 for beat in system.beats.values()), "a full worker")
    await system.reached(run, lambda status: status.total == 9, "everything to be sent")
    _, found = await look(system)
    assert "all 3 of 3 slots are taken where topic member is served" in found["workers-full"].text
    assert f"(3 member of {run.id}): 6 messages wait" in found["workers-full"].text
    system.stage.open("member")
    for arrival in arrived:
        arrival.answer()
    await system.end(run)


async def test_a_blocked_loop_is_named_with_processor_and_task(system: System) -> None:
    await system.pool("alone")
    client = await system.client()
    run = await client.start("blocks", 1)
    blocking = await system.stage.arrival("blocks")
    await system.until(lambda: any(beat.blocked for beat in system.beats.values()), "a blocked loop")
    (beat,) = system.beats.values()
    _, found = await look(system)
    assert f"(pid {beat.pid} on {beat.host}) has been blocked for" in found["loop-blocked"].text
    assert f"by blocks (run {run.id}, task 0-0)" in found["loop-blocked"].text
    blocking.answer()
    await system.end(run)
    assert "loop-blocked" not in (await look(system))[1]


async def test_a_stopped_worker_is_missed_and_so_are_its_tasks(system: System) -> None:
    pool = await system.pool("stopping")
    client = await system.client()
    await client.start("member", 1)
    arrival = await system.stage.arrival("member")
    await system.until(lambda: any(beat.busy for beat in system.beats.values()), "a busy worker")
    os.kill(arrival.pid, signal.SIGSTOP)
    try:
        await within(standing_still(arrival.pid), "the worker's standstill")
        _, found = await look(system)
    finally:
        os.kill(arrival.pid, signal.SIGCONT)
    assert f"no worker is heard, although pool {pool.id} is up" in found["no-workers"].text
    assert "1 message of topic member was delivered to workers that are not heard" in found["tasks-held"].text


async def test_a_bookkeeper_that_is_gone_is_missed(system: System) -> None:
    pool = await system.pool("stopping")
    await system.bookkeeper()
    client = await system.client()
    run = await client.start("member", 1)
    await system.stage.arrival("member")
    pool.kill()

    async def expired() -> None:
        async for batch in client.operations.records.watch(LEADER_KEY):
            if batch[-1].operation is not None:
                return

    await within(expired(), "the end of the lease")
    _, found = await look(system)
    assert found["no-bookkeeper"].severity == "wrong"
    assert (await client.operations.record(run.id)).live


async def test_a_bookkeeper_that_does_not_answer_is_named(system: System) -> None:
    client = await system.client()
    await client.start("quick", 1)
    await client.operations.records.create(LEADER_KEY, b"ghost")
    _, found = await look(system)
    assert found["bookkeeper-silent"].text.startswith("pool ghost keeps the books and does not answer")
    assert found["bookkeeper-silent"].severity == "wrong"


async def test_a_full_queue_is_told_with_its_numbers(system: System) -> None:
    system.set(tasks_max_bytes=1_000_000)
    client = await system.client()

    async def fill() -> None:
        while True:
            await client.start("quick", "x" * 9_000)

    async def stuff() -> None:
        while True:
            await client.operations.publisher.store(client.operations.names.task("unknown", "quick"), b"x" * 9_000)

    with pytest.raises(StorageFull):
        await within(fill(), "a full queue")
    _, found = await look(system)
    assert "_TASKS has no room for new runs, " in found["starts-refused"].text
    assert "of 1.0 MB" in found["starts-refused"].text
    assert found["starts-refused"].severity == "wrong"
    with pytest.raises(StorageFull):
        await within(stuff(), "a queue without any room")
    facts, found = await look(system)
    assert "_TASKS is full, " in found["stream-full"].text
    assert facts.streams[0].share > 0.98


async def test_a_run_that_does_not_stop_names_the_worker_that_holds_it(system: System) -> None:
    await system.pool("stopping")
    client = await system.client()
    run = await client.start("thread", 1)
    arrival = await system.stage.arrival("thread")
    await run.interrupt()
    await system.until(lambda: any(run.id in beat.stopping for beat in system.beats.values()), "a worker that stops it")
    (beat,) = system.beats.values()
    assert "slow-interrupt" not in (await look(system))[1]
    _, found = await look(system, later=30)
    assert f"worker {beat.id} has not stopped all of it, 1 task still runs" in found["slow-interrupt"].text
    arrival.answer()
    await system.end(run)


async def test_a_start_that_was_left_half_way_is_told(system: System) -> None:
    client = await system.client()
    half = Record(
        id="half", topic="quick", body=msgspec.Raw(b"1"), state="starting", created_at=time.time(), unique="k"
    )
    await client.operations.records.create(run_key("half"), encode(half))
    assert "slow-starting" not in (await look(system))[1]
    assert "run half is half started" in (await look(system, later=30))[1]["slow-starting"].text
    assert "slow-starting" in (await look(system, "half", later=30))[1]


async def test_consumers_that_somebody_changed_paused_or_deleted_are_told(system: System) -> None:
    await system.pool("stopping", topics="quick,hang,member")
    client = await system.client()
    await system.end(await client.start("quick", 1))  # so that the worker has seen to its consumers
    names = client.operations.names
    stream = names.tasks_stream
    config = (await client.connection.api(f"CONSUMER.INFO.{stream}.quick"))["config"]
    changed = {**config, "max_deliver": 3}
    await client.connection.api(
        f"CONSUMER.CREATE.{stream}.quick.{config['filter_subject']}", {"stream_name": stream, "config": changed}
    )
    await client.connection.api(f"CONSUMER.PAUSE.{stream}.hang", {"pause_until": "2999-01-01T00:00:00Z"})
    facts, found = await look(system)
    assert "its max_deliver is 3 and should be -1" in found["consumer-misconfigured"].text
    assert "topic hang is paused for another" in found["topic-paused"].text
    gone = msgspec.structs.replace(facts.after, consumers={})
    assert "consumer-missing" in {each.code for each in diagnose(msgspec.structs.replace(facts, after=gone))}


async def test_messages_that_nobody_will_execute_are_told(system: System) -> None:
    client = await system.client()
    names = client.operations.names
    store = client.operations.publisher.store
    await store(names.task("unknown", "quick"), b'{"task":[0,0],"body":1}')
    await store(names.task("unknown", "quick"), b"no task")
    _, found = await look(system)
    assert found["leftover"].text.startswith("2 messages of run unknown, of which there is no record, lie in the queue")
    assert "1 message is no task that Corral can read (topic quick, run unknown, message 2" in found["poison"].text


async def test_who_keeps_few_records_says_as_much_of_leftovers(system: System) -> None:
    client = await system.client()
    await client.start("quick", 1, id="lives")
    ended = Record(id="ended", topic="quick", body=msgspec.Raw(b"1"), state="final", created_at=time.time())
    await client.operations.records.create(run_key("ended"), encode(ended))
    for run in ("ended", "unknown"):
        await client.operations.publisher.store(client.operations.names.task(run, "quick"), b'{"task":[0,0],"body":1}')
    every = await examine(client.operations, version=__version__)
    few = await examine(client.operations, version=__version__, known=Known([], []))
    assert every.ended == few.ended == {"ended": True, "unknown": False}


async def test_the_death_of_a_worker_is_told_with_its_reason(system: System) -> None:
    await system.pool("stopping")
    client = await system.client()
    run = await client.start("member", 1)
    arrival = await system.stage.arrival("member")
    os.kill(arrival.pid, signal.SIGKILL)
    await system.stage.arrival("member")
    _, found = await look(system, run.id)
    assert found["worker-died"].text.startswith(f"1 worker died while executing run {run.id}, the last one")
    assert "signal SIGKILL" in found["worker-died"].text


async def test_settings_that_pools_do_not_share_are_told(system: System) -> None:
    first = await system.pool("stopping", topics="quick")
    system.settings = msgspec.structs.replace(system.settings, reconcile=99.0)
    second = await system.pool("stopping", topics="quick")
    _, found = await look(system)
    assert found["settings-differ"].text.startswith("pools differ in the setting reconcile: ")
    assert f"99.0 in pool {second.id}" in found["settings-differ"].text
    assert f"the default in pool {first.id}" in found["settings-differ"].text


async def test_a_run_that_does_not_exist_is_an_error(system: System) -> None:
    with pytest.raises(RunNotFound):
        await look(system, "nobody")


async def test_a_viewer_sees_most_and_is_told_what_not(tmp_path: Path) -> None:
    secured = Secured(Corral(tmp_path))
    with secured.running(), secured.pool():
        async with secured.client("viewer") as viewer:
            facts = await examine(viewer.operations, version=__version__)
            assert {each.what for each in facts.unseen} >= {
                "whether the bookkeeper answers",
                "the limit of the account",
            }
            assert len(facts.workers or []) == 1
            assert facts.bookkeeper is not None
            assert facts.bookkeeper.pool
            assert not wrong(diagnose(facts))
        async with secured.client("producer") as producer:
            with pytest.raises(PermissionDenied):
                await examine(producer.operations, version=__version__)
        told = secured.corral("doctor", "--context", secured.context("viewer"), "--json")
        assert told.code == 0, told.err
        assert {each["severity"] for each in told.json["findings"]} <= {"unknown", "note"}
        refused = secured.corral("doctor", "--context", secured.context("producer"))
        assert refused.code == 4


# --- the command ---------------------------------------------------------------------------------------


@pytest.fixture
def corral(tmp_path: Path, nats_url: str, namespace: str) -> Corral:
    return Corral(tmp_path, {"NATS_URL": nats_url, "CORRAL_NAMESPACE": namespace})


async def test_the_command_changes_nothing(corral: Corral, nats_url: str) -> None:
    told = corral("doctor", "--json")
    assert (told.code, told.err) == (0, "")
    assert [finding["code"] for finding in told.json["findings"]] == ["nothing-here"]
    assert told.json["workers"] is None
    connection = await Connection.open([nats_url], name="test")
    streams = await connection.api("STREAM.NAMES", {"subject": Names(corral.environment["CORRAL_NAMESPACE"]).all_tasks})
    assert not streams["streams"]
    await connection.close()


def test_the_command_says_what_is_wrong_by_its_exit_code(corral: Corral) -> None:
    started = corral("start", "some.topic", "--unique", "a key")
    told = corral("doctor")
    assert told.code == 1
    assert "✗ wrong" in told.out
    assert "no worker is heard: 1 message of 1 run waits" in told.out
    assert "_EVENTS " in told.out
    document = corral("doctor", "last", "--json").json
    assert list(document) == [
        *("ok", "server", "namespace", "run", "at", "findings", "storage", "workers", "pools", "bookkeeper", "clock"),
    ]
    assert (document["ok"], document["run"], document["workers"]) == (False, started.id, 0)
    assert {tuple(finding) for finding in document["findings"]} == {("severity", "code", "about", "text", "help")}
    assert document["storage"][0]["messages"] == 1
    held = corral("doctor", "--unique", "a key", "--json").json
    assert held["run"] == started.id
    assert "key-held" in [finding["code"] for finding in held["findings"]]


def test_a_key_that_is_free_is_told_to_be(corral: Corral) -> None:
    corral("start", "some.topic")
    told = corral("doctor", "--unique", "a key")
    assert "The key 'a key' is free" in told.err


def test_an_unknown_run_and_a_server_that_is_not_there(corral: Corral) -> None:
    corral("start", "some.topic")
    assert corral("doctor", "nobody").code == 2
    assert corral("doctor", "last", "--unique", "k").code == 2
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        refused = corral("doctor", "-s", f"nats://127.0.0.1:{free.getsockname()[1]}", "--json")
    assert (refused.code, refused.out) == (4, "")
    assert "no server" in refused.err


def test_a_server_without_jetstream_is_named(corral: Corral, server_process: Callable[..., ServerProcess]) -> None:
    server = server_process(extra='accounts { A { users: [{user: "a", password: "b"}] } }')
    told = corral("doctor", "-s", server.url.replace("//", "//a:b@"), "--json")
    assert told.code == 1
    assert [finding["code"] for finding in json.loads(told.out)["findings"]] == ["jetstream-off"]


async def test_a_server_that_is_too_slow_to_answer_is_not_told_to_be_without_jetstream(
    server_process: Callable[..., ServerProcess],
) -> None:
    server = server_process()
    connection = await Connection.open(Access(urls=[server.url]), name="slow")
    operations = Operations(connection, Settings(), by="somebody")
    os.kill(server.pid, signal.SIGSTOP)
    try:
        found = diagnose(await examine(operations, version=__version__))
    finally:
        os.kill(server.pid, signal.SIGCONT)
        await operations.close()
        await connection.close()
    assert [finding.code for finding in found] == ["jetstream-slow"]
    assert "has not answered in time" in found[0].text
