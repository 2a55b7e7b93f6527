"""A bookkeeper goes on where the last one stopped, and believes nothing that is not so any more."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from corral import Client, checkpoints
from corral.book import Book
from corral.checkpoint_reading import Anchor, Loaded, read_checkpoint
from corral.checkpoints import Checkpoints
from corral.events import AnyEvent, Ended, Ends, Interrupted, Opened, Sent, encode_event, kind
from corral.jetstream.direct import at
from corral.jetstream.records import Records
from corral.jetstream.streams import ensure
from corral.ledger import Ledger
from corral.messages import ROOT
from corral.operations import Run
from corral.runs import Record
from corral.snapshot import freeze, thaw
from corral.subjects import LEDGER_ANCHOR_KEY, LEDGER_KEYS, Names, ledger_key, ledger_part_key
from tests.servers import ServerProcess
from tests.system.apps.again import Family
from tests.system.apps.fanout import DISPATCH, Many
from tests.system.pools import PoolProcess, System
from tests.system.stage import Arrival, Stage, within


def items(n: int) -> list[str]:
    """What the truth must show of a fan-out."""
    return sorted(f"{'left' if i % 3 else 'right'} {i}" for i in range(n))


async def anchored(client: Client, sequence: int) -> Anchor:
    """The first checkpoint that holds the event of this sequence."""

    async def wait() -> Anchor:
        async for batch in client.operations.records.watch(LEDGER_ANCHOR_KEY):
            if batch[-1].operation is None:
                anchor = msgspec.json.decode(batch[-1].data, type=Anchor)
                if anchor.sequence >= sequence:
                    return anchor
        raise AssertionError

    return await within(wait(), "a checkpoint")


async def kept(client: Client, run: Run) -> None:
    """Return when a ledger of the run's second round is kept."""

    async def wait() -> None:
        async for batch in client.operations.records.watch(ledger_key(run.id)):
            if batch[-1].operation is None and msgspec.msgpack.decode(batch[-1].data)[1] == 1:
                return

    await within(wait(), "a ledger of the second round")


async def forge(client: Client, key: str, value: bytes) -> None:
    """Let a key of the checkpoint say something else."""
    records = client.operations.records
    found = await records.get(key, leader=True)
    assert found is not None
    await records.update(key, value, found.revision)


async def a_held_run(system: System, sent: int, total: int) -> tuple[Run, Arrival, PoolProcess]:
    """A run that has done all that was sent, its dispatcher, which waits, and the pool that keeps the books."""
    bookkeeper = await system.pool("fanout", topics="left,right")
    await system.bookkeeper()
    await system.pool("fanout", topics="dispatch")
    await system.pool("fanout", topics="left,right")
    run = await (await system.client()).start(DISPATCH, Many(total, hold=sent))
    dispatcher = await system.stage.arrival("dispatching")
    await system.reached(run, lambda status: status.success == sent, "the ends of what it has sent")
    return run, dispatcher, bookkeeper


async def test_what_a_checkpoint_holds_is_not_read_again(system: System) -> None:
    system.set(checkpoint_interval=0.1, window=100)
    run, dispatcher, bookkeeper = await a_held_run(system, 600, 900)
    client = await system.client()
    anchor = await anchored(client, (await run.status()).seq)
    names = Names(system.settings.namespace)
    gone = {"seq": anchor.sequence + 1, "filter": names.event(run.id, "ended")}
    assert (await client.connection.api(f"STREAM.PURGE.{names.events_stream}", gone))["purged"] > 0
    bookkeeper.kill()
    await bookkeeper.ended()
    dispatcher.answer()
    status = await system.end(run)
    assert (status.status, status.total, status.success) == ("success", 900, 900)
    assert sorted(system.truth()) == items(900)
    # What was kept of a run is gone when it has ended.
    async with asyncio.timeout(60):
        async for batch in client.operations.records.watch(ledger_key(run.id)):
            if batch[-1].operation is not None:
                break


async def test_a_checkpoint_whose_last_event_is_another_one_now_is_thrown_away(system: System) -> None:
    system.set(checkpoint_interval=0.1, window=100)
    run, dispatcher, bookkeeper = await a_held_run(system, 600, 900)
    client = await system.client()
    anchor = await anchored(client, (await run.status()).seq)
    bookkeeper.kill()
    await bookkeeper.ended()
    await forge(client, ledger_key(run.id), head(Ledger("dispatch"), sequence=10**9))
    await forge(client, LEDGER_ANCHOR_KEY, msgspec.json.encode(msgspec.structs.replace(anchor, digest="another")))
    dispatcher.answer()
    status = (await system.audit(run)).status
    assert (status.total, status.success) == (900, 900)


