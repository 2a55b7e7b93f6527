"""The streams and consumers of a namespace: made where they are missing, kept as Corral needs them where they exist.

What exists may be older than this version of Corral, or was changed by an operator. What Corral cannot work without is
set right, and where the server does not allow that the error says so. All else stays: limits, pauses, placement, and
what the server lets nobody change.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from typing import Any

from corral.errors import ApiError, Misconfigured, PermissionDenied, StorageFull
from corral.jetstream.connection import Connection
from corral.settings import Settings
from corral.subjects import Names, check_topic

_log = logging.getLogger(__name__)

_NS = 1_000_000_000
_NO_STREAM = 10059
_STREAM_EXISTS = 10058
_NO_STORAGE = 10047
_NO_CONSUMER = 10014
_NOT_CHANGEABLE = (10012, 10052)  # of a consumer, of a stream
# Seconds for which an expired key leaves a marker, so that whoever watches sees the end of it.
_MARKER_TTL = 600
# Pulls that may wait at one consumer, up to one for each slot of each worker. What is more the server
# drops without a word. It cannot be changed later.
_MAX_WAITING = 65_536
_SMALLEST_DIVISOR = 64  # a server with room for less than this part of the settings is of no use
_TRIES = 3  # of looking and making, while others make the same
_DEFAULT_AGE = int(Settings().events_max_age * _NS)
_DEFAULTS = {Settings().tasks_max_bytes, Settings().events_max_bytes, Settings().runs_max_bytes}
# What Corral cannot do without, where it is part of the configuration. Limits stay as the operator has set them.
_STREAM_NEEDS = (
    "subjects",
    "retention",
    "discard",
    "allow_direct",
    "num_replicas",
    "max_msgs_per_subject",
    "allow_msg_ttl",
    "subject_delete_marker_ttl",
)
_CONSUMER_NEEDS = (
    "deliver_policy",
    "ack_policy",
    "ack_wait",
    "max_deliver",
    "max_ack_pending",
    "filter_subject",
    "replay_policy",
)


async def ensure(connection: Connection, names: Names, settings: Settings) -> bool:
    """Make the streams that are missing; True if this call made the bucket, the last of them.

    Streams that exist keep their limits, but one that is below a limit that was set on purpose (other than the
    default) is raised to it. On a server with less room than the settings ask for, the limits of new streams are made
    smaller until they fit.

    Raises:
        StorageFull: there is no room even for small streams.
        Misconfigured: a stream exists that Corral cannot work with, and that cannot be changed.
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


async def keep_events(connection: Connection, names: Names, settings: Settings) -> None:
    """Keep events for as long as the settings say from now on, if that was set on purpose (other than the default).

    It drops what is older, and so is not for those who only look. An unlimited age stays, and a user who may not
    change the stream leaves it as it is.
    """
    name, age = names.events_stream, int(settings.events_max_age * _NS)
    existing = await _config_of(connection, f"STREAM.INFO.{name}", _NO_STREAM)
    if existing is None or age == _DEFAULT_AGE or existing.get("max_age", 0) in (0, age):
        return
    # The server wants to know of duplicates no longer than of messages.
    duplicates = min(existing.get("duplicate_window", age), age)
    try:
        await connection.api(f"STREAM.UPDATE.{name}", {**existing, "max_age": age, "duplicate_window": duplicates})
    except PermissionDenied as error:
        _log.warning("events are kept for another time than is set", extra={"error": str(error)})
    else:
        _log.info("stream changed", extra={"stream": name, "changes": {"max_age": age / _NS}})


