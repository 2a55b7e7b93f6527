"""What one execution sends, over a queue and a log in memory: so that many windows and batches take no time."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict

import pytest

from corral import fanout
from corral.errors import WrongLastSequence
from corral.events import AnyEvent, DispatcherEnd, Ended, Opened, decode_event
from corral.fanout import FanOut
from corral.ledger import Ledger
from corral.messages import ROOT, TaskId, decode_task
from corral.settings import Settings
from corral.subjects import Names

NAMES = Names()


class Store:
    """Streams in memory."""

    def __init__(self) -> None:
        self.events: list[tuple[int, AnyEvent]] = []
        self.queue: dict[TaskId, bytes] = {}
        self.copies = 0
        self._last: dict[str, int] = defaultdict(int)

    async def store(self, subject: str, payload: bytes, *, expect: int | None = None) -> int:
        await asyncio.sleep(0)
        if expect is not None and self._last[subject] != expect:
            raise WrongLastSequence(subject)
        self.events.append((len(self.events) + 1, decode_event(payload, subject)))
        self._last[subject] = len(self.events)
        return len(self.events)

    def window(self, on_full: object = None) -> Window:
        del on_full
        return Window(self)

    async def read_log(self, subject: str) -> list[tuple[int, AnyEvent]]:
        del subject
        return self.events


class Window:
    """Messages on their way."""

    dropped = 0
    full = False

    def __init__(self, store: Store) -> None:
        self._store = store
        self._added: list[bytes] = []

    async def add(self, subject: str, payload: bytes) -> None:
        del subject
        self._added.append(payload)
        await asyncio.sleep(0)

    async def settle(self) -> None:
        await asyncio.sleep(0)
        for payload in self._added:
            message = decode_task(payload)
            self._store.copies += message.task in self._store.queue
            self._store.queue[message.task] = bytes(message.body)
        self._added = []

    def give_up(self) -> None:
        raise AssertionError


def a_fanout(store: Store, *, resumed: bool = False) -> FanOut:
    nonces = itertools.count()
    return FanOut(
        run_id="r",
        task=ROOT,
        round=0,
        resumed=resumed,
        names=NAMES,
        sender=store,
        read_log=store.read_log,
        nonce=lambda: f"{resumed} {next(nonces)}",
        settings=Settings(window=3, window_delay=0.001),
    )


def folded(store: Store, sent: list[tuple[int, int]]) -> Ledger:
    ledger = Ledger("root")
    for sequence, event in store.events:
        ledger.apply(event, sequence)
    ended = Ended("w", 1, dispatchers=[DispatcherEnd("root", ROOT, 0, "success", sent)])
    before = ledger.counts()
    ledger.apply(ended, len(store.events) + 1)
    assert ledger.counts() == before
    return ledger


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "BATCH", 10)


async def test_a_fan_out_of_more_than_a_batch_can_have_goes_on_in_another() -> None:
    store = Store()
    sending = a_fanout(store)
    for i in range(100):
        await sending.send("item", b"%d" % i)
    sent = await sending.finish()
    assert len(sent) > 5
    assert sum(count for _, count in sent) == 100
    assert [store.queue[batch, n] for batch, count in sent for n in range(count)] == [b"%d" % i for i in range(100)]
    assert folded(store, sent).counts()[0].total == 100


async def test_many_who_send_at_once_lose_nothing_between_two_batches() -> None:
    store = Store()
    sending = a_fanout(store)

    async def send(name: int) -> None:
        for i in range(20):
            await sending.send(f"topic.{name}", b"[%d,%d]" % (name, i))

    await asyncio.gather(*[send(name) for name in range(7)])
    sent = await sending.finish()
    assert sorted(store.queue.values()) == sorted(b"[%d,%d]" % (name, i) for name in range(7) for i in range(20))
    assert set(store.queue) == {(batch, n) for batch, count in sent for n in range(count)}
    counts, topics = folded(store, sent).counts()
    assert counts.total == 140
    assert {topic: one.total for topic, one in topics.items()} == {f"topic.{name}": 20 for name in range(7)}


async def test_an_execution_after_another_sends_only_what_is_missing_of_many_batches() -> None:
    store = Store()
    first = a_fanout(store)
    for i in range(50):
        await first.send("item", b"%d" % i)
    await first.finish()
    opened = sum(isinstance(event, Opened) for _, event in store.events)
    second = a_fanout(store, resumed=True)
    for i in range(70):
        await second.send("item", b"%d" % i)
    sent = await second.finish()
    assert store.copies == 0
    assert opened < sum(isinstance(event, Opened) for _, event in store.events)
    assert [store.queue[batch, n] for batch, count in sent for n in range(count)] == [b"%d" % i for i in range(70)]
    assert folded(store, sent).counts()[0].total == 70
