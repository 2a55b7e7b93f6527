"""The feed against a real server: what it folds is what is stored, over outages too."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest

from corral.checkpoint_reading import Loaded, read_checkpoint
from corral.client import Client
from corral.errors import NoServer
from corral.messages import parse_task
from corral.subjects import LEDGER_ANCHOR_KEY, LEDGER_KEYS, Names
from corral_tui import feed
from corral_tui.app import Dashboard
from corral_tui.feed import Feed
from corral_tui.fold import Detail
from corral_tui.kept import MOST
from corral_tui.state import State
from corral_tui.values import RunView
from tests.servers import ServerProcess
from tests.system.apps.again import Family, keyed
from tests.system.apps.fanout import DISPATCH, Many
from tests.system.pools import System
from tests.system.stage import within
from tests.system.test_checkpoints import anchored, forge
from tests.system.test_retry import decide
from tests.tui.drawn import drawn_lines


class Watched:
    """A running feed, and a way to wait until it knows something."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self._news = asyncio.Event()
        loop = asyncio.get_running_loop()
        feed.changed = lambda: loop.call_soon_threadsafe(self._news.set)

    async def until(self, fact: Callable[[State], bool], what: str) -> None:
        async def wait() -> None:
            while True:
                self._news.clear()
                with self.feed.lock:
                    if fact(self.feed.state):
                        return
                await self._news.wait()

        await within(wait(), what)

    async def run(self, run_id: str, fact: Callable[[RunView], bool], what: str) -> RunView:
        """A run, as soon as it shows something."""
        found: list[RunView] = []

        def shows(state: State) -> bool:
            view = state.run(run_id, self.feed._clock())
            if view is not None and fact(view):
                found.append(view)
            return bool(found)

        await self.until(shows, what)
        return found[0]


@asynccontextmanager
async def watched(url: str, namespace: str, *, most: int = MOST) -> AsyncIterator[Watched]:
    feed = Feed(url, namespace, most=most)
    watch = Watched(feed)
    feed.start()
    try:
        yield watch
    finally:
        await asyncio.to_thread(feed.stop)
    assert feed.failure is None


async def test_a_live_run_is_counted_exactly_and_its_record_proven_at_the_end(system: System) -> None:
    await system.pool("fanout", workers=2)
    run = await (await system.client()).start(DISPATCH, Many(300, stop_at=7, bad=5))
    held = await system.stage.arrival("in the middle")
    async with watched(system.url, system.settings.namespace) as watch:
        live = await watch.run(
            run.id,
            lambda view: view.folded and (view.counts.success, view.counts.error, view.counts.running) == (294, 5, 1),
            "all but the one that waits",
        )
        assert (live.status, live.counts.total, live.counts.error, live.counts.pending) == ("running", 300, 5, 0)
        assert set(live.topics) == {"left", "right"}
        await watch.until(lambda state: state.truth(watch.feed._clock()).workers == 2, "the beats of both workers")
        watch.feed.look_at(run.id)
        held.answer()
        ended = await watch.run(run.id, lambda view: view.ended and not view.folded, "the end of the run")
        assert (ended.status, ended.counts.success, ended.counts.error) == ("failed", 295, 5)
        await watch.until(lambda state: state.agrees(run.id) is True, "that the record agrees with the events")
        detail = watch.feed.state.detail
        assert isinstance(detail, Detail)
        assert len(detail.errors) == 5
        assert all(error.type == "ValueError" for error in detail.errors.values())
    await system.audit(run)


async def test_a_run_that_begins_while_it_is_watched_is_counted_from_its_first_event(system: System) -> None:
    async with watched(system.url, system.settings.namespace) as watch:
        await watch.until(lambda state: state.link.ready, "that the runs have been read")
        await system.pool("fanout")
        run = await (await system.client()).start(DISPATCH, Many(200))
        ended = await watch.run(run.id, lambda view: view.ended, "the end of the run")
        assert (ended.status, ended.counts.total, ended.counts.success) == ("success", 200, 200)


async def test_a_live_run_is_opened_from_the_bookkeepers_checkpoint(system: System) -> None:
    system.set(checkpoint_interval=0.1)
    await system.pool("fanout")
    client = await system.client()
    run = await client.start(DISPATCH, Many(400, hold=300, bad=4))
    held = await system.stage.arrival("dispatching")
    status = await system.reached(run, lambda status: status.success == 296, "the ends of what it has sent")
    anchor = await anchored(client, status.seq)
    names = Names(system.settings.namespace)
    gone = {"seq": anchor.sequence + 1, "filter": names.event(run.id, "ended")}
    assert (await client.connection.api(f"STREAM.PURGE.{names.events_stream}", gone))["purged"] > 0
    async with watched(system.url, system.settings.namespace) as watch:
        live = await watch.run(run.id, lambda view: view.folded, "the run, counted here")
        assert (live.counts.total, live.counts.success, live.counts.error) == (300, 296, 4)
        held.answer()
        ended = await watch.run(run.id, lambda view: view.ended, "the end of the run")
        assert (ended.status, ended.counts.success, ended.counts.error) == ("failed", 396, 4)


