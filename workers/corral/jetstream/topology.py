"""The streams and consumers of a namespace: making them, and asking how they stand."""

from __future__ import annotations

import logging
import secrets
from typing import Any

from corral.errors import ApiError, StorageFull
from corral.jetstream import direct
from corral.jetstream.connection import Connection
from corral.jetstream.direct import Stored
from corral.settings import Settings
from corral.subjects import Names, check_run_id, check_topic

_log = logging.getLogger(__name__)

_NS = 1_000_000_000
_NO_STREAM = 10059
_STREAM_EXISTS = 10058
_NO_STORAGE = 10047
_FEW = 50  # messages that are removed one by one
_NO_MESSAGE = (10037, 10043, 10057)  # the last two: it cannot be deleted, and for a message that is gone so it says
_NO_CONSUMER = 10014
# Seconds for which an expired key leaves a marker, so that whoever watches sees the end of it.
_MARKER_TTL = 600
# Pulls that may wait at one consumer, up to one for each slot of each worker. What is more the server
# drops without a word.
_MAX_WAITING = 65_536
_SMALLEST_DIVISOR = 64  # a server with room for less than this part of the settings is of no use
# What may be changed on a stream that exists; its limits stay as the operator has set them.
_UPDATED = ("num_replicas",)


async def ensure(connection: Connection, names: Names, settings: Settings) -> bool:
    """Make the streams that are missing; True if this call made the bucket, the last of them.

    Streams that exist keep their configuration. On a server with less room than the settings ask
    for, the streams' limits are made smaller until they fit.

    Raises:
        StorageFull: there is no room even for small streams.
        ApiError, PermissionDenied: as the server answers.
    """
    made: list[dict[str, Any]] = []
    divisor = 1
    for config in (_tasks(names, settings), _events(names, settings), _bucket(names, settings)):
        if await _keep_stream(connection, config):
            continue
        while True:
            try:
                if await _make_stream(connection, _smaller(config, divisor)):
                    made.append(config)
                break
            except StorageFull:
                divisor *= 2
                if divisor > _SMALLEST_DIVISOR:
                    raise
                for earlier in made:  # all shrink alike, so that the first takes no room from the last
                    await connection.api(f"STREAM.UPDATE.{earlier['name']}", _smaller(earlier, divisor))
    if made and divisor > 1:
        _log.warning("the streams are smaller than the settings say", extra={"divisor": divisor})
    return any(config["name"] == names.bucket_stream for config in made)


async def ensure_consumer(connection: Connection, names: Names, topic: str, settings: Settings) -> None:
    """Make the topic's durable consumer, or give the one that exists the present settings."""
    name = names.consumer(check_topic(topic))
    filter_subject = names.task_filter(topic)
    config = {
        "durable_name": name,
        "name": name,
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": int(settings.ack_wait * _NS),
        "max_deliver": -1,
        "max_ack_pending": -1,
        "max_waiting": _MAX_WAITING,
        "filter_subject": filter_subject,
        "replay_policy": "instant",
        "metadata": {"corral.topic": topic},
    }
    stream = names.tasks_stream
    body = {"stream_name": stream, "config": config}
    await connection.api(f"CONSUMER.CREATE.{stream}.{name}.{filter_subject}", body)


async def queue_counts(connection: Connection, names: Names, run_id: str | None = None) -> dict[tuple[str, str], int]:
    """How many messages are queued, in flight included, by (run id, topic), as the stream's leader says."""
    wanted = names.all_tasks if run_id is None else names.run_tasks(check_run_id(run_id))
    counts: dict[tuple[str, str], int] = {}
    offset = 0
    while True:
        body = {"subjects_filter": wanted, "offset": offset}
        answer = await connection.api(f"STREAM.INFO.{names.tasks_stream}", body)
        page: dict[str, int] = answer["state"].get("subjects") or {}
        for subject, count in page.items():
            counts[names.split_task(subject)] = count
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


async def clear(connection: Connection, names: Names, run_id: str, topic: str, *, below: int, count: int) -> None:
    """As `purge`, where about `count` messages are expected; few of them are removed one by one.

    That is kinder: a purge of what is in flight makes the server forget messages of others (see `corral.stranded`).
    """
    if count > _FEW:
        await purge(connection, names, run_id, topic, below)
        return
    wanted = names.task(check_run_id(run_id), check_topic(topic))
    start = 1
    while stored := await direct.leader_get(connection, names.tasks_stream, {"seq": start, "next_by_subj": wanted}):
        if stored.sequence >= below:
            return
        await remove(connection, names, stored.sequence)
        start = stored.sequence + 1


