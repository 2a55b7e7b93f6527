"""Whatever happens to a run, in whatever order and however often: the counts add up, and a slow recount agrees.

`CORRAL_EXAMPLES=20000 pytest tests/unit/test_ledger_properties.py` searches longer.
"""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corral import bitmap, stretches
from corral.events import Interrupted, Opened, Sent
from corral.ledger import Counts, Ledger
from corral.messages import ROOT, TaskId
from corral.recount import TaskCounts, recount
from corral.snapshot import freeze, thaw
from tests.unit.histories import STEP, TOPICS, History, Simulation, Tape, garbage, nonsense

search = settings(
    max_examples=int(os.environ.get("CORRAL_EXAMPLES", "200")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
tapes = (st.binary(min_size=10, max_size=50) | st.binary(min_size=100, max_size=500)).map(Tape)
TOPIC = TOPICS[0]


@pytest.fixture(scope="module", autouse=True)
def small_pages() -> Iterator[None]:
    """Pages so small that the few ordinals of a test lie on several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bitmap, "PAGE", 4)
        patch.setattr(stretches, "PAGE", 4)
        yield


# --- three kinds of histories ------------------------------------------------------------------------


def plausible(tape: Tape) -> History:
    """What workers, crashes, interrupts and retries can do."""
    return Simulation(tape).run()


def disturbed(tape: Tape) -> History:
    """The same with nonsense in between."""
    history: History = []
    opened: list[int] = []
    for sequence, event in plausible(tape_of(tape, 0)):
        if isinstance(event, Opened):
            opened.append(sequence)
        history.append((sequence, event))
        history.extend((sequence + n + 1, nonsense(tape, opened)) for n in range(tape.pick(3)))
    return history


def tape_of(tape: Tape, start: int) -> Tape:
    """Another tape with the same bytes."""
    return Tape(tape._data[start:])


KINDS = pytest.mark.parametrize("make", [plausible, disturbed, garbage])


# --- what always holds -------------------------------------------------------------------------------


def check_sums(counts: Counts, topics: dict[str, Counts]) -> None:
    for one in [counts, *topics.values()]:
        values = [getattr(one, name) for name in Counts.__struct_fields__]
        assert min(values) >= 0, one
        assert one.total == one.pending + one.running + one.success + one.error + one.interrupted, one
        assert one.retrying <= one.pending, one
    assert sum(topics.values(), Counts()) == counts


def check_against_recount(ledger: Ledger, history: History) -> None:
    slow = recount(TOPIC, history)
    counts, topics = ledger.counts()
    assert as_recounted(counts) == slow.counts
    assert {topic: as_recounted(one) for topic, one in topics.items()} == slow.topics
    assert ledger.finished == slow.finished
    assert ledger.over == slow.over
    assert ledger.round == slow.round
    assert ledger.tree.outcome(ROOT) == slow.root
    assert ledger.make_receipt(0.0) == slow.receipt
    still_open = sum(last - first for _, batch, spans in ledger.tree.open_tasks() if batch for first, last in spans)
    assert still_open == counts.pending - (ledger.root_counts and ledger.tree.outcome(ROOT) is None)


def check_what_a_retry_reads(ledger: Ledger) -> None:
    counts, topics = ledger.counts()
    badly_ended: Counter[str] = Counter()
    for topic, batch, bits in ledger.tree.badly_ended():
        badly_ended[topic] += bits.count()
        for ordinal in bits:
            assert ledger.tree.is_counted((batch, ordinal))
            assert ledger.tree.topic_of((batch, ordinal)) == topic
            assert ledger.tree.outcome((batch, ordinal)) in ("error", "interrupted")
            assert batch == 0 or ledger.tree.knows(ledger.tree.parent(batch))
    assert badly_ended.total() == counts.error + counts.interrupted
    assert badly_ended == Counter({topic: one.error + one.interrupted for topic, one in topics.items()})


def as_recounted(counts: Counts) -> TaskCounts:
    return TaskCounts(**{name: getattr(counts, name) for name in TaskCounts.__struct_fields__})


def visible(ledger: Ledger) -> dict[str, Any]:
    """All that a ledger says."""
    return {
        "counts": ledger.counts(),
        "finished": ledger.finished,
        "over": ledger.over,
        "round": ledger.round,
        "open": list(ledger.tree.open_tasks()),
        "receipt": ledger.make_receipt(0.0),
        "outcomes": {task: (ledger.tree.outcome(task), ledger.tree.attempt(task)) for task in some_tasks(ledger)},
        "sent": {task: ledger.tree.sent_by(task) for task in some_tasks(ledger)},
        "crashes": {task: ledger.crashes(task) for task in some_tasks(ledger)},
    }


def some_tasks(ledger: Ledger) -> list[TaskId]:
    tasks = [(batch, ordinal) for batch in ledger.tree.batches for ordinal in range(30)]
    return [task for task in tasks if ledger.tree.is_counted(task)]


@KINDS
@search
@given(tape=tapes)
def test_counts_add_up_and_a_slow_recount_agrees_after_every_event(make: Callable[[Tape], History], tape: Tape) -> None:
    history = make(tape)
    ledger = Ledger(TOPIC)
    check_against_recount(ledger, [])
    for index, (sequence, event) in enumerate(history):
        ledger.apply(event, sequence)
        check_sums(*ledger.counts())
        check_against_recount(ledger, history[: index + 1])
        check_what_a_retry_reads(ledger)


@KINDS
@search
@given(tape=tapes, data=st.data())
def test_running_is_capped_at_what_is_open(make: Callable[[Tape], History], tape: Tape, data: st.DataObject) -> None:
    ledger = fold(make(tape))
    running = data.draw(st.dictionaries(st.sampled_from([*TOPICS, "nobody's"]), st.integers(-3, 9)))
    root_running = data.draw(st.booleans())
    idle, _ = ledger.counts()
    counts, topics = ledger.counts(running, root_running)
    check_sums(counts, topics)
    assert (counts.total, counts.pending + counts.running) == (idle.total, idle.pending)
    for topic, one in topics.items():
        assert one.running <= max(0, running.get(topic, 0)) + (topic == TOPIC and root_running)


@KINDS
@search
@given(tape=tapes, cut=st.integers(0, 60), again=st.integers(0, 20))
def test_every_reader_sees_the_same_wherever_it_starts(
    make: Callable[[Tape], History], tape: Tape, cut: int, again: int
) -> None:
    history = make(tape)
    expected = visible(fold(history))
    started = fold(history[:cut])
    for reader in (thaw(freeze(started)), copy.deepcopy(started)):
        for sequence, event in history[max(0, cut - again) :]:
            reader.apply(event, sequence)
        assert visible(reader) == expected
        assert reader.sequence == (history[-1][0] if history else 0)
        assert (reader.durations, reader.waits) == (fold(history).durations, fold(history).waits)


@search
@given(tape=tapes, duplicates=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=30))
def test_events_that_are_stored_twice_change_nothing(tape: Tape, duplicates: list[tuple[int, int]]) -> None:
    history = plausible(tape)
    with_duplicates = dict(history)
    for which, where in duplicates:
        if history:
            first = which % len(history)
            later = history[first + where % (len(history) - first)][0] + 1
            # What a dispatcher appends to its log is compared-and-set: it is never stored twice.
            if not isinstance(history[first][1], Opened | Sent):
                while later in with_duplicates:
                    later += 1
                if later % STEP:
                    with_duplicates[later] = history[first][1]
    assert visible(fold(sorted(with_duplicates.items(), key=lambda item: item[0]))) == visible(fold(history))


@search
@given(tape=tapes)
def test_every_run_can_be_brought_to_its_end(tape: Tape) -> None:
    simulation = Simulation(tape)
    simulation.run()
    simulation.finish()
    ledger = simulation.ledger
    counts, _ = ledger.counts()
    assert ledger.finished
    assert counts.total == counts.success + counts.error + counts.interrupted
    check_against_recount(ledger, simulation.history)


@search
@given(tape=tapes)
def test_a_receipt_accounts_for_every_task_that_had_not_ended(tape: Tape) -> None:
    simulation = Simulation(tape)
    simulation.run()
    if not simulation.stopping:
        simulation.order_to_stop()
    simulation.finish()
    ledger = Ledger(TOPIC)
    ended_before: set[TaskId] = set()
    for sequence, event in simulation.history:
        if isinstance(event, Interrupted) and ledger.interrupt is None:
            ended_before = {task for task in simulation.topic_of if ledger.tree.outcome(task)}
        promised = ledger.make_receipt(0.0)
        ledger.apply(event, sequence)
        if ledger.over and ledger.interrupt:
            receipt = ledger.make_receipt(0.0)
            assert receipt == promised, "what is stored with the end of the run is what holds after it"
            counted = {task for task in simulation.topic_of if ledger.tree.is_counted(task)}
            accounted = receipt.removed + receipt.stopped + receipt.killed + receipt.finished_first
            assert accounted == len(counted - ended_before)


def fold(history: History) -> Ledger:
    ledger = Ledger(TOPIC)
    for sequence, event in history:
        ledger.apply(event, sequence)
    return ledger
