"""The streams: made once, kept as they are, counted and purged by exact names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from corral.errors import ApiError, BadName, StorageFull
from corral.jetstream import direct, topology
from corral.jetstream.connection import Connection
from corral.jetstream.publisher import Publisher
from corral.settings import Settings
from corral.subjects import Names
from tests.jetstream.test_publisher import publishing
from tests.servers import ServerProcess


async def fill(publisher: Publisher, names: Names, counts: dict[tuple[str, str], int]) -> None:
    window = publisher.window()
    for (run_id, topic), count in counts.items():
        for _ in range(count):
            await window.add(names.task(run_id, topic), b"x")
    await window.settle()


async def test_of_many_that_make_the_streams_one_has_made_the_bucket(connection: Connection, namespace: str) -> None:
    names = Names(namespace)
    results = await asyncio.gather(*(topology.ensure(connection, names, Settings()) for _ in range(8)))
    assert sorted(results) == [False] * 7 + [True]
    assert not await topology.ensure(connection, names, Settings())
    await topology.destroy(connection, names)


async def test_the_streams_are_what_the_design_says(connection: Connection, names: Names) -> None:
    configs = {}
    for stream in (names.tasks_stream, names.events_stream, names.bucket_stream):
        configs[stream] = (await connection.api(f"STREAM.INFO.{stream}"))["config"]
        assert configs[stream]["discard"] == "new"
        assert configs[stream]["storage"] == "file"
        assert configs[stream]["allow_direct"]
    tasks = configs[names.tasks_stream]
    assert (tasks["retention"], tasks["allow_rollup_hdrs"]) == ("workqueue", False)
    assert configs[names.events_stream]["max_age"] == Settings().events_max_age * 1e9
    bucket = configs[names.bucket_stream]
    assert bucket["max_msgs_per_subject"] == 1
    assert bucket["allow_msg_ttl"]
    assert bucket["subject_delete_marker_ttl"] > 0


async def test_streams_that_exist_keep_their_limits(connection: Connection, namespace: str) -> None:
    names = Names(namespace)
    await topology.ensure(connection, names, Settings(tasks_max_bytes=100_000_000))
    await topology.ensure(connection, names, Settings())
    info = await connection.api(f"STREAM.INFO.{names.tasks_stream}")
    assert info["config"]["max_bytes"] == 100_000_000
    await topology.destroy(connection, names)


async def test_limits_shrink_to_what_the_server_has(server_process: Callable[..., ServerProcess]) -> None:
    server = server_process(max_file="1GB")
    async with publishing(server.url) as (connection, publisher):
        names = Names("n")
        assert await topology.ensure(connection, names, Settings())
        total = 0
        for stream in (names.tasks_stream, names.events_stream, names.bucket_stream):
            total += (await connection.api(f"STREAM.INFO.{stream}"))["config"]["max_bytes"]
        assert total <= 1_000_000_000
        await publisher.store(names.event("r", "x"), b"x")


async def test_a_server_without_room_says_so(server_process: Callable[..., ServerProcess]) -> None:
    server = server_process(max_file="20MB")
    async with publishing(server.url) as (connection, _):
        with pytest.raises(StorageFull):
            await topology.ensure(connection, Names("n"), Settings())


async def test_consumers_are_made_once_and_updated(connection: Connection, names: Names) -> None:
    for ack_wait in (15.0, 15.0, 3.0):
        settings = Settings(ack_wait=ack_wait)
        await topology.ensure_consumer(connection, names, "a.b", settings)
    await topology.ensure_consumer(connection, names, "a-b", Settings())
    info = await connection.api(f"CONSUMER.INFO.{names.tasks_stream}.{names.consumer('a.b')}")
    assert info["config"]["ack_wait"] == 3_000_000_000
    assert info["config"]["max_deliver"] == -1
    assert info["config"]["max_ack_pending"] == -1
    assert await topology.consumers(connection, names) == {"a.b": (0, 0, 0), "a-b": (0, 0, 0)}


async def test_consumers_are_listed_beyond_one_page(connection: Connection, names: Names) -> None:
    topics = {f"t{number}" for number in range(300)}
    await asyncio.gather(*(topology.ensure_consumer(connection, names, topic, Settings()) for topic in topics))
    assert set(await topology.consumers(connection, names)) == topics


async def test_the_queue_is_counted_by_run_and_topic(
    connection: Connection, publisher: Publisher, names: Names
) -> None:
    assert await topology.queue_counts(connection, names) == {}
    counts = {("r1", "a"): 3, ("r1", "a.b"): 2, ("r2", "a"): 1}
    await fill(publisher, names, counts)
    assert await topology.queue_counts(connection, names) == counts
    assert await topology.queue_counts(connection, names, "r1") == {("r1", "a"): 3, ("r1", "a.b"): 2}
    assert await topology.queue_counts(connection, names, "r3") == {}
    with pytest.raises(BadName):
        await topology.queue_counts(connection, names, "*")


async def test_the_queue_is_counted_beyond_one_page(connection: Connection, publisher: Publisher, names: Names) -> None:
    counts = {(f"r{number}", "a"): 1 for number in range(100_500)}
    window = publisher.window()
    for run_id, topic in counts:
        await window.add(names.task(run_id, topic), b"")
    await window.settle()
    assert await topology.queue_counts(connection, names) == counts


async def test_a_purge_takes_one_topic_of_one_run_and_leaves_what_came_later(
    connection: Connection, publisher: Publisher, names: Names
) -> None:
    await fill(publisher, names, {("r1", "a"): 5, ("r1", "a.b"): 2, ("r2", "a"): 2})
    bound = await topology.last_sequence(connection, names.tasks_stream) + 1
    await fill(publisher, names, {("r1", "a"): 3})
    assert await topology.purge(connection, names, "r1", "a", bound) == 5
    assert await topology.queue_counts(connection, names) == {("r1", "a"): 3, ("r1", "a.b"): 2, ("r2", "a"): 2}
    assert await topology.purge(connection, names, "r1", "a", bound) == 0
    assert await topology.purge(connection, names, "r1", "a", 0) == 0
    assert await topology.purge(connection, names, "r1", "a", 1) == 0
    for run_id, topic in (("*", "a"), ("r1", ">"), ("r1", "*"), ("", "a")):
        with pytest.raises(BadName):
            await topology.purge(connection, names, run_id, topic, bound)
    assert sum((await topology.queue_counts(connection, names)).values()) == 7


async def test_the_last_event_and_all_events_of_a_subject(
    connection: Connection, publisher: Publisher, names: Names
) -> None:
    subject = names.event("r", "sent")
    assert await direct.last(connection, names.events_stream, subject) is None
    assert await topology.subject_events(connection, names.events_stream, subject) == []
    window = publisher.window()
    for number in range(2_500):
        await window.add(subject, b"%d" % number)
        await window.add(names.event("other", "sent"), b"")
    await window.settle()
    events = await topology.subject_events(connection, names.events_stream, subject)
    assert [event.data for event in events] == [b"%d" % number for number in range(2_500)]
    assert await direct.last(connection, names.events_stream, subject) == events[-1]
    assert events[-1].sequence == 4_999


async def test_a_missing_stream_carries_its_code(connection: Connection, namespace: str) -> None:
    with pytest.raises(ApiError) as caught:
        await topology.last_sequence(connection, f"{namespace}_NONE")
    assert caught.value.code == 10059
