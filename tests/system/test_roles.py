"""Role by action: what each may do on a secured server is done, and what it may not is refused, by name and at once."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from corral.client import Client
from corral.errors import ApiError, DuplicateRun, PermissionDenied, RunExists, RunNotFound
from corral.events import Interrupted, encode_event
from corral.jetstream.connection import Connection, Message
from corral.jetstream.publisher import Publisher
from corral.leaving import Leave, encode_leave
from corral.runs import Beat, Marker, encode
from corral_tui.feed import Feed
from tests.system.commands import Corral
from tests.system.secured import BUCKET, EVENTS, NAMES, ROLES, TASKS, Secured, api, refused
from tests.system.stage import within

pytestmark = pytest.mark.timeout(60)

KEY = NAMES.key
LONG = 50.0
"""Seconds that are waited for an answer: a refusal that is no answer would run into the test's time-out."""


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    secured = Secured(Corral(tmp_path_factory.mktemp("secured")))
    with secured.running():
        yield secured


@pytest.fixture
def pool(secured: Secured) -> Iterator[None]:
    with secured.pool():
        yield


@pytest.fixture
async def everybody(secured: Secured) -> AsyncIterator[dict[str, Connection]]:
    async with secured.everybody() as connections:
        yield connections


# --- the table ---------------------------------------------------------------------------------------

