"""A system for each test: its own namespace, stage and folder."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from corral import bitmap, retrying, sending
from tests.system.pools import System
from tests.system.stage import Stage


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """Where the processors of a test announce themselves."""
    async with Stage() as stage:
        yield stage


@pytest.fixture
async def system(nats_url: str, namespace: str, tmp_path: Path, stage: Stage) -> AsyncIterator[System]:
    """A namespace on the session's server, without pools yet."""
    async with System(nats_url, namespace, tmp_path, stage) as system:
        yield system


@pytest.fixture
def small_parts() -> Iterator[None]:
    """Few tasks do not fit into one event, nor into one window."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bitmap, "PAGE", 64)
        patch.setattr(retrying, "PART", 40)
        patch.setattr(sending, "WINDOW", 5)
        yield
