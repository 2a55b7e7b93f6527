"""What a dead producer left half-made is finished or undone; what the server lost is said to be lost."""

from __future__ import annotations

import asyncio
import base64
import time

import msgspec
import pytest

from corral import patrol
from corral.bookkeeper import Bookkeeper
from corral.errors import DuplicateRun, Unconfirmed
from corral.jetstream.topology import purge
from corral.roster import Roster
from corral.runs import Marker, Record, State, decode_record, encode
from corral.subjects import interrupt_key, run_key, unique_key
from tests.system.pools import System
from tests.system.stage import within


async def leave(system: System, run_id: str, state: State, *, unique: str | None = None, key: bool = False) -> None:
    """What a producer has stored of a start when it dies."""
    records = (await system.client()).operations.records
    record = Record(id=run_id, topic="leaf", body=msgspec.Raw(b"1"), state=state, created_at=time.time(), unique=unique)
    await records.create(run_key(run_id), encode(record))
    if key and unique is not None:
        await records.create(unique_key(unique), run_id.encode())


async def lasts_for(system: System, key: str) -> str:
    """The time to live of what stands under a key, as the server knows it."""
    client = await system.client()
    names = client.operations.names
    wanted = {"last_by_subj": names.key(key)}
    answer = await client.connection.api(f"STREAM.MSG.GET.{names.bucket_stream}", wanted)
    headers = base64.b64decode(answer["message"].get("hdrs", "")).decode()
    return next((line.partition(": ")[2] for line in headers.splitlines() if line.startswith("Nats-TTL")), "")


async def test_a_start_whose_root_was_never_published_is_finished(system: System) -> None:
    system.set(publish_timeout=0.5)
    await leave(system, "half", "queued")
    await system.pool("alone")
    assert (await system.audit((await system.client()).run("half"))).status.status == "success"
    assert system.truth()["leaf 1"] == 1


async def test_the_marker_of_a_run_that_was_stopped_lasts_no_longer_than_those_of_others(system: System) -> None:
    """Each worker keeps all that there are."""
    client = await system.client()
    run = await client.start("leaf", 1)
    await run.interrupt()
    await system.pool("alone")

    async def shortened() -> None:
        async for _ in client.operations.records.watch(interrupt_key(run.id)):
            if await lasts_for(system, interrupt_key(run.id)) == "900s":
                return

    await within(shortened(), "a marker that goes soon")
    assert (await run.status()).status == "interrupted"


async def test_a_start_that_has_its_key_is_finished(system: System) -> None:
    system.set(publish_timeout=0.5)
    await leave(system, "half", "starting", unique="k", key=True)
    await system.pool("alone")
    assert (await system.audit((await system.client()).run("half"))).status.status == "success"
    assert await (await system.client()).holder("k") is None


async def test_a_start_without_its_key_is_undone_and_may_be_made_again(system: System) -> None:
    system.set(publish_timeout=0.5)
    await leave(system, "half", "starting", unique="k")
    await system.pool("alone")
    client = await system.client()
    async for batch in client.read_records():
        if any(record is not None and record.state == "aborted" for _, record in batch):
            break
    assert await lasts_for(system, run_key("half")) == "3600s"
    run = await client.start("leaf", 2, unique="k")
    assert (await system.audit(run)).status.status == "success"
    assert "leaf 1" not in system.truth()
    again = await client.start("leaf", 1, unique="k", id="half")
    assert (await system.audit(again)).status.status == "success"
    assert system.truth()["leaf 1"] == 1


