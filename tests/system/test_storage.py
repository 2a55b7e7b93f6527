"""The server has no room at all, or not for events, and later has some again: nothing is lost or done twice."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from corral import StorageFull
from corral.jetstream.connection import Connection
from corral.jetstream.publisher import Publisher
from corral.subjects import Names
from tests.servers import ServerProcess
from tests.system.apps.pressure import Spread
from tests.system.pools import System
from tests.system.stage import Stage

MB = 1_000_000


@pytest.fixture
async def tight(server_process: Callable[..., ServerProcess], tmp_path: Path, stage: Stage) -> AsyncIterator[System]:
    """A system on a server with little room."""
    server = server_process(max_file="40MB")
    async with System(server.url, "tight", tmp_path, stage) as system:
        system.set(ack_wait=2.0, tasks_max_bytes=4 * MB, events_max_bytes=4 * MB, runs_max_bytes=4 * MB)
        yield system


class Filler:
    """Takes all the room that there is: of the server, by somebody else's stream without a limit, or of one stream."""

    def __init__(self, connection: Connection, names: Names) -> None:
        self._connection = connection
        self._publisher = Publisher(connection)
        self._subjects = {"server": "hog", "events": names.event("nobody", "padding"), "runs": names.key("padding.%d")}
        self._streams = {"events": names.events_stream, "runs": names.bucket_stream}

    async def fill(self, what: str) -> None:
        """Until nothing fits any more."""
        if what == "server":
            await self._connection.api("STREAM.CREATE.HOG", {"name": "HOG", "subjects": ["hog"], "storage": "file"})
        numbers = itertools.count()
        for size in (500_000, 50_000, 5_000, 500, 50, 1):
            while await self._fits(self._subjects[what].replace("%d", str(next(numbers))), size):
                pass

    async def free(self, what: str) -> None:
        """Give it back."""
        if what == "server":
            await self._connection.api("STREAM.DELETE.HOG")
        else:
            stream = self._streams[what]
            config = (await self._connection.api(f"STREAM.INFO.{stream}"))["config"]
            await self._connection.api(f"STREAM.UPDATE.{stream}", {**config, "max_bytes": 8 * MB})

    async def _fits(self, subject: str, size: int) -> bool:
        try:
            await self._publisher.store(subject, b"x" * size)
        except StorageFull:
            return False
        return True


@pytest.fixture
async def filler(tight: System) -> AsyncIterator[Filler]:
    connection = await Connection.open([tight.url], name="filler")
    yield Filler(connection, Names(tight.settings.namespace))
    await connection.close()


async def later(system: System, seconds: float) -> None:
    """Until the workers have said for so long that they live."""
    end = time.monotonic() + seconds
    await system.until(lambda: time.monotonic() > end and bool(system.beats), "heartbeats")


@pytest.mark.parametrize("what", ["server", "events"])
async def test_without_room_for_events_nothing_is_pulled_and_nothing_lost(
    tight: System, filler: Filler, what: str
) -> None:
    pool = await tight.pool("pressure", workers=2, slots=5)
    client = await tight.client()
    run = await client.start("spread", Spread(40, topic="item.waits"))
    running = await tight.stage.arrivals("item", 10)
    await tight.reached(run, lambda status: status.total == 40, "all that it sends")
    await filler.fill(what)
    for arrival in running:
        arrival.answer()
    await later(tight, 3 * tight.settings.ack_wait)
    assert "an event is not stored yet" in pool.log.read_text()
    # Those that were pulled before the first refusal. Their workers keep them for longer than ack_wait.
    more = await tight.stage.arrivals("item", tight.stage.waiting("item"))
    assert len(more) <= 10
    for arrival in more:
        arrival.answer()
    await later(tight, 2 * tight.settings.ack_wait)
    assert tight.stage.waiting("item") == 0
    with pytest.raises(StorageFull):
        await client.start("spread", Spread(1))
    with pytest.raises(StorageFull):
        await run.interrupt()
    await filler.free(what)
    for _ in range(30 - len(more)):
        (await tight.stage.arrival("item")).answer()
    status = (await tight.audit(run)).status
    assert (status.status, status.total, status.success) == ("success", 40, 40)
    assert tight.stage.waiting("item") == 0
    again = await client.start("spread", Spread(3))
    assert (await tight.audit(again)).status.success == 3


async def test_without_room_for_records_work_goes_on_and_is_counted_later(tight: System, filler: Filler) -> None:
    await tight.pool("pressure", slots=5)
    client = await tight.client()
    run = await client.start("spread", Spread(40, topic="item.waits"))
    running = await tight.stage.arrivals("item", 5)
    await tight.reached(run, lambda status: status.total == 40, "all that it sends")
    await filler.fill("runs")
    for arrival in running:
        arrival.answer()
    for _ in range(35):
        (await tight.stage.arrival("item")).answer()
    with pytest.raises(StorageFull):
        await client.start("spread", Spread(1))
    assert (await run.status()).status == "running"
    await filler.free("runs")
    status = (await tight.audit(run)).status
    assert (status.status, status.total, status.success) == ("success", 40, 40)


@pytest.mark.parametrize("what", ["server", "events", "runs"])
async def test_an_order_to_stop_is_carried_out_when_there_is_room_again(
    tight: System, filler: Filler, what: str
) -> None:
    await tight.pool("pressure", slots=5)
    client = await tight.client()
    run = await client.start("spread", Spread(40, topic="item.waits"))
    running = await tight.stage.arrivals("item", 5)
    await tight.reached(run, lambda status: status.total == 40, "all that it sends")
    await run.interrupt()
    await filler.fill(what)
    for arrival in running:
        await arrival.gone()
    await filler.free(what)
    assert (await tight.audit(run)).status.status == "interrupted"


async def test_an_interrupt_makes_room_when_the_queue_is_all_that_is_full(tight: System) -> None:
    pool = await tight.pool("pressure", topics="spread")
    run = await (await tight.client()).start("spread", Spread(1_000, padding="x" * 10_000))
    await tight.until(lambda: any(beat.waiting for beat in tight.beats.values()), "a task that waits for room")
    await tight.until(lambda: "the queue is full" in pool.log.read_text(), "the pool's word that it waits")
    await run.interrupt()
    status = (await tight.audit(run)).status
    assert (status.status, status.interrupted) == ("interrupted", status.total)