async def test_a_ledger_that_cannot_be_read_is_made_from_the_runs_history(system: System) -> None:
    system.set(checkpoint_interval=0.1, window=100)
    run, dispatcher, bookkeeper = await a_held_run(system, 600, 900)
    client = await system.client()
    await anchored(client, (await run.status()).seq)
    bookkeeper.kill()
    await bookkeeper.ended()
    await forge(client, ledger_key(run.id), b"nonsense")
    dispatcher.answer()
    status = (await system.audit(run)).status
    assert (status.total, status.success) == (900, 900)


async def test_what_an_earlier_round_has_left_behind_is_not_believed(system: System) -> None:
    system.set(checkpoint_interval=0.1)
    bookkeeper = await system.pool("again", topics="aunt")
    await system.bookkeeper()
    await system.pool("again")
    client = await system.client()
    run = await client.start("parent", Family(3))
    for child in await system.stage.arrivals("child", 5):
        child.answer("fail" if child.facts["i"] == 1 else "go")
    early = head(Ledger("parent"), sequence=1)
    assert (await system.audit(run)).status.error == 1
    await run.retry()
    child = await system.stage.arrival("child")
    retried = await system.reached(run, lambda status: status.pending + status.running == 1, "the retry")
    await anchored(client, retried.seq)
    await kept(client, run)
    bookkeeper.kill()
    await bookkeeper.ended()
    await forge(client, ledger_key(run.id), early)
    child.answer("go")
    status = (await system.audit(run)).status
    assert (status.total, status.success) == (6, 6)


async def test_a_server_that_went_back_in_time_is_counted_as_it_is_now(
    server_process: Callable[..., ServerProcess], namespace: str, tmp_path: Path, stage: Stage
) -> None:
    """As after a power failure, only worse: more is lost than what was not yet on the disk."""
    server = server_process()
    async with System(server.url, namespace, tmp_path, stage) as system:
        system.set(checkpoint_interval=0.1, window=100, ack_wait=2.0, publish_timeout=3.0, reconcile=3.0)
        run, dispatcher, _ = await a_held_run(system, 600, 900)
        await anchored(await system.client(), (await run.status()).seq)
        await asyncio.to_thread(server.stop)
        server.remember()
        await asyncio.to_thread(server.start)
        other = await (await system.client()).start(DISPATCH, Many(50))
        assert (await system.audit(other)).status.success == 50
        await asyncio.to_thread(server.kill)
        server.go_back()
        await asyncio.to_thread(server.start)
        dispatcher.answer()
        status = (await system.audit(run)).status
        assert (status.total, status.success) == (900, 900)
        assert [status.id for status in await (await system.client()).runs()] == [run.id]


# --- the checkpoints by themselves -------------------------------------------------------------------


def head(ledger: Ledger, *, sequence: int, round: int = 0) -> bytes:
    """A ledger as it stands under its key."""
    return msgspec.msgpack.encode([1, round, sequence, freeze(ledger)])


def a_record(run_id: str, round: int = 0) -> Record:
    return Record(
        id=run_id, topic="root", body=msgspec.Raw(b"1"), state="running", created_at=1.0, round=round, claim=(round, 1)
    )


class Bookcase:
    """The books of one run whose events are stored by the test, and whoever keeps them."""

    def __init__(self, client: Client) -> None:
        self.records: Records = client.operations.records
        self.names = client.operations.names
        self.record = a_record("r")
        self.ledger = Ledger("root")
        self._client = client

    async def fold(self, *events: AnyEvent) -> Anchor:
        """Store events and fold them; the anchor behind them."""
        for event in events:
            subject = self.names.event("r", kind(event))
            sequence = await self._client.operations.publisher.store(subject, encode_event(event))
            stored = await at(self._client.connection, self.names.events_stream, sequence)
            assert stored is not None
            anchor = Anchor.of(stored)
            self.ledger.apply(event, sequence, stored.time)
        return anchor

    def books(self) -> list[Book]:
        """As a bookkeeper has them."""
        book = Book("r")
        book.record = self.record
        book.open(self.ledger)
        return [book]

    def keeper(self) -> Checkpoints:
        """A new bookkeeper's."""
        return Checkpoints(self._client.connection, self.records, self.names)

    async def load(self) -> Loaded:
        """What a new bookkeeper finds."""
        return await self.keeper().load({"r": self.record})

    async def watch(self) -> Loaded:
        """What somebody finds who only watches."""
        entries = await self.records.entries(LEDGER_KEYS)
        return await read_checkpoint(self._client.connection, self.names, entries, {"r": self.record})

    async def keys(self) -> set[str]:
        """What is stored."""
        return {entry.key for entry in await self.records.entries(LEDGER_KEYS)}