async def test_runs_are_looked_at_some_at_a_time_and_each_in_its_turn(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    system.set(publish_timeout=0.2, beat=0.05)
    monkeypatch.setattr(patrol, "AT_ONCE", 2)
    monkeypatch.setattr(patrol, "REPAIRS", 1)
    client = await system.client()
    for number in range(2):
        await client.start("leaf", number)  # which nobody executes: these are there in every turn
    left = {f"half{number}" for number in range(5)}
    for run_id in left:
        await leave(system, run_id, "starting", unique=run_id)
    bookkeeper = Bookkeeper(client.connection, system.settings, Roster(system.settings.death))
    leading = asyncio.create_task(bookkeeper.lead())

    async def undone() -> None:
        async for batch in client.read_records():
            left.difference_update(run_id for run_id, record in batch if record and record.state == "aborted")
            if not left:
                return

    await within(undone(), "the ends of all starts that were left")
    leading.cancel()
    await asyncio.wait({leading})


async def test_a_producer_that_wakes_up_late_finds_its_start_undone_and_lets_go_of_the_key(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await system.client()
    records, starter = client.operations.records, client.operations.starter
    take_key = starter.take_key

    async def sleeping(key: str, run_id: str) -> str | None:
        monkeypatch.undo()
        entry = await records.get(run_key(run_id), leader=True)
        assert entry is not None
        undone = msgspec.structs.replace(decode_record(entry.value, run_id), state="aborted")
        await records.update(entry.key, encode(undone), entry.revision)
        return await take_key(key, run_id)

    monkeypatch.setattr(starter, "take_key", sleeping)
    with pytest.raises(Unconfirmed, match="undone"):
        await client.start("leaf", 1, unique="k", id="half")
    assert await records.get(unique_key("k"), leader=True) is None
    assert (await client.start("leaf", 1, unique="k", id="half")).id == "half"
    assert await client.holder("k") == "half"


async def test_a_start_that_was_refused_may_be_made_again_when_the_key_is_free(system: System) -> None:
    await system.pool("alone")
    client = await system.client()
    holder = await client.start("t", 1, unique="k")
    with pytest.raises(DuplicateRun):
        await client.start("leaf", 1, unique="k", id="mine")
    await holder.interrupt(wait=True)
    run = await client.start("leaf", 1, unique="k", id="mine")
    assert (await system.audit(run)).status.status == "success"


async def test_a_run_that_began_to_end_by_an_event_that_the_server_has_lost_comes_to_its_end(system: System) -> None:
    system.set(ack_wait=0.5, reconcile=1.0)
    client = await system.client()
    run = await client.start("leaf", 1)
    records = client.operations.records
    entry = await records.get(run_key(run.id), leader=True)
    assert entry is not None
    ending = msgspec.structs.replace(decode_record(entry.value), state="ending")
    await records.update(run_key(run.id), encode(ending), entry.revision)
    await records.create(interrupt_key(run.id), encode(Marker(kind="over")))
    await system.pool("alone")
    assert (await system.audit(run)).status.status == "failed"
    assert [error.type async for error in client.errors(run.id)] == ["Lost"]
    assert await run.retry() == 1
    assert (await system.audit(run)).status.status == "success"


async def test_a_retry_without_its_key_is_undone_and_its_record_is_kept_no_longer_than_others(system: System) -> None:
    system.set(publish_timeout=0.5)
    client = await system.client()
    await system.pool("alone")
    run = await client.start("leaf", 1, unique="k")
    before = (await system.audit(run)).status
    entry = await client.operations.records.get(run_key(run.id), leader=True)
    assert entry is not None
    left = msgspec.structs.replace(decode_record(entry.value), state="reopening", round=1, claim=None)
    await client.operations.records.update(entry.key, encode(left), entry.revision)
    async for batch in client.read_records():
        if any(record is not None and record.state == "final" and record.round == 0 for _, record in batch):
            break
    assert (await run.status()).status == before.status
    assert await lasts_for(system, run_key(run.id)) == f"{system.settings.retention:.0f}s"


async def test_tasks_whose_messages_are_gone_end_as_lost(system: System) -> None:
    system.set(ack_wait=0.5, reconcile=1.0)
    client = await system.client()
    await system.pool("alone", topics="alone")
    run = await client.start("alone", 20)
    await system.reached(run, lambda status: status.root == "success", "the end of the root")
    assert await purge(client.connection, client.operations.names, run.id, "leaf", 1 << 40) == 20
    after = (await system.audit(run)).status
    assert (after.status, after.error) == ("failed", 20)
    errors = [error async for error in client.errors(run.id)]
    assert {error.type for error in errors} == {"Lost"}
    await system.pool("alone")
    assert await run.retry() == 21
    assert (await system.audit(run)).status.success == 20
