"""How single tasks end, and what they see."""

from __future__ import annotations

import pytest

from corral.errors import BadMessage
from corral.events import Retrying
from corral.messages import RESERVE
from tests.system.apps.outcomes import Fails, Typed
from tests.system.pools import System

MAX_PAYLOAD = 1 << 20
"""What the tests' server takes."""


async def test_a_rejected_message_ends_as_error_at_once(system: System) -> None:
    await system.pool("outcomes")
    client = await system.client()
    run = await client.start("reject", Typed(1))
    status = (await system.audit(run)).status
    assert (status.status, status.total, status.error) == ("failed", 1, 1)
    (error,) = [error async for error in client.errors(run.id)]
    assert (error.type, error.message, error.attempt) == ("Reject", "no ids", 1)
    assert system.truth()["rejected"] == 1


async def test_a_body_of_the_wrong_shape_ends_as_error_that_says_what_is_wrong(system: System) -> None:
    await system.pool("outcomes")
    client = await system.client()
    run = await client.start("typed", {"n": "seven"})
    status = (await system.audit(run)).status
    assert (status.status, status.error) == ("failed", 1)
    (error,) = [error async for error in client.errors(run.id)]
    assert (error.type, error.message) == ("ValidationError", "Expected `int`, got `str` - at `$.n`")
    assert bytes(error.body) == b'{"n":"seven"}'
    assert system.truth().keys() == {"entered"}


@pytest.mark.parametrize("topic", ["flaky", "flaky.thread"])
async def test_a_failing_task_is_tried_again_while_attempts_are_left(system: System, topic: str) -> None:
    await system.pool("outcomes")
    run = await (await system.client()).start(topic, Fails(times=2))
    audit = await system.audit(run)
    assert (audit.status.status, audit.status.success) == ("success", 1)
    assert {line: count for line, count in system.truth().items() if "attempt" in line} == {
        f"0-0 attempt {attempt}": 1 for attempt in (1, 2, 3)
    }
    assert [stored.event.attempt for stored in audit.events if isinstance(stored.event, Retrying)] == [2, 3]


async def test_the_last_attempt_that_fails_is_the_error(system: System) -> None:
    await system.pool("outcomes")
    client = await system.client()
    run = await client.start("flaky", Fails(times=9))
    status = (await system.audit(run)).status
    assert (status.status, status.error) == ("failed", 1)
    (error,) = [error async for error in client.errors(run.id)]
    assert (error.message, error.attempt) == ("attempt 3 of 10", 3)
    assert error.traceback.splitlines()[1].endswith("in flaky")


async def test_a_dispatcher_that_fails_and_is_tried_again_counts_what_the_last_attempt_sent(system: System) -> None:
    await system.pool("outcomes")
    run = await (await system.client()).start("dispatch.flaky", Fails(times=1))
    status = (await system.audit(run)).status
    assert (status.status, status.root, status.total, status.success) == ("success", "success", 7, 7)


async def test_a_dispatcher_that_ends_as_error_is_counted_beside_what_it_sent(system: System) -> None:
    await system.pool("outcomes")
    run = await (await system.client()).start("dispatch.flaky", Fails(times=2))
    status = (await system.audit(run)).status
    assert (status.status, status.root, status.total) == ("failed", "error", 8)
    assert (status.success, status.error) == (7, 1)
    assert status.topics["dispatch.flaky"].error == 1


async def test_a_requeued_task_comes_again_without_spending_its_attempt(system: System) -> None:
    await system.pool("outcomes")
    run = await (await system.client()).start("requeue", Typed(1))
    for _ in range(3):
        (await system.stage.arrival("requeue?")).answer("again")
    (await system.stage.arrival("requeue?")).answer("enough")
    assert (await system.audit(run)).status.status == "success"
    assert system.truth()["attempt 1"] == 4


async def test_an_attempt_that_takes_too_long_fails(system: System) -> None:
    await system.pool("outcomes")
    client = await system.client()
    run = await client.start("late", Typed(1))
    assert (await system.audit(run)).status.error == 1
    (error,) = [error async for error in client.errors(run.id)]
    assert (error.type, error.message, error.attempt) == ("TimeoutError", "took longer than 0.2 s", 2)
    assert [system.truth()[f"attempt {attempt}"] for attempt in (1, 2)] == [1, 1]


async def test_a_thread_that_takes_too_long_fails_when_it_looks(system: System) -> None:
    await system.pool("outcomes")
    client = await system.client()
    run = await client.start("late.thread", Typed(1))
    assert (await system.audit(run)).status.error == 1
    (error,) = [error async for error in client.errors(run.id)]
    assert (error.type, error.message) == ("TimeoutError", "took longer than 0.2 s")