@pytest.fixture
async def bookcase(system: System) -> Bookcase:
    client = await system.client()
    await ensure(client.connection, client.operations.names, system.settings)
    return Bookcase(client)


async def purge(system: System, subject: str) -> None:
    """Remove events."""
    client = await system.client()
    asked = {"filter": subject}
    assert (await client.connection.api(f"STREAM.PURGE.{client.operations.names.events_stream}", asked))["purged"] > 0


OPENED = Opened(parent=ROOT, nonce="n")


def ends(*ordinals: int, number: int) -> Ended:
    spans = [(ordinal, ordinal + 1) for ordinal in sorted(ordinals)]
    return Ended(worker="w", number=number, tasks=[Ends("leaf", 1, 0, "success", spans)])


async def test_what_is_saved_is_loaded(bookcase: Bookcase) -> None:
    anchor = await bookcase.fold(OPENED, Sent(1, 0, 10, ["leaf"]), ends(1, 3, number=1))
    await bookcase.keeper().save(bookcase.books(), anchor)
    loaded = await bookcase.load()
    assert (loaded.anchor, loaded.doubtful) == (anchor, set())
    assert loaded.ledgers["r"].counts() == bookcase.ledger.counts()


async def test_an_anchor_without_the_ledgers_before_it_is_not_believed(bookcase: Bookcase) -> None:
    keeper = bookcase.keeper()
    await keeper.save(bookcase.books(), await bookcase.fold(OPENED, Sent(1, 0, 10, ["leaf"])))
    late = await bookcase.fold(ends(1, 3, number=1))
    await keeper._drop_anchor(late)  # as one who comes home late, and takes the run's ledger for saved
    loaded = await bookcase.load()
    assert (loaded.anchor, loaded.doubtful, loaded.ledgers) == (late, {"r"}, {})
    assert await bookcase.keys() == {LEDGER_ANCHOR_KEY}
    assert await bookcase.watch() == loaded
    assert (await bookcase.load()).doubtful == {"r"}


async def test_a_gap_is_found_where_the_anchors_event_is_gone(bookcase: Bookcase, system: System) -> None:
    keeper = bookcase.keeper()
    await keeper.save(bookcase.books(), await bookcase.fold(OPENED, Sent(1, 0, 10, ["leaf"])))
    late = await bookcase.fold(ends(1, 3, number=1), Interrupted())
    await keeper._drop_anchor(late)
    await purge(system, bookcase.names.event("r", "interrupted"))
    assert (await bookcase.load()).doubtful == {"r"}


async def test_a_gap_is_found_where_runs_have_more_subjects_than_the_server_answers_at_once(
    bookcase: Bookcase, system: System
) -> None:
    """A run has a subject for each of its dispatchers."""
    publisher, names = (await system.client()).operations.publisher, bookcase.names
    await bookcase.fold(OPENED)
    for run_id in ("a", "b"):
        window = publisher.window()
        for ordinal in range(1_100):
            await window.add(names.dispatch_log(run_id, 0, ordinal), encode_event(OPENED))
        await window.settle()
    await bookcase.keeper().save(bookcase.books(), await bookcase.fold(ends(1, number=1)))
    live = {run_id: a_record(run_id) for run_id in ("r", "a", "without", "b")}
    loaded = await bookcase.keeper().load(live)
    assert (set(loaded.ledgers), loaded.doubtful) == ({"r"}, {"a", "b"})


async def test_what_is_kept_of_an_ended_run_goes_although_nothing_was_folded_since(bookcase: Bookcase) -> None:
    anchor = await bookcase.fold(OPENED)
    keeper = bookcase.keeper()
    await keeper.save(bookcase.books(), anchor)
    await keeper.save([], None)
    assert await bookcase.keys() == {LEDGER_ANCHOR_KEY}
    assert (await bookcase.load()).anchor == anchor


