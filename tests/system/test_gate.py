"""The questions of producers, on a server without roles: what is refused, and what a flood of them costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from corral import gate
from corral.errors import BadMessage, BadName, NoResponder, PermissionDenied, RunNotFound, StorageFull, Unconfirmed
from corral.gate import Gate, Gated
from corral.jetstream import topology
from corral.jetstream.connection import Connection
from corral.jetstream.streams import ensure
from corral.settings import Settings
from corral.subjects import Names
from tests.system.stage import within


@pytest.fixture
async def asking(nats_url: str, namespace: str) -> AsyncIterator[Gated]:
    """A producer, and a gate that answers it."""
    settings = Settings(namespace=namespace)
    keeper, producer = [await Connection.open([nats_url], name=name) for name in ("keeper", "producer")]
    await ensure(keeper, Names(namespace), settings)
    serving = asyncio.create_task(Gate(keeper, settings).serve())
    gated = Gated(producer, settings, by="test")

    async def answers() -> None:
        while True:
            try:
                await gated.record("nobody")
            except RunNotFound:
                return
            except NoResponder:
                continue  # it is about to listen

    await within(answers(), "the gate")
    yield gated
    serving.cancel()
    await asyncio.wait({serving})
    await gated.close()
    await topology.destroy(keeper, Names(namespace))
    await producer.close()
    await keeper.close()


async def test_a_record_comes_without_its_message(asking: Gated) -> None:
    run = await asking.start("some.topic", {"word": "secret"})
    record = await asking.record(run.id)
    assert (record.id, record.topic, bytes(record.body)) == (run.id, "some.topic", b"null")
    assert (await run.status()).status == "queued"


@pytest.mark.parametrize(
    ("topic", "options", "error"),
    [
        ("Bad Topic", {}, BadName),
        ("x.>", {}, BadName),
        ("some", {"id": "a b"}, BadName),
        ("some", {"unique": ""}, BadName),
        ("some", {"on_duplicate": "replace"}, PermissionDenied),
    ],
)
async def test_what_is_wrong_comes_back_as_the_error_that_it_is(
    asking: Gated, topic: str, options: dict[str, str], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await asking.start_raw(topic, b"{}", **options)  # type: ignore[arg-type]


async def test_a_body_that_is_no_json_is_refused(asking: Gated) -> None:
    with pytest.raises(BadMessage):
        await asking.start_raw("some", b"{")


async def test_a_flood_is_refused_before_it_costs_memory(asking: Gated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "MOST", 0)
    with pytest.raises(StorageFull, match="too many starts at once"):
        await asking.start("some", {})


async def test_what_the_bookkeeper_fails_at_is_not_known(asking: Gated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "_ERRORS", {})
    with pytest.raises(Unconfirmed, match="the bookkeeper says: 'Bad Topic' is not a run id"):
        await asking.start("some", {}, id="Bad Topic")