ALL_BUT_PRODUCERS = {"worker", "operator", "viewer"}
NOBODY: set[str] = set()
CALLS = [
    # looking
    (f"STREAM.INFO.{TASKS}", ALL_BUT_PRODUCERS),
    (f"STREAM.INFO.{EVENTS}", ALL_BUT_PRODUCERS),
    (f"CONSUMER.LIST.{TASKS}", ALL_BUT_PRODUCERS),
    (f"STREAM.MSG.GET.{BUCKET}", ALL_BUT_PRODUCERS),
    (f"DIRECT.GET.{BUCKET}", ALL_BUT_PRODUCERS),
    (f"DIRECT.GET.{BUCKET}.{KEY('run.some')}", ALL_BUT_PRODUCERS),
    (f"DIRECT.GET.{BUCKET}.{KEY('run.*')}", ALL_BUT_PRODUCERS),
    (f"DIRECT.GET.{EVENTS}", ALL_BUT_PRODUCERS),
    (f"DIRECT.GET.{EVENTS}.{NAMES.event('some', 'failed')}", ALL_BUT_PRODUCERS),
    (f"CONSUMER.CREATE.{EVENTS}.r1.{NAMES.all_events}", {"worker"}),
    (f"CONSUMER.CREATE.{EVENTS}.r1", NOBODY),
    (f"CONSUMER.CREATE.{BUCKET}.r1.{KEY('run.*')}", {"worker"}),
    # the messages in the queue
    (f"DIRECT.GET.{TASKS}", NOBODY),
    (f"DIRECT.GET.{TASKS}.{NAMES.task('some', 'one')}", NOBODY),
    (f"STREAM.MSG.GET.{TASKS}", {"operator"}),
    (f"CONSUMER.MSG.NEXT.{TASKS}.one", {"worker"}),
    (f"CONSUMER.INFO.{TASKS}.one", {"worker"}),
    (f"CONSUMER.CREATE.{TASKS}.one.{NAMES.task_filter('one')}", {"worker"}),
    (f"CONSUMER.CREATE.{TASKS}.one", NOBODY),
    # removing
    (f"STREAM.PURGE.{TASKS}", {"operator"}),
    (f"STREAM.MSG.DELETE.{TASKS}", {"operator"}),
    (f"CONSUMER.PAUSE.{TASKS}.one", {"operator"}),
    (f"STREAM.PURGE.{EVENTS}", NOBODY),
    (f"STREAM.PURGE.{BUCKET}", NOBODY),
    (f"STREAM.MSG.DELETE.{EVENTS}", NOBODY),
    (f"STREAM.MSG.DELETE.{BUCKET}", NOBODY),
    (f"CONSUMER.DELETE.{TASKS}.one", NOBODY),
    *((f"STREAM.{what}.{stream}", NOBODY) for what in ("DELETE", "UPDATE") for stream in (TASKS, EVENTS, BUCKET)),
    # the server
    ("STREAM.CREATE.OTHER", NOBODY),
    ("STREAM.LIST", NOBODY),
    ("STREAM.NAMES", NOBODY),
    ("STREAM.INFO.OTHER", NOBODY),
    ("INFO", NOBODY),
]
SUBJECTS = [
    (NAMES.control("start"), {"producer"}),
    (NAMES.control("status"), {"producer"}),
    (NAMES.control("ask"), {"worker"}),
    (NAMES.control("beat"), {"operator", "viewer"}),
    (NAMES.control("leave"), {"operator"}),
    (NAMES.control("other"), NOBODY),
    (NAMES.beat("w1"), {"worker"}),
    (NAMES.task("some", "no-such-topic"), {"worker", "operator"}),
    (NAMES.event("some", "ended"), {"worker"}),
    (NAMES.event("some", "failed"), {"worker"}),
    (NAMES.event("some", "crashed"), {"worker"}),
    (NAMES.dispatch_log("some", 0, 0), {"worker"}),
    (NAMES.event("some", "interrupted"), {"operator"}),
    (NAMES.event("some", "reopened"), {"operator"}),
    (NAMES.event("some", "run-ended"), NOBODY),
    (KEY("run.some"), {"worker", "operator"}),
    (KEY("unique.some"), {"worker", "operator"}),
    (KEY("interrupt.some"), {"operator"}),
    (KEY("topic.some"), {"worker"}),
    (KEY("ledger.anchor"), NOBODY),
    (KEY("leader"), NOBODY),
    (f"$JS.ACK.{TASKS}.one.1.1.1.1.1", {"worker"}),
    (f"$JS.ACK.{EVENTS}.one.1.1.1.1.1", NOBODY),
    ("other.task.some.one", NOBODY),
    ("$KV.other_RUNS.run.some", NOBODY),
    ("$SYS.REQ.SERVER.PING", NOBODY),
    ("anything", NOBODY),
    *((f"_INBOX_{role}.some", NOBODY) for role in ROLES),
    ("_INBOX.some", NOBODY),
]
HEARD = [
    (NAMES.all_beats, ALL_BUT_PRODUCERS),
    (NAMES.control("beat"), {"worker"}),
    (NAMES.control("leave"), {"worker"}),
    (NAMES.control("ask"), NOBODY),
    (NAMES.control("start"), NOBODY),
    (NAMES.control(">"), NOBODY),
    (NAMES.all_tasks, NOBODY),
    (NAMES.all_events, NOBODY),
    (KEY(">"), NOBODY),
    ("$JS.>", NOBODY),
    ("_INBOX.>", NOBODY),
    (">", NOBODY),
    *((f"_INBOX_{role}.>", {role}) for role in ROLES),
]


async def test_who_may_ask_jetstream_for_what(everybody: dict[str, Connection]) -> None:
    # The body is no request that is understood, so that nothing happens where it is allowed.
    found = [
        (call, {role for role in ROLES if not await refused(everybody[role], api(role, call), b"[]")})
        for call, _ in CALLS
    ]
    assert found == CALLS
    # Under its real name nobody gets anywhere.
    for call, _ in CALLS:
        for role in ROLES:
            assert await refused(everybody[role], f"$JS.API.{call}")


async def test_who_may_say_what(everybody: dict[str, Connection]) -> None:
    found = [
        (subject, {role for role in ROLES if not await refused(everybody[role], subject, b"[]")})
        for subject, _ in SUBJECTS
    ]
    assert found == SUBJECTS