async def test_a_body_over_the_limit_is_refused_and_nothing_is_stored(system: System) -> None:
    client = await system.client()
    limit = MAX_PAYLOAD - RESERVE
    with pytest.raises(BadMessage, match=f"{limit + 1:,} bytes are more than the limit of {limit:,}"):
        await client.start("typed", "x" * (limit - 1))  # and two quotation marks
    with pytest.raises(BadMessage):
        await client.start_raw("typed", b"1" * (limit + 1), unique="key")
    assert await client.runs() == []
    assert await client.topics() == []
    assert await client.holder("key") is None


async def test_a_body_over_the_limit_fails_the_task_that_sends_it(system: System) -> None:
    await system.pool("outcomes")
    client = await system.client()
    run = await client.start("big", MAX_PAYLOAD)
    status = (await system.audit(run)).status
    assert (status.total, status.error) == (1, 1)
    (error,) = [error async for error in client.errors(run.id)]
    assert error.type == "BadMessage"


async def test_the_biggest_body_and_the_loudest_error_fit_into_an_event(system: System) -> None:
    await system.pool("outcomes")
    client = await system.client()
    body = "x" * (MAX_PAYLOAD - RESERVE - 2)
    run = await client.start("loud", body)
    assert (await system.audit(run)).status.error == 1
    (error,) = [error async for error in client.errors(run.id)]
    assert error.type == "ValueError"


async def test_an_unknown_topic_stays_queued_and_is_shown_as_unserved(system: System) -> None:
    await system.pool("outcomes", topics="typed")
    client = await system.client()
    unserved = await client.start("nobody.knows", {})
    other = await client.start("reject", Typed(1))  # this pool leaves it to others
    served = await client.start("typed", Typed(1))
    await system.audit(served)
    topics = {topic.topic: topic for topic in await client.topics()}
    assert {name: topic.workers for name, topic in topics.items()} == {"nobody.knows": 0, "reject": 0, "typed": 1}
    assert {name: topic.pending for name, topic in topics.items()} == {"nobody.knows": 1, "reject": 1, "typed": 0}
    status = await unserved.status()
    assert (status.status, status.root, status.total, status.pending) == ("queued", "pending", 1, 1)
    await system.pool("outcomes", topics="reject")
    assert (await system.audit(other)).status.error == 1


async def test_a_lifespan_is_entered_once_per_worker_and_its_value_is_the_state(system: System) -> None:
    pool = await system.pool("outcomes", workers=2)
    client = await system.client()
    for run in [await client.start("state", Typed(n)) for n in range(20)]:
        await system.audit(run)
    pool.drain()
    assert await pool.ended() == 0
    truth = system.truth()
    assert (truth["entered"], truth["left"]) == (2, 2)
    shares = [sum(truth[f"state {n}"] >= at_least for n in range(1, 21)) for at_least in (1, 2)]
    assert sum(shares) == 20  # each worker counted its own tasks from 1 on


async def test_context_variables_of_one_task_do_not_leak_into_another(system: System) -> None:
    await system.pool("outcomes", slots=3)
    run = await (await system.client()).start("colours", [str(n) for n in range(12)])
    for _ in range(12):
        (await system.stage.arrival("coloured")).answer()
    assert (await system.audit(run)).status.success == 24
    truth = system.truth()
    assert (truth["saw none"], truth["kept True"]) == (24, 12)


async def test_a_sync_processor_sends_and_starts_from_its_thread(system: System) -> None:
    await system.pool("outcomes")
    client = await system.client()
    run = await client.start("thread.dispatch", 30)
    status = (await system.audit(run)).status
    assert (status.root, status.total, status.success) == ("success", 30, 30)
    (line,) = [line for line in system.truth() if line.startswith("started")]
    assert (await system.audit(client.run(line.split()[1]))).status.success == 1


async def test_a_task_that_runs_again_does_not_start_its_runs_again(system: System) -> None:
    first = await system.pool("outcomes", topics="parent")
    client = await system.client()
    run = await client.start("parent", 3)
    await system.stage.arrival("started them")
    first.kill()
    await first.ended()
    await system.pool("outcomes")
    (await system.stage.arrival("started them")).answer()
    assert (await system.audit(run)).status.status == "success"
    started = {line.split()[1]: count for line, count in system.truth().items() if line.startswith("started")}
    assert list(started.values()) == [2, 2, 2]
    assert {status.id for status in await client.runs()} == {run.id, *started}
    for id in started:
        assert (await system.audit(client.run(id))).status.success == 1
