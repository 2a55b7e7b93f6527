"""The only part of the dashboard that talks to the server: it folds what is stored, and what comes, into a state.

It lives on a thread and a loop of its own. A terminal that stops reading stops the loop that draws; the fold goes on.

    records ──> state.put_record      every run, and the counts of those that have ended
    events  ──> state.apply           of all runs that are live, from the bookkeeper's checkpoint on, or from before the
                                      oldest of them
    events  ──> state.detail.apply    of the one run that is looked at, all of them
    beats   ──> state.beat            workers, and what runs
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

from corral import __version__
from corral.checkpoint_reading import Anchor, read_checkpoint
from corral.checkup import Known, examine
from corral.client import Client
from corral.doctor import diagnose
from corral.errors import CorralError
from corral.events import Receipt
from corral.leaving import Departure, How
from corral.messages import TaskId
from corral.runs import Beat, Record
from corral.subjects import LEADER_KEY, LEDGER_KEYS
from corral_tui.diagnosis import Diagnosis
from corral_tui.fold import Detail
from corral_tui.kept import MOST
from corral_tui.reading import chunks, events_of, read_history, read_story
from corral_tui.replay import History
from corral_tui.state import State
from corral_tui.story import Story
from corral_tui.values import Link, Phase

T = TypeVar("T")

MARGIN = 60.0
"""Seconds before the oldest live run from which on events are read: clocks differ."""
LEASE = 2.0
"""Seconds between two looks at who keeps the books."""
HEALTH = 10.0
"""Seconds between two looks for what is seriously wrong."""
WATCH = 0.2
"""Seconds between two looks at the connection."""
GATHER = 0.03
"""Seconds for which events that come one by one are gathered: to begin to fold costs as much as to fold some."""


class Feed:
    """A source for the screens. `url` and `namespace` as for a client; `most` records of each kind of run are kept."""

    def __init__(
        self, url: str | None, namespace: str | None, *, clock: Callable[[], float] = time.time, most: int = MOST
    ) -> None:
        self.state = State(most)
        self.state.link = Link(server=_address(url), since=clock())
        self.failure: Exception | None = None
        self.read_only = False
        self.lock = threading.RLock()
        self.changed: Callable[[], object] = lambda: None
        """Called on the feed's thread after each change of the state."""
        self._url, self._namespace = url, namespace
        self._clock = clock
        self._thread = threading.Thread(target=self._run, name="corral feed", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._client: Client | None = None
        self._wanted: str | None = None
        self._looking: asyncio.Task[None] | None = None
        self._tasks: asyncio.TaskGroup | None = None

    # --- from the thread of the screens --------------------------------------------------------------

    def start(self) -> None:
        if self._thread.ident is None:
            self._thread.start()

    def stop(self) -> None:
        if not self._thread.is_alive():
            return
        self._call(lambda: self._main.cancel() if self._main else None)
        self._thread.join(10)

    def look_at(self, run_id: str | None) -> None:
        self._wanted = run_id
        with self.lock:
            self.state.detail = None
            self.state.hold(run_id)
        self._call(self._look)

    async def interrupt(self, run_id: str) -> Receipt | None:
        return await self._ordered(lambda client: client.interrupt(run_id, wait=True))

    async def retry(self, run_id: str, tasks: Sequence[str] | None = None) -> int:
        return await self._ordered(lambda client: client.retry(run_id, tasks=tasks))

    async def dismiss(self, how: How, workers: Sequence[str]) -> list[Departure]:
        return await self._ordered(lambda client: (client.drain if how == "drain" else client.stop)(*workers))

    async def story(self, run_id: str, task: TaskId) -> Story:
        return await self._ordered(lambda client: read_story(client, run_id, task))

    async def diagnose(self, run_id: str | None) -> Diagnosis:
        with self.lock:
            records = list(self.state.records.values()) if self.state.link.ready else None
        return await self._ordered(lambda client: self._diagnose(client, run_id, records))

    async def history(self, run_id: str) -> tuple[History, bool]:
        return await self._ordered(lambda client: read_history(client, run_id))

    async def _ordered(self, order: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
        """What the client makes of an order, in its own thread."""
        client, loop = self._client, self._loop
        if client is None or loop is None:
            raise CorralError("not connected yet")
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(order(client), loop))

    def _call(self, what: Callable[[], object]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what)

    # --- on the thread of the feed -------------------------------------------------------------------

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except asyncio.CancelledError:
            pass
        except ExceptionGroup as group:
            self.failure = _first(group)
        except Exception as error:  # noqa: BLE001  the screens' thread raises it
            self.failure = error

    async def _live(self) -> None:
        self._loop, self._main = asyncio.get_running_loop(), asyncio.current_task()
        async with Client(self._url, self._namespace) as client, asyncio.TaskGroup() as tasks:
            self._client, self._tasks = client, tasks
            records_read = asyncio.Event()
            tasks.create_task(self._watch_connection(client))
            tasks.create_task(self._read_records(client, records_read))
            tasks.create_task(self._read_beats(client))
            tasks.create_task(self._read_events(client, records_read))
            tasks.create_task(self._ask_rights(client))
            tasks.create_task(self._watch_bookkeeper(client))
            tasks.create_task(self._watch_health(client, records_read))
            self._look()

    async def _ask_rights(self, client: Client) -> None:
        """Nothing depends on it but what the screens offer: it may be asked again until there is an answer."""
        while True:
            try:
                self.read_only = not await client.may_act()
            except CorralError:
                await asyncio.sleep(WATCH)
            else:
                self.changed()
                return

    async def _watch_bookkeeper(self, client: Client) -> None:
        """Say who keeps the books, from the lease."""
        while True:
            try:
                entry = await client.operations.records.get(LEADER_KEY)
            except CorralError:
                name = None
            else:
                name = entry.value.decode(errors="replace") if entry else ""
            with self.lock:
                self.state.bookkeeper = name
                if name is not None:
                    self.state.hear(self._clock())
            await asyncio.sleep(LEASE)

    async def _watch_health(self, client: Client, records_read: asyncio.Event) -> None:
        """Look for what is seriously wrong, from time to time."""
        await records_read.wait()
        while True:
            await asyncio.sleep(HEALTH)
            with self.lock:
                records = list(self.state.records.values())
            try:
                found: Diagnosis | None = await self._diagnose(client, None, records)
            except CorralError:
                found = None  # the connection is lost, or this user may not: both are said elsewhere
            with self.lock:
                self.state.diagnosis = found
            self.changed()

    async def _diagnose(self, client: Client, run_id: str | None, records: Sequence[Record] | None = None) -> Diagnosis:
        with self.lock:
            known = Known(records, self.state.heard(self._clock()))
        facts = await examine(client.operations, version=__version__, run_id=run_id, known=known)
        return Diagnosis(self._clock(), facts, tuple(diagnose(facts)))

    async def _watch_connection(self, client: Client) -> None:
        """Say whether it is there; the connection itself comes back without us."""
        server = ", ".join(_address(address) for address in client.connection.addresses)
        while True:
            phase: Phase = "live" if client.connection.connected else "offline"
            with self.lock:
                link = self.state.link
                if link.phase != phase:
                    self.state.link = replace(link, server=server or link.server, phase=phase, since=self._clock())
                    self.changed()
            await asyncio.sleep(WATCH)

    async def _read_records(self, client: Client, read: asyncio.Event) -> None:
        async for batch in client.read_records():
            for chunk in chunks(batch):
                with self.lock:
                    self.state.hear(self._clock())
                    for run_id, record in chunk:
                        if record is None:
                            self.state.drop_record(run_id)
                        else:
                            self.state.put_record(record)
                await asyncio.sleep(0)
            if not batch and not read.is_set():
                with self.lock:
                    self._begin_history()
                read.set()
            self.changed()

    def _begin_history(self) -> None:
        """All records are there: from here on it is known which events are needed."""
        live = [record.created_at for record in self.state.records.values() if record.live]
        self.state.history_from = min(live, default=self._clock()) - MARGIN
        self.state.link = replace(self.state.link, ready=True)

    async def _read_events(self, client: Client, records_read: asyncio.Event) -> None:
        await records_read.wait()
        anchor = await self._resume(client)
        if anchor is not None:
            batches = client.read_events(behind=(anchor.sequence, anchor.time))
        else:
            batches = client.read_events(since=self.state.history_from)
        position = 0
        with self.lock:
            self.state.reads_anew()
        async for batch in batches:
            if not batch:
                with self.lock:
                    self.state.has_read()
            if batch and batch[0].seq <= position:
                with self.lock:  # the server has lost what came last, and begins again
                    self.state.restart()
            position = batch[-1].seq if batch else position
            for chunk in chunks(batch):
                now = self._clock()
                with self.lock:
                    self.state.hear(now)
                    for stored in chunk:
                        self.state.apply(stored.run_id, stored.seq, stored.at, stored.event, now)
                self.changed()
                await asyncio.sleep(0)
            if self.state.abreast:
                await asyncio.sleep(GATHER)

    async def _resume(self, client: Client) -> Anchor | None:
        """Take over what the bookkeeper has folded, so that only what was stored since has to be read."""
        with self.lock:
            live = {record.id: record for record in self.state.records.values() if record.live}
        if not live:
            return None
        try:
            entries = await client.operations.records.entries(LEDGER_KEYS)
            loaded = await read_checkpoint(client.connection, client.operations.names, entries, live)
        except CorralError:
            return None  # not ours to read: events say the same, if it takes longer
        if loaded.anchor is not None:
            with self.lock:
                self.state.resume(loaded.ledgers, loaded.doubtful)
        return loaded.anchor

    async def _read_beats(self, client: Client) -> None:
        def heard(beat: Beat, at: float) -> None:
            with self.lock:
                self.state.hear(at)
                self.state.beat(beat, at)
            self.changed()

        end = await client.on_beat(heard)
        try:
            await asyncio.Event().wait()
        finally:
            await end()

    # --- the run that is looked at -------------------------------------------------------------------

    def _look(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        if self._wanted is not None and self._tasks is not None and self._client is not None:
            self._looking = self._tasks.create_task(self._read_detail(self._client, self._wanted))

    async def _read_detail(self, client: Client, run_id: str) -> None:
        await self._fetch(client, run_id)
        detail = self._new_detail(run_id)
        async for again, batch in events_of(client, run_id):
            if again:
                detail = self._new_detail(run_id)
            for chunk in chunks(batch):
                with self.lock:
                    record = self.state.records.get(run_id)
                    detail.fold.ledger.tree.topic = record.topic if record else detail.fold.ledger.tree.topic
                    for stored in chunk:
                        detail.apply(stored.seq, stored.at, stored.event)
                await asyncio.sleep(0)
            detail.caught_up = detail.caught_up or not batch
            self.changed()

    async def _fetch(self, client: Client, run_id: str) -> None:
        """Read a record that came before it was known that this one is to be kept."""
        with self.lock:
            left_out = self.state.leaves_out(run_id)
        if not left_out:
            return
        with suppress(CorralError):
            record = await client.operations.record(run_id)
            with self.lock:
                if self.state.leaves_out(run_id):
                    self.state.put_record(record)

    def _new_detail(self, run_id: str) -> Detail:
        with self.lock:
            record = self.state.records.get(run_id)
            detail = self.state.detail = Detail(run_id, record.topic if record else "")
        return detail


def _address(url: str | None) -> str:
    """Host and port of each URL, without user and password."""
    found = [urlsplit(part if "//" in part else f"//{part}").netloc for part in (url or "").split(",")]
    return ", ".join(netloc.rpartition("@")[2] for netloc in found if netloc)


def _first(group: BaseExceptionGroup[BaseException]) -> Exception:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            return _first(error)
        if isinstance(error, Exception):
            return error
    return RuntimeError("the feed ended without a reason")
