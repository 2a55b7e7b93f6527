"""Who is there: the heartbeats of workers, a roll call of all of them, and the topics that they serve."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec

from corral.jetstream.connection import Message
from corral.jetstream.topology import consumers, queue_counts
from corral.operations import Operations
from corral.questions import ROLL_CALL
from corral.runs import Beat, TopicStatus, decode_beat

QUIET = 0.25
"""Seconds without a new answer after which a roll call of the workers is complete."""


async def listen(operations: Operations, callback: Callable[[Beat, float], None]) -> Callable[[], Any]:
    """Call back with every heartbeat and the time it was heard; returns an async function that ends this."""
    names = operations.names

    def heard(message: Message) -> None:
        try:
            beat = decode_beat(message.data)
        except msgspec.DecodeError:
            return  # not one of ours
        if message.subject == names.beat(beat.id):  # else it is in another's name
            callback(beat, time.time())

    subscription = await operations.connection.subscribe(names.all_beats, heard)
    await operations.connection.publish(names.control(ROLL_CALL))
    return subscription.close


async def roll_call(operations: Operations) -> list[tuple[Beat, float]]:
    """Ask every worker to beat at once; the answers, when no more come."""
    heard: dict[str, tuple[Beat, float]] = {}
    news = asyncio.Event()

    def on_beat(beat: Beat, at: float) -> None:
        if not beat.leaving:
            heard[beat.id] = (beat, at)
        news.set()

    close = await listen(operations, on_beat)
    try:
        async with asyncio.timeout(operations.settings.beat + QUIET):
            await news.wait()
            while True:
                news.clear()
                async with asyncio.timeout(QUIET):
                    await news.wait()
    except TimeoutError:
        pass
    finally:
        await close()
    return list(heard.values())


async def topic_statuses(operations: Operations) -> list[TopicStatus]:
    """Every topic that has messages or workers."""
    connection, names = operations.connection, operations.names
    waiting: dict[str, int] = {}
    for (_, topic), count in (await queue_counts(connection, names)).items():
        waiting[topic] = waiting.get(topic, 0) + count
    served: dict[str, int] = {}
    running: dict[str, int] = {}
    roots = {record.id: record.topic for record in await operations.all_records() if record.live}
    for beat, _ in await roll_call(operations):
        for topic in () if beat.leaves else beat.topics:
            served[topic] = served.get(topic, 0) + 1
        for topics in beat.running.values():
            for topic, count in topics.items():
                running[topic] = running.get(topic, 0) + count
        for run_id in beat.roots:
            if run_id in roots:
                running[roots[run_id]] = running.get(roots[run_id], 0) + 1
    known = {*waiting, *served, *await consumers(connection, names)}
    return [
        TopicStatus(
            topic=topic,
            pending=max(0, waiting.get(topic, 0) - running.get(topic, 0)),
            running=running.get(topic, 0),
            workers=served.get(topic, 0),
        )
        for topic in sorted(known)
    ]
