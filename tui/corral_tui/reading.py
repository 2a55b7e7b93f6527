"""Reading what is stored of one run, for the feed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

from corral.client import Client, StoredEvent
from corral.events import encode_event
from corral.messages import TaskId
from corral_tui.replay import History
from corral_tui.story import Story

T = TypeVar("T")

MOST = 64 * 1024 * 1024
"""Bytes of a run's events that are read for a replay."""
CHUNK = 100
"""Events or records that are folded while the lock is held: the screen waits no longer than that."""


async def events_of(client: Client, run_id: str) -> AsyncIterator[tuple[bool, list[StoredEvent]]]:
    """The events of a run in batches, each with whether all begins anew: the server has lost what came last."""
    position = 0
    async for batch in client.read_events(run_id=run_id):
        yield bool(batch) and batch[0].seq <= position, batch
        position = batch[-1].seq if batch else position


async def read_story(client: Client, run_id: str, task: TaskId) -> Story:
    """All that is stored about one task."""
    story = Story(task)
    async for again, batch in events_of(client, run_id):
        if not batch:
            break
        if again:
            story = Story(task)
        for chunk in chunks(batch):
            for stored in chunk:
                story.apply(stored.seq, stored.at, stored.event)
            await asyncio.sleep(0)
    story.complete = True
    return story


async def read_history(client: Client, run_id: str) -> tuple[History, bool]:
    """The stored events of a run, and whether that is all of them."""
    history: History = []
    size = 0
    async for again, batch in events_of(client, run_id):
        if not batch:
            break
        if again:
            history, size = [], 0
        for stored in batch:
            event = encode_event(stored.event)
            size += len(event)
            if size > MOST:
                return history, False
            history.append((stored.seq, stored.at, event))
        await asyncio.sleep(0)
    return history, True


def chunks(batch: Sequence[T]) -> list[Sequence[T]]:
    """Parts that are folded without a pause."""
    return [batch[start : start + CHUNK] for start in range(0, len(batch), CHUNK)]