async def last_sequence(connection: Connection, stream: str) -> int:
    """The sequence of the stream's last message, as its leader says; 0 if nothing was ever stored."""
    answer = await connection.api(f"STREAM.INFO.{stream}")
    return int(answer["state"]["last_seq"])


async def consumers(connection: Connection, names: Names) -> dict[str, tuple[int, int, int]]:
    """Per topic that has a consumer: messages not yet delivered, delivered and not acknowledged, pulls that wait."""
    found: dict[str, tuple[int, int, int]] = {}
    offset = 0
    while True:
        answer = await connection.api(f"CONSUMER.LIST.{names.tasks_stream}", {"offset": offset})
        page: list[dict[str, Any]] = answer.get("consumers") or []
        for info in page:
            topic = info["config"].get("metadata", {}).get("corral.topic")
            if topic is not None:
                found[topic] = (info["num_pending"], info["num_ack_pending"], info["num_waiting"])
        offset += len(page)
        if not page or offset >= answer.get("total", 0):
            return found


async def ack_floors(connection: Connection, names: Names) -> dict[str, int]:
    """Per topic that has a consumer: up to this sequence everything counts as acknowledged."""
    found: dict[str, int] = {}
    offset = 0
    while True:
        answer = await connection.api(f"CONSUMER.LIST.{names.tasks_stream}", {"offset": offset})
        page: list[dict[str, Any]] = answer.get("consumers") or []
        for info in page:
            topic = info["config"].get("metadata", {}).get("corral.topic")
            if topic is not None:
                found[topic] = info["ack_floor"]["stream_seq"]
        offset += len(page)
        if not page or offset >= answer.get("total", 0):
            return found


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


# --- the streams ---------------------------------------------------------------------------------


def _tasks(names: Names, settings: Settings) -> dict[str, Any]:
    return {
        "name": names.tasks_stream,
        "subjects": [names.all_tasks],
        "retention": "workqueue",
        "max_bytes": settings.tasks_max_bytes,
        **_common(settings),
    }


def _events(names: Names, settings: Settings) -> dict[str, Any]:
    return {
        "name": names.events_stream,
        "subjects": [names.all_events],
        "retention": "limits",
        "max_bytes": settings.events_max_bytes,
        "max_age": int(settings.events_max_age * _NS),
        **_common(settings),
    }


def _bucket(names: Names, settings: Settings) -> dict[str, Any]:
    return {
        "name": names.bucket_stream,
        "subjects": [names.key(">")],
        "retention": "limits",
        "max_bytes": settings.runs_max_bytes,
        "max_msgs_per_subject": 1,
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        "allow_msg_ttl": True,
        "subject_delete_marker_ttl": _MARKER_TTL * _NS,
        **_common(settings),
    }


def _common(settings: Settings) -> dict[str, Any]:
    return {
        "storage": "file",
        # The server's default drops the oldest message, acknowledged or not, without a word.
        "discard": "new",
        "allow_direct": True,
        "num_replicas": settings.replicas,
    }


def _smaller(config: dict[str, Any], divisor: int) -> dict[str, Any]:
    return {**config, "max_bytes": config["max_bytes"] // divisor}


async def _make_stream(connection: Connection, config: dict[str, Any]) -> bool:
    """True if this call has made the stream; StorageFull if its limit is more than the server has."""
    name = config["name"]
    # The server answers a second creation with the same configuration as if it were the first.
    # With a mark of its own only one caller's creation succeeds.
    marked = {**config, "metadata": {"corral.created": secrets.token_hex(8)}}
    try:
        await connection.api(f"STREAM.CREATE.{name}", marked)
    except ApiError as error:
        if error.code == _STREAM_EXISTS:
            return False
        if error.code == _NO_STORAGE:
            raise StorageFull(name, error.description) from None
        raise
    _log.info("stream created", extra={"stream": name, "max_bytes": config["max_bytes"]})
    return True


async def _keep_stream(connection: Connection, config: dict[str, Any]) -> bool:
    """Whether the stream exists."""
    name = config["name"]
    try:
        answer = await connection.api(f"STREAM.INFO.{name}")
    except ApiError as error:
        if error.code == _NO_STREAM:
            return False
        raise
    existing: dict[str, Any] = answer["config"]
    changes = {key: config[key] for key in _UPDATED if existing.get(key) != config[key]}
    if changes:
        await connection.api(f"STREAM.UPDATE.{name}", {**existing, **changes})
        _log.info("stream changed", extra={"stream": name, "changes": changes})
    return True