async def test_who_may_hear_what(everybody: dict[str, Connection]) -> None:
    found = []
    for subject, _ in HEARD:
        may = set()
        for role in ROLES:
            try:
                await (await everybody[role].subscribe(subject, lambda _: None)).close()
            except PermissionDenied as error:
                assert (error.action, error.subject) == ("subscribe to", subject)  # noqa: PT017
            else:
                may.add(role)
        found.append((subject, may))
    assert found == HEARD


# --- what a role does --------------------------------------------------------------------------------


@pytest.mark.usefixtures("pool")
async def test_a_producer_starts_runs_and_follows_them(secured: Secured) -> None:
    async with secured.client("producer") as client:
        run = await client.start("many", {"count": 20, "bad": [3]}, unique="a key")
        assert await client.start("many", {"count": 20, "bad": [3]}, id=run.id, unique="a key") is not run
        with pytest.raises(RunExists):
            await client.start("many", {"count": 21}, id=run.id)
        ended = await within(run.wait(), "the end of the run")
        assert (ended.status, ended.success, ended.error) == ("failed", 19, 1)
        with pytest.raises(RunNotFound):
            await client.run("nobody-knows").status()


async def test_a_producer_is_told_who_holds_the_key_and_may_not_have_it_stopped(secured: Secured) -> None:
    async with secured.client("producer") as client:
        run = await client.start("nobody.serves", {}, unique="mine")
        with pytest.raises(DuplicateRun) as caught:
            await client.start("nobody.serves", {"other": 1}, unique="mine")
        assert caught.value.run_id == run.id
        assert (await client.start("nobody.serves", {}, unique="mine", on_duplicate="join")).id == run.id
        with pytest.raises(PermissionDenied, match="interrupt the run that holds the key"):
            await client.start("nobody.serves", {}, unique="mine", on_duplicate="replace")


async def test_a_producer_sees_no_message_not_even_its_own(secured: Secured) -> None:
    async with secured.client("producer") as client:
        run = await client.start("nobody.serves", {"word": "secret"})
        assert "secret" not in str(await client.operations.record(run.id))
        for attempt in (client.runs(), client.topics(), client.workers(), _all(client.events(run.id))):
            with pytest.raises(PermissionDenied, match=r"no permission to (publish|subscribe) to '"):
                await attempt


@pytest.mark.usefixtures("pool")
async def test_a_viewer_sees_everything(secured: Secured) -> None:
    async with secured.client("producer") as producer:
        run = await producer.start("many", {"count": 5, "bad": [3]})
        await within(run.wait(), "the end of the run")
    async with secured.client("viewer") as client:
        assert run.id in [each.id for each in await client.runs()]
        assert (await client.run(run.id).wait()).error == 1
        assert [msgspec.json.decode(error.body)["number"] for error in await _all(client.errors(run.id))] == [3]
        assert {each.event.__struct_config__.tag for each in await _all(client.events(run.id))} >= {"ended", "failed"}
        assert {each.topic for each in await client.topics()} >= {"many", "one"}
        assert len(await client.workers()) == 1
        assert not await client.may_act()
    shown = secured.corral("verify", run.id, "--context", secured.context("viewer"))
    assert (shown.code, shown.out.splitlines()[-1][:3]) == (0, "ok:")


async def test_a_viewer_can_change_nothing(secured: Secured) -> None:
    async with secured.client("producer") as producer:
        run = await producer.start("nobody.serves", {})
    async with secured.client("viewer") as client:
        before = await run_record(client, run.id)
        for attempt, subject in (
            (client.interrupt(run.id, wait=True), NAMES.event(run.id, "interrupted")),
            (client.start("one", {}), KEY("run.")),
            (client.start("one", {}, unique="viewer's"), KEY("run.")),
        ):
            with pytest.raises(PermissionDenied) as caught:
                await attempt
            assert caught.value.action == "publish to"
            assert caught.value.subject.startswith(subject)
        assert await run_record(client, run.id) == before


