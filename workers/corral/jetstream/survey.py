"""How a server stands, for whoever asks why nothing moves. Only looks: nothing is made, changed or consumed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from corral.doctor.facts import Account, ConsumerFacts, Kind, StreamFacts
from corral.errors import ApiError
from corral.jetstream import direct
from corral.jetstream.connection import Connection
from corral.jetstream.direct import Stored
from corral.jetstream.topology import ack_floor, consumer_infos
from corral.subjects import Names

_NS = 1_000_000_000
_NO_STREAM = 10059
_NEEDS: Mapping[Kind, Mapping[str, object]] = {
    "tasks": {"retention": "workqueue", "discard": "new", "allow_direct": True},
    "events": {"retention": "limits", "discard": "new", "allow_direct": True},
    "runs": {"retention": "limits", "discard": "new", "allow_direct": True, "allow_msg_ttl": True},
}


class Seen(NamedTuple):
    """A stream, and what its answer says of the server's clock."""

    stream: StreamFacts
    ahead: float | None
    """Seconds by which the server's clock is ahead; the way there and back is taken for equally long."""


async def look_at_stream(connection: Connection, name: str, kind: Kind) -> Seen | None:
    """A stream; None if there is none."""
    asked = time.time()
    try:
        answer = await connection.api(f"STREAM.INFO.{name}")
    except ApiError as error:
        if error.code == _NO_STREAM:
            return None
        raise
    middle = (asked + time.time()) / 2
    config, state = answer["config"], answer["state"]
    stream = StreamFacts(
        name=name,
        kind=kind,
        messages=state["messages"],
        bytes=state["bytes"],
        limit=config.get("max_bytes", -1),
        problems=_differences(config, _NEEDS[kind]),
        behind=[
            replica["name"]
            for replica in (answer.get("cluster") or {}).get("replicas") or []
            if replica.get("offline") or not replica.get("current")
        ],
    )
    now = answer.get("ts")
    return Seen(stream, None if now is None else direct.parse_time(now) - middle)


async def look_at_account(connection: Connection) -> Account:
    """What the account's streams take together."""
    answer = await connection.api("INFO")
    return Account(bytes=answer.get("storage", 0), limit=(answer.get("limits") or {}).get("max_storage", -1))


async def look_at_consumers(connection: Connection, names: Names) -> tuple[dict[str, ConsumerFacts], dict[str, int]]:
    """The consumers by topic; and up to which sequence everything of it counts as acknowledged."""
    infos = await consumer_infos(connection, names)
    found = {topic: _consumer(info, names.task_filter(topic)) for topic, info in infos.items()}
    return found, {topic: ack_floor(info) for topic, info in infos.items()}


async def last_event(connection: Connection, stream: str, subject: str) -> Stored | None:
    """The last message on a subject. A replica may be behind."""
    return await direct.last(connection, stream, subject)


def _consumer(info: dict[str, Any], subjects: str) -> ConsumerFacts:
    config = info["config"]
    needs = {
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "max_deliver": -1,
        "max_ack_pending": -1,
        "filter_subject": subjects,
    }
    return ConsumerFacts(
        waiting=info["num_pending"],
        held=info["num_ack_pending"],
        asks=info["num_waiting"],
        delivered=info["delivered"]["consumer_seq"],
        ack_wait=config.get("ack_wait", 0) / _NS,
        paused=info.get("pause_remaining", 0) / _NS if info.get("paused") else 0.0,
        problems=_differences(config, needs),
    )


def _differences(config: Mapping[str, Any], needs: Mapping[str, object]) -> list[str]:
    """In words. The server leaves out what is false or 0."""
    return [
        f"its {name} is {config.get(name)!r} and should be {value!r}"
        for name, value in needs.items()
        if (config.get(name) or None) != (value or None)
    ]