async def test_a_large_ledger_is_kept_in_parts_and_old_parts_are_removed(
    bookcase: Bookcase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "PART", 1_000)
    keeper = bookcase.keeper()
    irregular = random.Random(1).sample(range(49_000), 9_000)  # it cannot be compressed much
    anchor = await bookcase.fold(OPENED, Sent(1, 0, 50_000, ["leaf"]), ends(*irregular, number=0))
    await keeper.save(bookcase.books(), anchor)
    first = await bookcase.keys()
    await keeper.save(bookcase.books(), await bookcase.fold(ends(49_999, number=1)))
    second = await bookcase.keys()
    assert len(first) > 3
    assert {key for key in first & second if ".part." in key} == set()
    loaded = await bookcase.load()
    assert loaded.ledgers["r"].counts() == bookcase.ledger.counts()
    await keeper.save([], await bookcase.fold(ends(0, number=9)))
    assert await bookcase.keys() == {LEDGER_ANCHOR_KEY}


async def test_an_older_ledger_is_never_written_over_a_newer_one(bookcase: Bookcase) -> None:
    """A bookkeeper that was frozen, and does not know yet that another one was elected."""
    zombie = bookcase.keeper()
    early = await bookcase.fold(OPENED, Sent(1, 0, 10, ["leaf"]))
    await zombie.save(bookcase.books(), early)
    frozen = thaw(freeze(bookcase.ledger))
    successor = bookcase.keeper()
    await successor.load({"r": bookcase.record})
    late = await bookcase.fold(ends(1, 3, number=1))
    await successor.save(bookcase.books(), late)
    newest, bookcase.ledger = bookcase.ledger, frozen
    frozen.sequence += 1  # it thinks that it has something new
    await zombie.save(bookcase.books(), early)
    loaded = await bookcase.load()
    assert loaded.anchor == late
    assert loaded.ledgers["r"].counts() == newest.counts()


async def test_a_ledger_of_an_earlier_round_is_in_doubt(bookcase: Bookcase) -> None:
    anchor = await bookcase.fold(OPENED, Sent(1, 0, 10, ["leaf"]))
    await bookcase.keeper().save(bookcase.books(), anchor)
    bookcase.record = a_record("r", round=1)
    loaded = await bookcase.load()
    assert (loaded.ledgers, loaded.doubtful) == ({}, {"r"})


async def test_a_ledger_whose_last_event_is_another_one_now_is_in_doubt(bookcase: Bookcase) -> None:
    anchor = await bookcase.fold(OPENED)
    await bookcase.fold(Sent(1, 0, 10, ["leaf"]))
    bookcase.ledger.stored_at += 1.0
    await bookcase.keeper().save(bookcase.books(), anchor)
    loaded = await bookcase.load()
    assert (loaded.anchor, loaded.ledgers, loaded.doubtful) == (anchor, {}, {"r"})


async def test_without_its_anchors_event_nothing_is_believed_and_all_is_removed(bookcase: Bookcase) -> None:
    anchor = await bookcase.fold(OPENED)
    await bookcase.keeper().save(bookcase.books(), msgspec.structs.replace(anchor, sequence=anchor.sequence + 1))
    assert await bookcase.load() == Loaded(None, {}, set())
    assert await bookcase.keys() == set()


async def test_an_anchor_whose_event_has_expired_is_believed(bookcase: Bookcase, system: System) -> None:
    anchor = await bookcase.fold(OPENED, Sent(1, 0, 10, ["leaf"]))
    await bookcase.keeper().save(bookcase.books(), anchor)
    await purge(system, bookcase.names.all_events)
    loaded = await bookcase.load()
    assert loaded.anchor == anchor
    assert set(loaded.ledgers) == {"r"}


async def test_what_belongs_to_no_live_run_is_removed(bookcase: Bookcase) -> None:
    anchor = await bookcase.fold(OPENED)
    await bookcase.keeper().save(bookcase.books(), anchor)
    await bookcase.records.create(ledger_part_key("r", "lost", 0), b"left by one that was killed")
    await bookcase.keeper().load({})
    assert await bookcase.keys() == {LEDGER_ANCHOR_KEY}
