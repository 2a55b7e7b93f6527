"""The streams: made once, kept as they are, counted and purged by exact names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from corral.errors import ApiError, BadName, Misconfigured, StorageFull
from corral.jetstream import direct, streams, topology
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
    results = await asyncio.gather(*(streams.ensure(connection, names, Settings()) for _ in range(8)))
    assert sorted(results) == [False] * 7 + [True]
    assert not await streams.ensure(connection, names, Settings())
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
    await streams.ensure(connection, names, Settings(tasks_max_bytes=100_000_000))
    await streams.ensure(connection, names, Settings())
    info = await connection.api(f"STREAM.INFO.{names.tasks_stream}")
    assert info["config"]["max_bytes"] == 100_000_000
    await topology.destroy(connection, names)


async def test_a_limit_that_is_set_on_purpose_is_raised_and_never_lowered(
    connection: Connection, namespace: str
) -> None:
    names = Names(namespace)
    for wanted, then in ((1_000_000, 1_000_000), (3_000_000, 3_000_000), (2_000_000, 3_000_000)):
        await streams.ensure(connection, names, Settings(tasks_max_bytes=wanted))
        info = await connection.api(f"STREAM.INFO.{names.tasks_stream}")
        assert info["config"]["max_bytes"] == then
    await topology.destroy(connection, names)


async def test_an_age_of_events_that_is_set_on_purpose_holds_from_then_on(
    connection: Connection, namespace: str
) -> None:
    names = Names(namespace)
    for age, then in ((604_800.0, 604_800), (3600.0, 3600), (60.0, 60), (604_800.0, 60)):
        settings = Settings(events_max_age=age)
        await streams.ensure(connection, names, settings)
        await streams.keep_events(connection, names, settings)
        info = await connection.api(f"STREAM.INFO.{names.events_stream}")
        assert info["config"]["max_age"] == then * 1_000_000_000
    await topology.destroy(connection, names)


async def test_who_only_looks_drops_no_events(connection: Connection, names: Names) -> None:
    await streams.ensure(connection, names, Settings(events_max_age=60.0))
    info = await connection.api(f"STREAM.INFO.{names.events_stream}")
    assert info["config"]["max_age"] == Settings().events_max_age * 1_000_000_000


async def test_a_limit_that_the_server_has_no_room_for_stays(server_process: Callable[..., ServerProcess]) -> None:
    server = server_process(max_file="1GB")
    async with publishing(server.url) as (connection, _):
        names = Names("n")
        await streams.ensure(connection, names, Settings())
        before = (await connection.api(f"STREAM.INFO.{names.tasks_stream}"))["config"]["max_bytes"]
        await streams.ensure(connection, names, Settings(tasks_max_bytes=100_000_000_000))
        assert (await connection.api(f"STREAM.INFO.{names.tasks_stream}"))["config"]["max_bytes"] == before


async def test_what_corral_needs_of_a_stream_is_set_right_again(connection: Connection, names: Names) -> None:
    info = await connection.api(f"STREAM.INFO.{names.events_stream}")
    changed = {**info["config"], "discard": "old", "allow_direct": False, "max_msgs": 1_000}
    await connection.api(f"STREAM.UPDATE.{names.events_stream}", changed)
    await streams.ensure(connection, names, Settings())
    now = (await connection.api(f"STREAM.INFO.{names.events_stream}"))["config"]
    assert (now["discard"], now["allow_direct"], now["max_msgs"]) == ("new", True, 1_000)


async def test_a_stream_that_corral_cannot_work_with_is_named(connection: Connection, namespace: str) -> None:
    names = Names(namespace)
    config = {"name": names.tasks_stream, "subjects": [names.all_tasks], "retention": "limits", "storage": "file"}
    await connection.api(f"STREAM.CREATE.{names.tasks_stream}", config)
    with pytest.raises(Misconfigured, match="its retention is 'limits' and should be 'workqueue'"):
        await streams.ensure(connection, names, Settings())
    await topology.destroy(connection, names)


async def test_limits_shrink_to_what_the_server_has(server_process: Callable[..., ServerProcess]) -> None:
    server = server_process(max_file="1GB")
    async with publishing(server.url) as (connection, publisher):
        names = Names("n")
        assert await streams.ensure(connection, names, Settings())
        total = 0
        for stream in (names.tasks_stream, names.events_stream, names.bucket_stream):
            total += (await connection.api(f"STREAM.INFO.{stream}"))["config"]["max_bytes"]
        assert total <= 1_000_000_000
        await publisher.store(names.event("r", "x"), b"x")


async def test_a_server_without_room_says_so(server_process: Callable[..., ServerProcess]) -> None:
    server = server_process(max_file="20MB")
    async with publishing(server.url) as (connection, _):
        with pytest.raises(StorageFull):
            await streams.ensure(connection, Names("n"), Settings())


async def test_consumers_are_made_once_and_updated(connection: Connection, names: Names) -> None:
    for ack_wait in (15.0, 15.0, 3.0):
        settings = Settings(ack_wait=ack_wait)
        await streams.ensure_consumer(connection, names, "a.b", settings)
    await streams.ensure_consumer(connection, names, "a-b", Settings())
    info = await connection.api(f"CONSUMER.INFO.{names.tasks_stream}.{names.consumer('a.b')}")
    assert info["config"]["ack_wait"] == 3_000_000_000
    assert info["config"]["max_deliver"] == -1
    assert info["config"]["max_ack_pending"] == -1
    assert await topology.consumers(connection, names) == {"a.b": (0, 0, 0), "a-b": (0, 0, 0)}


async def make_consumer(connection: Connection, names: Names, **changes: object) -> dict[str, Any]:
    """The consumer of topic "a" as somebody else has made it."""
    name = names.consumer("a")
    config = {
        "durable_name": name,
        "name": name,
        "ack_policy": "explicit",
        "deliver_policy": "all",
        "filter_subject": names.task_filter("a"),
        **changes,
    }
    subject = f"CONSUMER.CREATE.{names.tasks_stream}.{name}.{names.task_filter('a')}"
    answer = await connection.api(subject, {"stream_name": names.tasks_stream, "config": config})
    made: dict[str, Any] = answer["config"]
    return made


async def test_a_consumer_keeps_what_cannot_be_changed_and_gets_the_rest(connection: Connection, names: Names) -> None:
    await make_consumer(connection, names, max_waiting=7, max_ack_pending=10, max_deliver=3, inactive_threshold=10**15)
    await streams.ensure_consumer(connection, names, "a", Settings(ack_wait=2.0))
    config = (await connection.api(f"CONSUMER.INFO.{names.tasks_stream}.{names.consumer('a')}"))["config"]
    assert (config["max_waiting"], config["inactive_threshold"]) == (7, 10**15)
    assert (config["max_ack_pending"], config["max_deliver"], config["ack_wait"]) == (-1, -1, 2_000_000_000)
    assert set(await topology.consumers(connection, names)) == {"a"}


async def test_a_consumer_that_is_paused_stays_paused(connection: Connection, names: Names) -> None:
    await streams.ensure_consumer(connection, names, "a", Settings())
    consumer = f"{names.tasks_stream}.{names.consumer('a')}"
    await connection.api(f"CONSUMER.PAUSE.{consumer}", {"pause_until": "2100-01-01T00:00:00Z"})
    await streams.ensure_consumer(connection, names, "a", Settings(ack_wait=2.0))
    info = await connection.api(f"CONSUMER.INFO.{consumer}")
    assert (info["paused"], info["config"]["ack_wait"]) == (True, 2_000_000_000)


async def test_a_consumer_that_corral_cannot_work_with_is_named(connection: Connection, names: Names) -> None:
    await make_consumer(connection, names, replay_policy="original")
    with pytest.raises(Misconfigured, match="its replay_policy is 'original' and should be 'instant'"):
        await streams.ensure_consumer(connection, names, "a", Settings())


async def test_many_make_one_consumer(connection: Connection, names: Names) -> None:
    await asyncio.gather(*(streams.ensure_consumer(connection, names, "a", Settings()) for _ in range(20)))
    assert set(await topology.consumers(connection, names)) == {"a"}


async def test_consumers_are_listed_beyond_one_page(connection: Connection, names: Names) -> None:
    topics = {f"t{number}" for number in range(300)}
    await asyncio.gather(*(streams.ensure_consumer(connection, names, topic, Settings()) for topic in topics))
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
