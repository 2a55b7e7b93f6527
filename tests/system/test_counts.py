"""What a run counts, while it goes on and when it has ended."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import msgspec

from corral.messages import encode_task
from corral.subjects import interrupt_key
from tests.system.apps.fanout import BRANCH, DISPATCH, Many, One, Tree
from tests.system.pools import System

MINE = """
import msgspec
from corral import App, Context

class Ids(msgspec.Struct):
    ids: list[int]

app = App()

@app.processor("find")
async def find(message: Ids, ctx: Context) -> None:
    for id in message.ids:
        await ctx.send(load, id)
        await ctx.send(check, {"id": id})

@app.processor("load")
async def load(id: int) -> None: ...

@app.processor("check")
def check(message: dict[str, int]) -> None:
    if message["id"] == 3:
        raise ValueError("not this one")
"""


async def test_a_pool_runs_the_processors_of_a_file_of_ones_own(system: System, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    await system.pool("mine.py", folder=tmp_path)
    client = await system.client()
    run = await client.start("find", {"ids": list(range(50))})
    status = (await system.audit(run)).status
    assert (status.status, status.total, status.success, status.error) == ("failed", 100, 99, 1)
    assert {topic: (counts.success, counts.error) for topic, counts in status.topics.items()} == {
        "load": (50, 0),
        "check": (49, 1),
    }
    (error,) = [error async for error in client.errors(run.id)]
    assert (error.topic, error.type, error.message) == ("check", "ValueError", "not this one")


async def test_a_fan_out_is_counted_exactly_and_its_dispatcher_is_not(system: System) -> None:
    await system.pool("fanout", workers=2)
    run = await (await system.client()).start(DISPATCH, Many(1000, bad=10))
    status = (await system.audit(run)).status
    assert (status.status, status.root) == ("failed", "success")
    assert (status.total, status.success, status.error) == (1000, 990, 10)
    assert {topic: (counts.success, counts.error) for topic, counts in status.topics.items()} == {
        "left": (660, 6),
        "right": (330, 4),
    }
    truth = system.truth()
    assert sorted(truth) == sorted(f"{'left' if i % 3 else 'right'} {i}" for i in range(1000))
    assert set(truth.values()) == {1}


async def test_nested_fan_outs_are_counted_on_every_level(system: System) -> None:
    await system.pool("fanout", workers=2)
    run = await (await system.client()).start(BRANCH, Tree(width=5, depth=4))
    status = (await system.audit(run)).status
    assert (status.status, status.total) == ("success", 5 + 25 + 125 + 625)
    assert {topic: counts.success for topic, counts in status.topics.items()} == {
        "tree.branch": 5 + 25 + 125,
        "tree.leaf": 625,
    }
    leaves = [f"leaf {''.join(path)}" for path in product("01234", repeat=4)]
    truth = system.truth()
    assert {line: truth[line] for line in truth if line.startswith("leaf")} == dict.fromkeys(leaves, 1)


async def test_a_root_that_sends_nothing_is_counted_itself(system: System) -> None:
    await system.pool("fanout")
    run = await (await system.client()).start(DISPATCH, Many(0))
    status = (await system.audit(run)).status
    assert (status.status, status.root, status.total, status.success) == ("success", "success", 1, 1)
    assert status.topics["dispatch"].success == 1


async def test_counts_are_live_while_a_run_goes_on(system: System) -> None:
    await system.pool("fanout")
    run = await (await system.client()).start(DISPATCH, Many(100, hold=60, stop_at=7))
    dispatcher = await system.stage.arrival("dispatching")
    waiting = await system.stage.arrival("in the middle")
    half = await system.reached(run, lambda now: (now.total, now.success) == (60, 59), "all that was sent, but one")
    assert (half.status, half.root, half.pending + half.running) == ("running", "running", 1)
    assert half.started_at is not None
    assert half.finished_at is None
    shown = await system.reached(run, lambda status: status.running == 1, "the one that runs")
    assert shown.topics["left"].running == 1
    dispatcher.answer()
    rest = await system.reached(run, lambda status: status.root == "success", "the end of the dispatcher")
    assert rest.total == 100
    waiting.answer()
    assert (await system.audit(run)).status.success == 100


async def test_many_runs_at_once_are_counted_apart(system: System) -> None:
    await system.pool("fanout", workers=2)
    client = await system.client()
    runs = [await client.start(DISPATCH, Many(n)) for n in range(1, 31)]
    assert [(await system.audit(run)).status.total for run in runs] == list(range(1, 31))
    assert [status.id for status in await client.runs()] == [run.id for run in reversed(runs)]


async def test_a_task_that_turns_up_long_after_its_run_is_not_executed(system: System) -> None:
    """Of a dispatcher that was stopped in the middle of its fan-out, and goes on when even the marker is gone."""
    await system.pool("fanout", slots=1)
    client = await system.client()
    run = await client.start(DISPATCH, Many(1))
    await system.audit(run)
    records, names = client.operations.records, client.operations.names
    marker = await records.get(interrupt_key(run.id), leader=True)
    assert marker is not None
    await records.delete(marker.key, marker.revision)
    late = encode_task((1, 5), 0, msgspec.json.encode(One(5)))
    await client.operations.publisher.store(names.task(run.id, "left"), late)
    status = (await system.audit(await client.start(DISPATCH, Many(3)))).status
    assert status.success == 3
    assert "left 5" not in system.truth()
    assert await client.queued(run.id) == 0
