"""Real systems for the tests of the feed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.system.pools import System
from tests.system.stage import Stage


@pytest.fixture
async def system(nats_url: str, namespace: str, tmp_path: Path) -> AsyncIterator[System]:
    """A namespace on the session's server, without pools yet."""
    async with Stage() as stage, System(nats_url, namespace, tmp_path, stage) as system:
        yield system
