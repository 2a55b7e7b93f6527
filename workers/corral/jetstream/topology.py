"""How the streams and consumers of a namespace stand, and what can be done to what lies in them."""

from __future__ import annotations

import asyncio
from typing import Any

from corral.errors import ApiError
from corral.jetstream import direct
from corral.jetstream.connection import Connection
from corral.jetstream.direct import Stored
from corral.subjects import Names, check_run_id, check_topic, is_run_id, is_topic

_NO_STREAM = 10059
_GROWTH = 1_000  # bytes by which a run's keys grow until it has ended, for each topic that it has queued
_FEW = 50  # messages that are removed one by one
_NO_MESSAGE = (10037, 10043, 10057)  # the last two: it cannot be deleted, and for a message that is gone so it says


async def queue_counts(connection: Connection, names: Names, run_id: str | None = None) -> dict[tuple[str, str], int]:
    """How many messages are queued, in flight included, by (run id, topic), as the stream's leader says."""
    wanted = names.all_tasks if run_id is None else names.run_tasks(check_run_id(run_id))
    counts: dict[tuple[str, str], int] = {}
    for subject, count in (await subject_counts(connection, names.tasks_stream, wanted)).items():
        task = run, topic = names.split_task(subject)
        if is_run_id(run) and topic:  # else it is of no run, whoever has stored it
            counts[task] = count
    return counts


async def subject_counts(connection: Connection, stream: str, subject: str) -> dict[str, int]:
    """How many messages there are on each subject that fits `subject`, as the stream's leader says."""
    counts: dict[str, int] = {}
    offset = 0
    while True:
        answer = await connection.api(f"STREAM.INFO.{stream}", {"subjects_filter": subject, "offset": offset})
        page: dict[str, int] = answer["state"].get("subjects") or {}
        counts.update(page)
        offset += len(page)
        if not page or offset >= answer.get("total", 0):
            return counts


async def purge(connection: Connection, names: Names, run_id: str, topic: str, below: int) -> int:
    """Remove the messages of one run and topic whose sequence is less than `below`; how many they were.

    In-flight and waiting ones too. The count includes those in flight. Never removes anything else:
    a filter is always given, without wildcards.
    """
    if below <= 1:  # the server would take 0 for "all"
        return 0
    body = {"filter": names.task(check_run_id(run_id), check_topic(topic)), "seq": below}
    answer = await connection.api(f"STREAM.PURGE.{names.tasks_stream}", body)
    return int(answer["purged"])


async def purge_events(connection: Connection, names: Names, run_id: str) -> None:
    """Remove all events of one run."""
    await connection.api(f"STREAM.PURGE.{names.events_stream}", {"filter": names.event(check_run_id(run_id), ">")})


async def purge_key(connection: Connection, names: Names, key: str, revision: int | None = None) -> bool:
    """Remove a key of the bucket without a tombstone, if it is still of this revision; whether it was there."""
    body: dict[str, Any] = {"filter": names.key(key)}
    if revision is not None:
        body["seq"] = revision + 1
    answer = await connection.api(f"STREAM.PURGE.{names.bucket_stream}", body)
    return int(answer["purged"]) > 0


async def clear(connection: Connection, names: Names, run_id: str, topic: str, *, below: int, count: int) -> None:
    """As `purge`, where about `count` messages are expected; few of them are removed one by one.

    That is kinder: a purge of what is in flight makes the server forget messages of others (see `corral.stranded`).
    """
    good = is_topic(topic)  # a forged one may hold wildcards
    if count > _FEW and good:
        await purge(connection, names, run_id, topic, below)
        return
    subject = names.task(check_run_id(run_id), topic)
    wanted = {"next_by_subj": subject if good else names.run_tasks(run_id)}
    start = 1
    while stored := await direct.leader_get(connection, names.tasks_stream, {"seq": start, **wanted}):
        if stored.sequence >= below:
            return
        if good or stored.subject == subject:
            await remove(connection, names, stored.sequence)
        start = stored.sequence + 1


async def room(connection: Connection, names: Names) -> dict[str, tuple[int, int]]:
    """Of each stream, how many bytes it holds, and how many it may hold; -1 where it has no limit of its own.

    Of the bucket also those by which the records of what is queued will still grow.
    """
    streams = (names.tasks_stream, names.events_stream, names.bucket_stream)
    answers = await asyncio.gather(*[connection.api(f"STREAM.INFO.{stream}") for stream in streams])
    grows = {names.bucket_stream: _GROWTH * int(answers[0]["state"].get("num_subjects", 0))}
    return {
        stream: (int(answer["state"]["bytes"]) + grows.get(stream, 0), int(answer["config"]["max_bytes"]))
        for stream, answer in zip(streams, answers, strict=True)
    }


async def last_sequence(connection: Connection, stream: str) -> int:
    """The sequence of the stream's last message, as its leader says; 0 if nothing was ever stored."""
    answer = await connection.api(f"STREAM.INFO.{stream}")
    return int(answer["state"]["last_seq"])


async def consumers(connection: Connection, names: Names) -> dict[str, tuple[int, int, int]]:
    """Per topic that has a consumer: messages not yet delivered, delivered and not acknowledged, pulls that wait."""
    infos = await consumer_infos(connection, names)
    return {topic: (info["num_pending"], info["num_ack_pending"], info["num_waiting"]) for topic, info in infos.items()}


async def ack_floors(connection: Connection, names: Names) -> dict[str, int]:
    """Per topic that has a consumer: up to this sequence everything counts as acknowledged."""
    return {topic: ack_floor(info) for topic, info in (await consumer_infos(connection, names)).items()}


async def consumer_infos(connection: Connection, names: Names) -> dict[str, dict[str, Any]]:
    """What the server says of each topic's consumer, by topic."""
    found: dict[str, dict[str, Any]] = {}
    offset = 0
    while True:
        answer = await connection.api(f"CONSUMER.LIST.{names.tasks_stream}", {"offset": offset})
        page: list[dict[str, Any]] = answer.get("consumers") or []
        for info in page:
            topic = info["config"].get("metadata", {}).get("corral.topic")
            if topic is not None:
                found[topic] = info
        offset += len(page)
        if not page or offset >= answer.get("total", 0):
            return found


def ack_floor(info: dict[str, Any]) -> int:
    """Up to which sequence everything of a consumer counts as acknowledged."""
    return int(info["ack_floor"]["stream_seq"])


async def first_task(connection: Connection, names: Names, topic: str, start: int) -> Stored | None:
    """The first message of a topic from sequence `start` on, of any run, as the stream's leader says."""
    wanted = {"seq": start, "next_by_subj": names.task_filter(topic)}
    return await direct.leader_get(connection, names.tasks_stream, wanted)


async def remove(connection: Connection, names: Names, sequence: int) -> None:
    """Remove one task's message; nothing happens if it is gone."""
    try:
        await connection.api(f"STREAM.MSG.DELETE.{names.tasks_stream}", {"seq": sequence, "no_erase": True})
    except ApiError as error:
        if error.code not in _NO_MESSAGE:
            raise


async def subject_events(connection: Connection, stream: str, subject: str) -> list[Stored]:
    """All messages on `subject`, oldest first. A replica may be behind."""
    return await direct.all_on(connection, stream, subject)


async def destroy(connection: Connection, names: Names) -> None:
    """Remove the streams of this namespace with everything in them."""
    for stream in (names.tasks_stream, names.events_stream, names.bucket_stream):
        try:
            await connection.api(f"STREAM.DELETE.{stream}")
        except ApiError as error:
            if error.code != _NO_STREAM:
                raise