async def test_a_checkpoint_that_cannot_be_trusted_is_not_used(system: System) -> None:
    system.set(checkpoint_interval=0.1)
    await system.pool("fanout")
    client = await system.client()
    run = await client.start(DISPATCH, Many(40, hold=30))
    held = await system.stage.arrival("dispatching")
    status = await system.reached(run, lambda status: status.success == 30, "the ends of what it has sent")
    await anchored(client, status.seq)
    record = await client.operations.record(run.id)

    async def found() -> Loaded:
        entries = await client.operations.records.entries(LEDGER_KEYS)
        return await read_checkpoint(client.connection, client.operations.names, entries, {run.id: record})

    loaded = await found()
    assert loaded.anchor is not None
    assert loaded.ledgers[run.id].counts()[0].success == 30
    for value in (b"{", msgspec.json.encode(msgspec.structs.replace(loaded.anchor, digest="of another event"))):
        await forge(client, LEDGER_ANCHOR_KEY, value)
        assert (await found()).anchor is None
        async with watched(system.url, system.settings.namespace) as watch:
            live = await watch.run(run.id, lambda view: view.folded, "the run, counted from its events")
            assert live.counts.success == 30
    held.answer()
    await system.audit(run)


async def test_the_story_of_a_task_is_read_from_its_events(system: System) -> None:
    await system.pool("fanout")
    run = await (await system.client()).start(DISPATCH, Many(20, bad=3))
    await system.audit(run)
    async with watched(system.url, system.settings.namespace) as watch:
        await watch.until(lambda state: state.runs() == [run.id], "the run")
        watch.feed.look_at(run.id)
        await watch.until(lambda state: state.agrees(run.id) is True, "all of its events")
        detail = watch.feed.state.detail
        assert detail is not None
        (group,) = detail.groups.views(detail.fold.ledger.tree, detail.fold.ledger.sequence)
        assert group.count == 3
        story = await watch.feed.story(run.id, parse_task(group.sample.task))
        kinds = [step.kind for step in story.steps]
        assert kinds[:2] == ["batch", "queued"]
        assert {"failed", "ended"} <= set(kinds)
        assert story.errors[0].type == "ValueError"


async def test_an_ended_run_can_be_looked_into(system: System) -> None:
    await system.pool("fanout")
    run = await (await system.client()).start(DISPATCH, Many(100, bad=3))
    await system.audit(run)
    async with watched(system.url, system.settings.namespace) as watch:
        await watch.until(lambda state: state.runs() == [run.id], "the run")
        assert watch.feed.state.folds == {}
        watch.feed.look_at(run.id)
        await watch.until(lambda state: state.agrees(run.id) is True, "the proof")
        assert watch.feed.state.detail is not None
        assert watch.feed.state.detail.seen_errors == 3


async def test_a_run_whose_record_was_not_kept_can_be_looked_into(system: System) -> None:
    await system.pool("fanout")
    client = await system.client()
    for name in ("first", "second"):
        await system.audit(await client.start(DISPATCH, Many(10, bad=1), id=name))
    async with watched(system.url, system.settings.namespace, most=1) as watch:
        await watch.until(lambda state: state.runs() == ["second"] and state.link.ready, "the last run")
        assert watch.feed.state.leaves_out("first")
        watch.feed.look_at("first")
        await watch.until(lambda state: state.agrees("first") is True, "the proof")
        assert set(watch.feed.state.runs()) == {"first", "second"}


async def test_an_outage_is_shown_and_over_when_the_server_is_back(
    server_process: Callable[..., ServerProcess], namespace: str
) -> None:
    server = server_process()
    async with watched(server.url, namespace) as watch:
        await watch.until(lambda state: state.link.ready, "that the runs have been read")
        server.stop()
        await watch.until(lambda state: state.link.phase == "offline", "that the server is gone")
        server.start()
        await watch.until(lambda state: state.link.phase == "live", "that the server is back")
        async with Client(server.url, namespace) as client:
            run = await client.start("nobody-serves-this", {})
            view = await watch.run(run.id, lambda view: view.counts.total == 1, "a run that was started afterwards")
            assert view.status == "queued"


async def test_without_a_server_it_fails_and_says_why(server_process: Callable[..., ServerProcess]) -> None:
    server = server_process()
    server.stop()
    feed = Feed(server.url, "nobody")
    feed.start()
    await within(asyncio.to_thread(feed._thread.join), "the end of the feed")
    assert isinstance(feed.failure, NoServer)