async def ensure_consumer(connection: Connection, names: Names, topic: str, settings: Settings) -> None:
    """Make the topic's durable consumer, or give the one that exists the present settings.

    Raises:
        Misconfigured: it exists in a form that Corral cannot work with, and that cannot be changed.
        ApiError, PermissionDenied: as the server answers.
    """
    name = names.consumer(check_topic(topic))
    stream = names.tasks_stream
    wanted = {
        "durable_name": name,
        "name": name,
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": int(settings.ack_wait * _NS),
        "max_deliver": -1,
        "max_ack_pending": -1,
        "max_waiting": _MAX_WAITING,
        "filter_subject": names.task_filter(topic),
        "replay_policy": "instant",
        "metadata": {"corral.topic": topic},
    }
    for _ in range(_TRIES):
        existing = await _config_of(connection, f"CONSUMER.INFO.{stream}.{name}", _NO_CONSUMER)
        config, changes = (wanted, wanted) if existing is None else _merged(existing, wanted, _CONSUMER_NEEDS)
        if not changes:
            return
        try:
            await connection.api(
                f"CONSUMER.CREATE.{stream}.{name}.{wanted['filter_subject']}", {"stream_name": stream, "config": config}
            )
        except ApiError as error:
            if error.code not in _NOT_CHANGEABLE:
                raise
            if existing is not None:
                raise Misconfigured(f"the consumer {name} of stream {stream}", _told(existing, changes)) from error
            continue  # somebody else has made it meanwhile: look again
        if existing is not None:
            _log.info("consumer changed", extra={"topic": topic, "changes": changes})
        return


# --- what exists ---------------------------------------------------------------------------------


async def _keep_stream(connection: Connection, config: dict[str, Any]) -> bool:
    """Whether the stream exists; then it is as it has to be."""
    name = config["name"]
    existing = await _config_of(connection, f"STREAM.INFO.{name}", _NO_STREAM)
    if existing is None:
        return False
    merged, changes = _merged(existing, config, _STREAM_NEEDS)
    if changes:
        try:
            await connection.api(f"STREAM.UPDATE.{name}", merged)
        except ApiError as error:
            if error.code not in _NOT_CHANGEABLE:
                raise
            raise Misconfigured(f"the stream {name}", _told(existing, changes)) from error
        _log.info("stream changed", extra={"stream": name, "changes": changes})
    await _raise_limit(connection, merged, config["max_bytes"])
    return True


async def _raise_limit(connection: Connection, existing: dict[str, Any], limit: int) -> None:
    """Give the stream the limit of the settings, if that is more, and was set on purpose."""
    name, before = existing["name"], existing["max_bytes"]
    if limit in _DEFAULTS or before < 0 or limit <= before:
        return
    try:
        await connection.api(f"STREAM.UPDATE.{name}", {**existing, "max_bytes": limit})
    except ApiError as error:
        if error.code != _NO_STORAGE:
            raise
        _log.warning(
            "the server has no room for a higher limit", extra={"stream": name, "limit": before, "wanted": limit}
        )
    else:
        _log.info("stream changed", extra={"stream": name, "changes": {"max_bytes": limit}})


async def _config_of(connection: Connection, question: str, absent: int) -> dict[str, Any] | None:
    """The configuration of a stream or consumer; None if there is none."""
    try:
        answer = await connection.api(question)
    except ApiError as error:
        if error.code == absent:
            return None
        raise
    config: dict[str, Any] = answer["config"]
    return config


def _merged(
    existing: dict[str, Any], wanted: Mapping[str, Any], needs: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What exists with what is needed, and what of that is new. The server leaves out what is false or 0."""
    changes = {
        key: wanted[key] for key in needs if key in wanted and (existing.get(key) or None) != (wanted[key] or None)
    }
    marks = {**existing.get("metadata", {}), **wanted.get("metadata", {})}
    if marks != existing.get("metadata", {}):
        changes["metadata"] = marks
    return {**existing, **changes}, changes


def _told(existing: Mapping[str, Any], changes: Mapping[str, Any]) -> list[str]:
    """The differences, in words."""
    return [f"its {key} is {existing.get(key)!r} and should be {value!r}" for key, value in changes.items()]


# --- what is made --------------------------------------------------------------------------------


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
