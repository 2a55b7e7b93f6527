"""A few histories of faults, so that every change meets them; `make chaos` runs as many as one likes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.chaos.drawing import make_plan
from tests.chaos.history import describe, run_history
from tests.chaos.servers import Servers

ON_ONE_SERVER = (533, 1001)
"""Seeds: a bookkeeper that was frozen while it wrote a checkpoint, once left an anchor without the ledgers before it,
and processes of isolated tasks that are killed; the server and a worker killed."""
ON_A_CLUSTER = (8, 10)
"""A rolling restart, in which a reader once met a consumer whose node was away; a node that is cut off together with a
pool and a producer."""


@pytest.fixture
async def servers(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Servers]:
    """One server, or three."""
    servers = Servers(tmp_path / "servers", cluster=request.param)
    await servers.start()
    yield servers
    await servers.stop()


@pytest.mark.parametrize(
    ("seed", "servers"),
    [*((seed, False) for seed in ON_ONE_SERVER), *((seed, True) for seed in ON_A_CLUSTER)],
    indirect=["servers"],
)
@pytest.mark.timeout(300)
async def test_nothing_is_lost_and_counts_are_exact(seed: int, servers: Servers, tmp_path: Path) -> None:
    plan = make_plan(seed, cluster=servers.cluster)
    print(describe(plan))
    outcome = await run_history(plan, servers, tmp_path / "history")
    print(*outcome.struck, *(path.read_text() for path in (tmp_path / "history").glob("*.log")), sep="\n")
    assert not outcome.findings.wrong


def test_a_history_follows_from_its_seed() -> None:
    assert make_plan(7) == make_plan(7) != make_plan(8)
    assert make_plan(7, cluster=True) != make_plan(7)