async def test_an_interrupt_is_carried_out_and_its_receipt_shown(system: System) -> None:
    await system.pool("fanout")
    run = await (await system.client()).start(DISPATCH, Many(400, hold=300))
    await system.stage.arrival("dispatching")
    feed = Feed(system.url, system.settings.namespace)
    app = SignallingDashboard(feed)
    try:
        async with app.run_test(size=(120, 40)) as pilot:
            await app.until(lambda text: run.id[:8] in text and "300" in text, "the run in the list")
            await pilot.press("i")
            await app.until(lambda text: "Interrupt dispatch" in text, "the question")
            await pilot.press("y")
            await app.until(lambda text: "finished first" in text and "interrupted" in text, "the receipt")
    finally:
        await asyncio.to_thread(feed.stop)
    status = (await system.audit(run)).status
    assert status.status == "interrupted"


async def test_a_retry_is_carried_out_and_the_run_ends_once_more(system: System) -> None:
    await system.pool("again")
    client = await system.client()
    run = await client.start(keyed, Family(1))
    (await system.stage.arrival("keyed")).answer("fail")
    assert (await system.audit(run)).status.status == "failed"
    feed = Feed(system.url, system.settings.namespace)
    app = SignallingDashboard(feed)
    try:
        async with app.run_test(size=(120, 40)) as pilot:
            await app.until(lambda text: run.id[:8] in text and "✗" in text, "the failed run in the list")
            await pilot.press("r")
            await app.until(lambda text: "brings back 1 error; 0 stay done" in text, "the question")
            await pilot.press("y")
            await app.until(lambda text: "1 task brought back" in text and "▶" in text, "the run under way again")
            (await system.stage.arrival("keyed")).answer()
            await app.until(lambda text: "✓" in text and "▶" not in text, "its success")
    finally:
        await asyncio.to_thread(feed.stop)
    assert (await system.audit(run)).status.status == "success"


async def test_one_error_of_a_group_is_retried_and_the_others_stay(system: System) -> None:
    await system.pool("again")
    client = await system.client()
    deciding = asyncio.create_task(decide(system, fails=4))
    run = await client.start("parent", Family(30))
    assert (await system.audit(run)).status.error == 9
    deciding.cancel()
    system.stage.open("child")
    feed = Feed(system.url, system.settings.namespace)
    app = SignallingDashboard(feed)
    try:
        async with app.run_test(size=(120, 40)) as pilot:
            await app.until(lambda text: run.id[:8] in text and "✗" in text, "the failed run in the list")
            await pilot.press("enter")
            await app.until(lambda text: "Errors 9 in 1 group" in text and "proven" in text, "its errors")
            await pilot.press("3", "enter", "r")
            await app.until(lambda text: "one of 9 errors" in text, "the question")
            await pilot.press("y")
            await app.until(lambda text: "1 task brought back" in text and "Errors 8 in 1 group" in text, "the others")
            await app.until(lambda text: "✗ failed" in text and "↻ retried" in text, "the end of the round")
            await pilot.press("escape", "r")
            await app.until(lambda text: "brings back 8 of 8 errors" in text, "the question about the group")
            await pilot.press("y")
            await app.until(lambda text: "✓ success" in text, "its success")
    finally:
        await asyncio.to_thread(feed.stop)
    assert (await system.audit(run)).status.success == 39


class SignallingDashboard(Dashboard):
    """Lets a test wait for what stands on the screen."""

    def __init__(self, feed: Feed) -> None:
        super().__init__(feed)
        self._drawn = asyncio.Event()

    def tick(self) -> None:
        super().tick()
        self.call_after_refresh(self._drawn.set)

    async def until(self, fact: Callable[[str], bool], what: str) -> None:
        async def wait() -> None:
            while not fact("\n".join(drawn_lines(self))):
                self._drawn.clear()
                await self._drawn.wait()

        await within(wait(), what)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (None, ""),
        ("nats://corral:secret@127.0.0.1:4222", "127.0.0.1:4222"),
        ("nats://token@a:1,nats://b:2", "a:1, b:2"),
        ("localhost:4222", "localhost:4222"),
    ],
)
def test_no_secret_is_ever_shown(url: str | None, shown: str) -> None:
    assert Feed(url, None).state.link.server == shown


async def test_what_is_seriously_wrong_is_found_by_itself_and_of_one_run_when_it_is_asked(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "HEALTH", 0.1)
    await system.pool("alone")
    run = await (await system.client()).start("blocks", 1)
    blocking = await system.stage.arrival("blocks")

    def found(state: State, code: str) -> bool:
        return state.diagnosis is not None and code in {finding.code for finding in state.diagnosis.findings}

    async with watched(system.url, system.settings.namespace) as watch:
        await watch.until(lambda state: found(state, "loop-blocked"), "a blocked loop")
        asked = await watch.feed.diagnose(run.id)
        assert asked.facts.run == run.id
        assert "loop-blocked" in {finding.code for finding in asked.findings}
        os.kill(blocking.pid, signal.SIGSTOP)
        try:
            await watch.until(lambda state: found(state, "worker-silent"), "a silent worker")
        finally:
            os.kill(blocking.pid, signal.SIGCONT)
        await watch.until(lambda state: not found(state, "worker-silent"), "that it is heard again")
        blocking.answer()
        await watch.until(lambda state: not found(state, "loop-blocked"), "that it goes on")
    await system.end(run)
