"""A cluster that misses a node or a leader says so, for a while: callers see that as time, and then as an unknown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from corral.errors import Unconfirmed
from corral.jetstream.connection import Connection, Message
from corral.jetstream.publisher import Publisher

BUSY = b'{"error":{"code":503,"err_code":10008,"description":"JetStream system temporarily unavailable"}}'


@asynccontextmanager
async def answering(connection: Connection, subject: str, *, refused: int | None) -> AsyncIterator[Callable[[], int]]:
    """Something that answers on `subject` as a stream does, the first `refused` times (None: always) as one without a
    leader. It yields what tells how often it was asked."""
    asked = 0

    def on_message(message: Message) -> None:
        nonlocal asked
        asked += 1
        answer = BUSY if refused is None or asked <= refused else b'{"stream":"S","seq":7}'
        group.create_task(connection.publish(message.reply, answer))

    subscription = await connection.subscribe(subject, on_message)
    try:
        async with asyncio.TaskGroup() as group:
            yield lambda: asked
    finally:
        await subscription.close()


async def test_what_is_stored_waits_for_a_leader(connection: Connection, publisher: Publisher, namespace: str) -> None:
    async with answering(connection, namespace, refused=2) as asked:
        assert await publisher.store(namespace, b"x", expect=0) == 7
        assert asked() == 3


async def test_a_window_waits_for_a_leader(connection: Connection, publisher: Publisher, namespace: str) -> None:
    async with answering(connection, namespace, refused=2) as asked:
        window = publisher.window()
        for _ in range(2):
            await window.add(namespace, b"x")
        await window.settle()
        assert asked() == 4


async def test_without_a_leader_for_too_long_it_is_not_known_what_was_stored(
    connection: Connection, namespace: str
) -> None:
    async with answering(connection, namespace, refused=None):
        with pytest.raises(Unconfirmed):
            await Publisher(connection, timeout=0.5).store(namespace, b"x")


async def test_without_a_leader_for_too_long_a_call_has_no_answer(connection: Connection, namespace: str) -> None:
    connection._api_prefix = namespace
    async with answering(connection, f"{namespace}.X", refused=None):
        with pytest.raises(Unconfirmed):
            await connection.api("X", timeout=0.5)