async def test_a_viewers_dashboard_shows_what_there_is_and_is_read_only_by_itself(
    secured: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with secured.client("producer") as producer:
        run = await producer.start("nobody.serves", {})
    for role, read_only in (("viewer", True), ("operator", False)):
        monkeypatch.setenv("NATS_CONTEXT", secured.context(role))
        feed = Feed(None, None)
        news = asyncio.Event()
        loop = asyncio.get_running_loop()
        feed.changed = partial(loop.call_soon_threadsafe, news.set)
        feed.start()

        async def shown(feed: Feed = feed, news: asyncio.Event = news, *, read_only: bool = read_only) -> None:
            while run.id not in feed.state.records or feed.read_only != read_only or not feed.state.link.ready:
                await news.wait()
                news.clear()

        await within(shown(), f"the dashboard of the {role}")
        await asyncio.to_thread(feed.stop)
        assert feed.failure is None


@pytest.mark.usefixtures("pool")
async def test_an_operator_stops_runs_and_retries_them(secured: Secured) -> None:
    async with secured.client("operator") as client:
        assert await client.may_act()
        run = await client.start("many", {"count": 5, "bad": [1, 2]})
        assert (await within(run.wait(), "the end of the run")).error == 2
        assert await run.retry() == 2
        assert (await within(run.wait(), "the end of the retry")).error == 2
        long = await client.start("long", {})
        async for status in long.watch():
            if status.root == "running":
                break
        receipt = await within(long.interrupt(wait=True), "the end of the interrupt")
        assert receipt is not None
        assert receipt.removed + receipt.stopped == 1
        assert (await client.start("long", {}, unique="k")).id
        assert (await within(client.start("long", {"n": 1}, unique="k", on_duplicate="replace"), "a replacement")).id


@pytest.mark.usefixtures("pool")
async def test_what_a_worker_needs_it_may(secured: Secured, tmp_path: Path) -> None:
    """Its death is recorded, the bookkeeper is asked, and processors start runs, from processes of their own too."""
    async with secured.client("operator") as client:
        died = await client.start("dies", {"seen": str(tmp_path / "seen")})
        isolated = await client.start("isolated", {})
        assert (await within(died.wait(), "a run whose worker died")).status == "success"
        assert "crashed" in [each.event.__struct_config__.tag for each in await _all(client.events(died.id))]
        assert (await within(isolated.wait(), "an isolated run")).status == "success"
        for run in await client.runs(topic="one"):
            assert (await within(client.run(run.id).wait(), "a run that a task started")).status == "success"
        assert len(await client.runs(topic="one")) >= 2


@pytest.mark.usefixtures("pool")
async def test_a_pool_keeps_no_books_where_it_may_not(secured: Secured) -> None:
    async with secured.client("viewer") as client:
        entry = await client.operations.records.get("leader", leader=True)
        assert entry is not None
        assert entry.value.startswith(b"bookkeeper-")


# --- attacks -----------------------------------------------------------------------------------------


async def run_record(client: Client, run_id: str) -> Any:
    return await client.operations.records.get(f"run.{run_id}", leader=True)


async def _all(source: Any) -> list[Any]:
    return [each async for each in source]


async def test_no_reply_subject_reaches_beyond_the_role(secured: Secured, everybody: dict[str, Connection]) -> None:
    """The server publishes its answers in its own name, wherever the question says."""
    bookkeeper = everybody["bookkeeper"]
    async with secured.client("operator") as operator:
        run = await operator.start("nobody.serves", {})
        victim = await operator.start("nobody.serves", {})
        publisher = Publisher(bookkeeper)
        order = encode_event(Interrupted(by="somebody", reason="a real order"))
        await publisher.store(NAMES.event(run.id, "interrupted"), order)
        await within(run.wait(), "the end of the run")
        heard: list[Message] = []
        for subject in (NAMES.control(">"), NAMES.all_beats, "_INBOX_bookkeeper.>"):
            await bookkeeper.subscribe(subject, heard.append)
        stored = [await _last(bookkeeper, stream) for stream in (EVENTS, TASKS)]
        targets = [
            NAMES.event(victim.id, "interrupted"),
            NAMES.event(victim.id, "run-ended"),
            KEY(f"interrupt.{victim.id}"),
            KEY("leader"),
            NAMES.control("ask"),
            "_INBOX_bookkeeper.some",
            f"$JS.API.STREAM.PURGE.{TASKS}",
            f"CORRAL.API.STREAM.PURGE.{EVENTS}",
        ]
        for role in ("worker", "viewer"):
            for target in targets:
                if role == "worker" and target == NAMES.control("ask"):
                    continue  # it may ask whatever it likes
                for question in (
                    f"DIRECT.GET.{EVENTS}.{NAMES.event(run.id, 'interrupted')}",
                    f"DIRECT.GET.{BUCKET}.{KEY(f'interrupt.{run.id}')}",
                    f"STREAM.INFO.{EVENTS}",
                ):
                    assert not await refused(everybody[role], api(role, question), reply=target)
        # What the server had to do for them is done when it has answered the same connections.
        for role in ("worker", "viewer"):
            await everybody[role].request(api(role, f"STREAM.INFO.{TASKS}"), timeout=LONG)
        assert [await _last(bookkeeper, stream) for stream in (EVENTS, TASKS)] == stored
        assert [message for message in heard if b"order" in message.data or b"stream_info" in message.data] == []
        assert (await victim.status()).status == "queued"
        entry = await operator.operations.records.get(f"interrupt.{victim.id}", leader=True)
        assert entry is None
        await publisher.close()


async def _last(connection: Connection, stream: str) -> int:
    info = await connection.api(f"STREAM.INFO.{stream}")
    last: int = info["state"]["last_seq"]
    return last


async def test_a_consumer_that_delivers_elsewhere_gives_no_orders_there(everybody: dict[str, Connection]) -> None:
    """A worker makes one that delivers events on the subject on which the bookkeeper is asked."""
    bookkeeper, worker = everybody["bookkeeper"], everybody["worker"]
    publisher = Publisher(bookkeeper)
    await publisher.store(NAMES.event("r", "ended"), b"[]")  # as a list of questions, it could be read
    await publisher.close()
    heard: asyncio.Queue[Message] = asyncio.Queue()
    await bookkeeper.subscribe(NAMES.control("ask"), heard.put_nowait)
    config = {
        "name": "elsewhere",
        "ack_policy": "none",
        "deliver_subject": NAMES.control("ask"),
        "filter_subject": NAMES.event("r", "ended"),
        "mem_storage": True,
        "inactive_threshold": 1_000_000_000,
    }
    call = f"CONSUMER.CREATE.{EVENTS}.elsewhere.{NAMES.event('r', 'ended')}"
    await worker.api(call, {"stream_name": EVENTS, "config": config})
    message = await within(heard.get(), "what the server delivers there")
    assert message.subject == NAMES.event("r", "ended")  # by which it is seen to be no question
    await everybody["worker"].api(f"CONSUMER.DELETE.{EVENTS}.elsewhere")


@pytest.mark.usefixtures("pool")
async def test_an_order_on_a_subject_for_something_else_is_none(secured: Secured) -> None:
    """A worker may store that tasks have ended, and says there that the run is interrupted."""
    async with secured.client("operator") as operator:
        run = await operator.start("nobody.serves", {})
        worker = await secured.connect("worker")
        publisher = Publisher(worker)
        forged = encode_event(Interrupted(by="a worker"))
        sequence = await publisher.store(NAMES.event(run.id, "ended"), forged)
        # One that counts, so that it is known that the forged one has been looked at.
        other = await operator.start("many", {"count": 1})
        assert (await within(other.wait(), "the end of another run")).seq > sequence
        assert (await run.status()).status == "queued"
        assert [each.event for each in await _all(operator.events(run.id))] == []
        await publisher.close()
        await worker.close()


async def test_only_an_operator_tells_workers_to_leave(secured: Secured, everybody: dict[str, Connection]) -> None:
    """Whoever else tries it, by an order or by a reply of the server that looks like one, has no effect."""
    with secured.pool() as pool:
        async with secured.client("operator") as operator, secured.client("viewer") as viewer:
            (worker,) = await operator.workers()
            forged = encode_leave(Leave("stop", [worker.id], [worker.pool], "somebody"))
            with pytest.raises(PermissionDenied, match=re.escape(NAMES.control("leave"))):
                await viewer.stop(worker.id)
            for role in ("producer", "worker", "viewer"):
                assert await refused(everybody[role], NAMES.control("leave"), forged)
            # A worker may store what it likes as an end, and have the server send it where it likes in its account, in
            # which pools listen.
            publisher = Publisher(everybody["worker"])
            await publisher.store(NAMES.event("some", "ended"), forged)
            await publisher.close()
            for role in ("worker", "viewer"):
                for call in (f"DIRECT.GET.{EVENTS}.{NAMES.event('some', 'ended')}", f"STREAM.INFO.{EVENTS}"):
                    assert not await refused(everybody[role], api(role, call), reply=NAMES.control("leave"))
            # What is behind them on the same connections has been done, and so have they.
            for role in ("worker", "viewer"):
                await everybody[role].request(api(role, f"STREAM.INFO.{TASKS}"), timeout=LONG)
            assert [(each.id, each.leaves) for each in await operator.workers()] == [(worker.id, "")]
            (told,) = await operator.drain(worker.id, wait=True)
            assert told.gone
        assert pool.done().code == 0
        assert "somebody" not in pool.wait_for("told to leave", on="err")


@pytest.mark.parametrize("subject", [NAMES.task("some", "nobody.serves"), NAMES.event("some", "ended")])
async def test_nobody_rolls_up_tasks_or_events(everybody: dict[str, Connection], subject: str) -> None:
    """A header that would erase all that was stored before."""
    publisher = Publisher(everybody["bookkeeper"])
    await publisher.store(subject, b"{}")
    await publisher.close()
    for role in ROLES:
        publisher = Publisher(everybody[role])
        for how in ("all", "sub"):
            with pytest.raises((ApiError, PermissionDenied), match=r"rollup|no permission"):
                await publisher.store(subject, b"{}", headers={"Nats-Rollup": how})
        await publisher.close()


@pytest.mark.usefixtures("pool")
async def test_who_may_write_a_key_can_erase_the_bucket_and_live_runs_survive_that(secured: Secured) -> None:
    """The server forces the header on wherever expiry is told to watchers: see docs/decisions/018."""
    for role, key in (("worker", "topic.x"), ("operator", "interrupt.nobody")):
        async with secured.client("operator") as operator, secured.client("bookkeeper") as bookkeeper:
            held = await operator.start("nobody.serves", {}, unique="kept")
            stopped = await operator.start("long", {})
            async for status in stopped.watch():
                if status.root == "running":
                    break
            connection = await secured.connect(role)
            publisher = Publisher(connection)
            await publisher.store(KEY(key), b"gone", headers={"Nats-Rollup": "all"})
            await publisher.close()
            await connection.close()

            async def written(run_id: str, records: Any = bookkeeper.operations.records) -> None:
                async for batch in records.watch(f"run.{run_id}"):
                    if batch:
                        return

            await within(written(held.id), "the record")
            with pytest.raises(DuplicateRun):
                await operator.start("nobody.serves", {"other": 1}, unique="kept")
            receipt = await within(stopped.interrupt(wait=True), "the end of a run that went on")
            assert receipt is not None
            assert receipt.stopped == 1
            await within(held.interrupt(wait=True), "the end of the run that waited")


@pytest.mark.usefixtures("pool")
async def test_nobody_speaks_in_another_workers_name_under_its_own(secured: Secured) -> None:
    worker = await secured.connect("worker")
    async with secured.client("viewer") as viewer:
        heard: list[Beat] = []
        news = asyncio.Event()

        def on_beat(beat: Beat, _: float) -> None:
            heard.append(beat)
            if beat.id == "last":
                news.set()

        close = await viewer.on_beat(on_beat)
        beat = Beat(id="forged", pool="p", host="h", pid=1, topics=[], slots=1, started_at=0.0, version="0")
        await worker.publish(NAMES.beat("w1"), encode(beat))
        last = Beat(id="last", pool="p", host="h", pid=1, topics=[], slots=1, started_at=0.0, version="0")
        await worker.publish(NAMES.beat("last"), encode(last))
        await within(news.wait(), "the last beat")
        assert "forged" not in [beat.id for beat in heard]
        await close()
    await worker.close()


async def test_a_worker_cannot_order_a_stop(secured: Secured, everybody: dict[str, Connection]) -> None:
    async with secured.client("operator") as operator:
        run = await operator.start("nobody.serves", {})
        worker = everybody["worker"]
        publisher = Publisher(worker)
        marker = encode(Marker(kind="stop", round=0, by="w", reason=None, at=0.0))
        for subject, payload in (
            (KEY(f"interrupt.{run.id}"), marker),
            (NAMES.event(run.id, "interrupted"), encode_event(Interrupted(by="w"))),
        ):
            with pytest.raises(PermissionDenied) as caught:
                await publisher.store(subject, payload)
            assert (caught.value.action, caught.value.subject) == ("publish to", subject)
        await publisher.close()
        assert (await run.status()).status == "queued"


@pytest.mark.usefixtures("pool")
async def test_what_is_no_question_costs_the_bookkeeper_nothing(secured: Secured) -> None:
    producer = await secured.connect("producer")
    for payload in (b"", b"[]", b"\xff", b'{"topic": 7}', b'{"run": "*"}', b'{"run": ">"}', b"[" * 10_000):
        for what in ("start", "status"):
            reply = await producer.request(NAMES.control(what), payload, timeout=LONG)
            assert "error" in json.loads(reply.data)
    for topic in ("*", ">", "a b", "", "x" * 10_000):
        question = json.dumps({"topic": topic, "body": {}}).encode()
        reply = await producer.request(NAMES.control("start"), question, timeout=LONG)
        assert json.loads(reply.data)["error"] == "BadName"
    await producer.close()
    async with secured.client("producer") as client:
        assert (await within((await client.start("many", {"count": 1})).wait(), "the end of a run")).success == 1


@pytest.fixture
async def held(secured: Secured) -> None:
    """A run of this name, for those who would stop it."""
    async with secured.client("producer") as client:
        await client.start("nobody.serves", {}, id="held")


# --- the command line --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "command", "subject"),
    [
        ("viewer", ("start", "one", "{}"), "$KV.corral_RUNS.run."),
        ("producer", ("runs",), "CORRAL.API."),
        ("producer", ("interrupt", "held"), "corral.event.held.interrupted"),
        ("worker", ("interrupt", "held"), "corral.event.held.interrupted"),
    ],
)
@pytest.mark.usefixtures("held")
def test_a_command_that_may_not_says_so_with_exit_4(
    secured: Secured, role: str, command: tuple[str, ...], subject: str
) -> None:
    done = secured.corral(*command, "--context", secured.context(role))
    assert done.code == 4, done.err
    assert f"Error: no permission to publish to '{subject}" in done.err
    assert "`corral env` says which login is used" in done.err


def test_the_environment_is_explained_and_its_secrets_are_not_shown(secured: Secured) -> None:
    viewer = secured.context("viewer")
    password = json.loads(Path(viewer).read_text())["password"]
    done = secured.corral("env", NATS_CONTEXT=viewer)
    assert f"(context {viewer})" in done.out
    assert "user viewer, password ***" in done.out
    assert password not in done.out
    assert password in secured.corral("env", "--context", viewer, "--show-secret").out
    wrong = secured.corral("runs", NATS_CONTEXT=viewer, NATS_USER="viewer", NATS_PASSWORD="wrong")
    assert (wrong.code, "no permission to log in" in wrong.err) == (4, True)
