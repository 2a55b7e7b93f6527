"""What others store and send, and what users type, as an attacker would: an error that says so, or nothing at all."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
import pytest

from corral.client import Client
from corral.errors import BadMessage, BadName, CorralError
from corral.events import Ended, Ends, Interrupted, Opened, RunEnded, Sent, encode_event
from corral.messages import body_limit
from corral.runs import Beat, Marker, Record, encode, plain
from corral.subjects import Names
from corral_tui.feed import Feed
from tests.system.apps.outcomes import Typed
from tests.system.attacker import Attacker
from tests.system.commands import Corral
from tests.system.pools import System
from tests.system.stage import within
from tests.unit.mutants import BOMBS

WILD = ["*", ">", "a.b", "no\x0btext", "\u202eabc", "nul\0", "x" * 300]
NOT_TEXT = b"\xff\xed\xa0\x80"


def small_bombs() -> list[bytes]:
    """Each kind of them, within what the server takes; arrays of 100,000 levels are 200 kB."""
    return [bomb for bomb in BOMBS.values() if len(bomb) < 900_000]


def forged_events(attacker: Attacker, names: Names, run: bytes) -> None:
    """Events of a run, on subjects where they belong and where they do not."""
    base = names.namespace.encode() + b".event."
    events = [
        Opened(parent=(0, 0), nonce="n"),
        Sent(batch=7, first=0, count=5, topics=["a", "*"], layout="01010"),
        Ended("w", 2**63 - 1, tasks=[Ends("*", 0, 0, "success", [(0, 1)])], durations=[(1000, 2**53)] * 50),
        Interrupted(0, "me", "x" * 10_000),
        RunEnded(0, interrupted=True, status="\u202e"),
    ]
    for event in events:
        for kind in (b"ended", b"dispatch.0-0", b"dispatch", b"interrupted", b"new.kind", NOT_TEXT):
            attacker.publish(base + run + b"." + kind, encode_event(event))
    for bomb in small_bombs():
        attacker.publish(base + run + b".ended", bomb)
    attacker.publish(base + run, b"{}")
    attacker.publish(base + run + b".ended", b"{}", headers=b"NATS/1.0\r\n\xff: \xff\r\n\r\n")
    attacker.publish(base + run + b".ended", headers=b"NATS/1.0 404 none\r\nStatus: 503\r\n\r\n")
    attacker.publish(base + run + b".ended", b"x", headers=b"NATS")


def forged_keys(attacker: Attacker, names: Names, run: str | bytes) -> None:
    """Records, markers, keys, checkpoints and topics of a run that is none."""
    name = run.encode() if isinstance(run, str) else run
    base = f"$KV.{names.bucket}.".encode()
    record = Record(
        id="victim", topic="typed", body=msgspec.Raw(b"[" * 900 + b"]" * 900), state="running", created_at=1e300
    )
    for kind in (b"run.", b"interrupt.", b"unique.", b"topic.", b"ledger.run.", b"ledger.part.", b"what."):
        for data in (*small_bombs(), encode(record), encode(Marker(kind="stop", round=2**62)), NOT_TEXT):
            attacker.publish(base + kind + name, data)


def forged_messages(attacker: Attacker, names: Names, worker: bytes) -> None:
    """Heartbeats and questions, with replies to where they should not go."""
    base = names.namespace.encode()
    beat = Beat(
        id="forged", pool="p", host="h" * 5000, pid=2**62, topics=["*"] * 50, slots=9, started_at=1e300, version="\0"
    )
    for data in (*small_bombs(), encode(beat), NOT_TEXT):
        attacker.publish(base + b".beat." + worker, data, reply=NOT_TEXT)
        for what in (b"ask", b"beat", b"leave", b"start", b"status", NOT_TEXT):
            attacker.publish(base + b".control." + what, data, reply=b"nowhere.*")
            attacker.publish(base + b".control." + what, data)
    for run in ("*", "a b", "\0", "", "x" * 10_000):
        question = msgspec.json.encode([[run, [2**62, -(2**62)], 2**62], [run, [0, 0], 0]])
        attacker.publish(base + b".control.ask", question, reply=b"nowhere")
        status = msgspec.json.encode({"run": run})
        attacker.publish(base + b".control.status", status, reply=b"nowhere")
        start = msgspec.json.encode({"topic": run, "body": [1], "id": run, "unique": run})
        attacker.publish(base + b".control.start", start, reply=b"nowhere")


def forged_tasks(attacker: Attacker, names: Names, run: bytes) -> None:
    """Tasks of a run that is none, for topics that are served and for what is no topic."""
    base = names.namespace.encode() + b".task."
    for data in (
        *small_bombs(),
        b'{"task":[0,0],"body":1}',
        b'{"task":[5,5],"body":"\xff"}',
        b'{"task":[-1,0],"body":1}',
    ):
        for topic in (b"typed", b"*", b"nobody.serves.this", NOT_TEXT):
            attacker.publish(base + run + b"." + topic, data)
    attacker.publish(base + run, b"{}")


async def test_what_is_forged_ends_nothing_and_nobody(system: System) -> None:
    await system.pool("outcomes", slots=5)
    client = await system.client()
    names, before = Names(system.settings.namespace), await system.bookkeeper()
    workers = set(system.beats)
    feed = Feed(system.url, system.settings.namespace)
    feed.start()
    async with Attacker(system.url) as attacker:
        for name in [*(name.encode() for name in WILD), NOT_TEXT]:
            forged_events(attacker, names, name)
            forged_keys(attacker, names, name)
            forged_messages(attacker, names, name)
            forged_tasks(attacker, names, name)
            await attacker.done()
        run = await client.start("typed", Typed(1), unique="key")
        forged_tasks(attacker, names, b"*")
        await attacker.done()
    status = (await system.audit(run)).status
    assert (status.status, status.success) == ("success", 1)
    second = await client.start("dispatch.flaky", {"times": 0}, unique="key")
    assert (await system.audit(second)).status.status == "success"
    assert {each.id for each in await client.runs()} == {run.id, second.id}
    assert {topic.topic for topic in await client.topics()} >= {"typed"}
    assert workers <= {worker.id for worker in await client.workers()}
    assert (await system.bookkeeper(), workers <= set(system.beats)) == (before, True)
    feed.stop()
    assert feed.failure is None


async def test_who_comes_after_a_flood_of_forgeries_begins_all_the_same(system: System) -> None:
    client = await system.client()
    names = Names(system.settings.namespace)
    run = await client.start("typed", Typed(1), id="early")
    async with Attacker(system.url) as attacker:
        for name in [*(name.encode() for name in WILD), NOT_TEXT]:
            forged_events(attacker, names, name)
            forged_keys(attacker, names, name)
        await attacker.done()
    await system.pool("outcomes")
    assert (await system.audit(run)).status.status == "success"
    assert [each.id for each in await client.runs()] == ["early"]


async def test_a_run_ends_although_much_is_forged_in_its_name(system: System) -> None:
    await system.pool("crashes")
    client = await system.client()
    names = Names(system.settings.namespace)
    run = await client.start("works", 1)
    working = await system.stage.arrival("working")
    async with Attacker(system.url) as attacker:
        base = f"{names.namespace}.task.{run.id}.".encode()
        for topic in (b"*", b"UPPER", b"nobody", NOT_TEXT, b"x" * 300, b"a.>", b"works"):
            for _ in range(60 if topic == b"*" else 3):
                attacker.publish(base + topic, b'{"task":[99,0],"body":1}')
        for bomb in small_bombs():
            attacker.publish(f"{names.namespace}.event.{run.id}.ended", bomb)
            attacker.publish(f"{names.namespace}.event.{run.id}.dispatch.0-0", bomb)
            attacker.publish(f"$KV.{names.bucket}.interrupt.{run.id}", bomb)
        attacker.publish(f"{names.namespace}.event.{run.id}.run-ended", b'{"type":"ended","worker":"w","number":1}')
        attacker.publish(f"{names.namespace}.event.{run.id}.ended", encode_event(RunEnded(0, interrupted=True)))
        await attacker.done()
    working.answer()
    system.stage.open("working")  # a forged task of a topic that is served is executed, and counts nowhere
    status = (await system.audit(run)).status
    assert (status.status, status.success) == ("success", 1)
    assert [error async for error in client.errors(run.id)] == []
    assert [event async for event in client.events(run.id, follow=True)]


async def test_a_body_that_is_no_text_fails_its_task_and_can_be_shown(system: System) -> None:
    """A program that is not ours stores what it likes in the place of a body."""
    await system.pool("outcomes")
    client = await system.client()
    names = Names(system.settings.namespace)
    for number, body in enumerate(
        (b'{"n":"\xff"}', b'{"n":1e999}', b'{"n":' + b"9" * 5_000 + b"}", b'{"n":1,"n":"x"}')
    ):
        run_id = f"odd{number}"
        record = Record(id=run_id, topic="typed", body=msgspec.Raw(body), state="queued", created_at=1.0)
        await client.operations.records.create(f"run.{run_id}", encode(record))
        await client.connection.publish(names.task(run_id, "typed"), b'{"task":[0,0],"body":%b}' % body)
        status = (await system.audit(client.run(run_id))).status
        assert (status.status, status.error) == ("failed", 1)
        (error,) = [error async for error in client.errors(run_id)]
        assert bytes(error.body) == body
        assert msgspec.json.encode(plain(error))
    shown = Corral(system.folder)("errors", "odd0", "-s", system.url, "-n", names.namespace, "--json")
    assert (shown.code, len(shown.json)) == (0, 1)


async def test_a_body_that_no_client_would_send_fails_its_task_again_and_again(system: System) -> None:
    await system.pool("outcomes")
    client = await system.client()
    names = Names(system.settings.namespace)
    limit = client.connection.max_payload
    deep, large = BOMBS["arrays"], b'"%b"' % (b"x" * (limit - 100))
    for number, (body, why) in enumerate(((deep, "levels"), (b"[" * 201 + b"]" * 201, "levels"), (large, "limit"))):
        run_id = f"big{number}"
        record = Record(id=run_id, topic="typed", body=msgspec.Raw(b"1"), state="queued", created_at=1.0)
        await client.operations.records.create(f"run.{run_id}", encode(record))
        await client.connection.publish(names.task(run_id, "typed"), b'{"body":%b,"task":[0,0]}' % body)
        run = client.run(run_id)
        assert (await system.audit(run)).status.error == 1
        (error,) = [error async for error in client.errors(run_id)]
        assert (error.type, why in error.message) == ("BadMessage", True)
        assert await run.retry() == 1
        assert (await system.audit(run)).status.error == 1


# --- what is given to the clients ----------------------------------------------------------------------

BAD_NAMES: list[str] = [
    *("", "*", ">", "a.*", "a.>", ".", "a.", ".a", "a..b", "a b", "a\tb", "a\nb", "a\r\nPUB x 0\r\n\r\n", "a\0b", "é"),
    *("\u202e", "\ud800", "\U0001f600", "a\u2003b", "$JS.API.STREAM.DELETE.x", "../a", "x" * 10_000, "A B", "a\x85"),
]
BODIES: list[object] = [
    object(), {1, object()}, "\ud800", {"\ud800": 1}, {"a": "\udfff"}, "x" * (1 << 20), [[]] * 600_000, 1 << 70_000,
    print, type, b"\xff" * (1 << 20),
]  # fmt: skip


async def stored(client: Client) -> list[int]:
    """How much was ever stored in each stream of the namespace."""
    names = client.operations.names
    streams = (names.tasks_stream, names.events_stream, names.bucket_stream)
    return [(await client.connection.api(f"STREAM.INFO.{stream}"))["state"]["last_seq"] for stream in streams]


async def test_names_that_are_none_are_refused_and_nothing_is_stored(system: System) -> None:
    client = await system.client()
    before = await stored(client)
    for name in BAD_NAMES:
        for call in (
            lambda name=name: client.start(name, 1),
            lambda name=name: client.start_raw(name, b"1"),
            lambda name=name: client.start("typed", 1, id=name),
            lambda name=name: client.run(name).status(),
            lambda name=name: client.find(name),
            lambda name=name: client.interrupt(name),
            lambda name=name: client.run(name).retry(),
            lambda name=name: client.receipt(name),
            lambda name=name: client.queued(name),
        ):
            with pytest.raises(BadName) as refused:
                await call()
            assert len(str(refused.value)) < 400
        for reading in (client.errors(name), client.events(name)):
            with pytest.raises(BadName):
                _ = [each async for each in reading]
        for namespace in (name,):
            with pytest.raises(BadName):
                Client(system.url, namespace)
    for key in ("", "\ud800", "x" * 1025, "é" * 513, 7, None.__class__):
        with pytest.raises(BadName):
            await client.start("typed", 1, unique=key)  # type: ignore[arg-type]  # not every user has mypy
    assert await stored(client) == before


async def test_messages_that_cannot_be_sent_are_refused_and_nothing_is_stored(system: System) -> None:
    client = await system.client()
    before = await stored(client)
    for body in BODIES:
        with pytest.raises(BadMessage):
            await client.start("typed", body)
    deep: list[object] = []
    for _ in range(5_000):
        deep = [deep]
    for message in (deep, {"a": deep}):
        with pytest.raises(BadMessage):
            await client.start("typed", message)
    for raw in BOMBS.values():
        with contextlib.suppress(BadMessage):
            run = await client.start_raw("typed", raw)
            assert (await client.run(run.id).status()).status == "queued"
            before = await stored(client)
    assert await stored(client) == before


async def test_keys_and_reasons_of_any_text_are_kept_as_they_are(system: System) -> None:
    await system.pool("outcomes")
    client = await system.client()
    for key in ("*", ">", "a b", "\n", "\0", "\u202e", "\U0001f600", "$KV", "x" * 1024, "é" * 512, "../..", "' OR 1=1"):
        run = await client.start("typed", Typed(1), unique=key)
        assert (await run.status()).unique == key
        await run.interrupt(reason=key * 3)
        await system.end(run)
        assert await client.holder(key) is None


@pytest.mark.parametrize("reason", ["\ud800", "x" * 3_000_000])
async def test_a_reason_that_cannot_be_stored_is_an_error_and_the_run_goes_on(system: System, reason: str) -> None:
    client = await system.client()
    run = await client.start("typed", Typed(1))
    with pytest.raises(CorralError):
        await run.interrupt(reason=reason)
    assert (await run.status()).status == "queued"


async def test_the_longest_body_key_and_reason_fit_into_a_record_together(system: System) -> None:
    await system.pool("outcomes")
    client = await system.client()
    body = b'"' + b"x" * (body_limit(client.connection.max_payload) - 2) + b'"'
    run = await client.start_raw("t" * 128, body, unique="\0" * 1024, id="i" * 64)
    with pytest.raises(BadMessage):
        await client.start_raw("t" * 128, body + b" ")
    receipt = await within(run.interrupt("\0" * 4096, wait=True), "the receipt")
    assert receipt is not None
    assert receipt.removed == 1
    assert (await system.audit(run)).status.interrupt_reason == "\0" * 4096


# --- what is typed --------------------------------------------------------------------------------------

SURROGATE = "\udcff"
"""What Python makes of a byte that is no text, and makes that byte of again."""


WRONG: list[tuple[list[str], dict[str, str]]] = [
    (["start", "--", SURROGATE, "1"], {}),
    (["start", "a", "@bomb"], {}),
    (["interrupt", "known", "--reason", SURROGATE], {}),
    (["show", "\x1b[2J"], {}),
    (["runs"], {"CORRAL_ACK_WAIT": SURROGATE}),
]


async def test_what_makes_no_sense_is_bad_usage_and_no_failure_of_ours(system: System) -> None:
    client = await system.client()
    await client.start("typed", Typed(1), id="known")
    before = await stored(client)
    (system.folder / "bomb").write_bytes(BOMBS["arrays"])
    corral = Corral(system.folder, {"NATS_URL": system.url, "CORRAL_NAMESPACE": system.settings.namespace})
    for arguments, environment in WRONG:
        done = await asyncio.to_thread(corral, *arguments, **environment)  # type: ignore[arg-type]  # no `stdin` in it
        assert (done.code, done.out) == (2, ""), arguments
        assert "\x1b" not in done.err
    assert await stored(client) == before


async def test_an_environment_that_is_no_text_does_no_harm(system: System) -> None:
    client = await system.client()
    run = await client.start("typed", Typed(1))
    corral = Corral(system.folder, {"NATS_URL": system.url, "CORRAL_NAMESPACE": system.settings.namespace})
    odd = {"LOGNAME": SURROGATE, "USER": SURROGATE, "CORRAL_HOME": f"~nobody{SURROGATE}", "TERM": SURROGATE}
    assert corral("interrupt", run.id, **odd).code == 0  # type: ignore[arg-type]  # no `stdin` in it
    assert corral("env", **odd).code == 0  # type: ignore[arg-type]
