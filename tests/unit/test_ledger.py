"""The rules of the ledger, one by one. Batches are named by the sequence of their `Opened`, as everywhere."""

from __future__ import annotations

import pytest

from corral.events import (
    AnyEvent,
    Crashed,
    DispatcherEnd,
    Ended,
    Ends,
    Interrupted,
    Opened,
    Outcome,
    Receipt,
    Reopened,
    Retrying,
    RunEnded,
    Sent,
    SentList,
    layout,
    ranges,
)
from corral.ledger import Counts, Ledger
from corral.messages import ROOT, TaskId


class Story:
    """A run's events as they are told, and the ledger that folds them."""

    def __init__(self) -> None:
        self.ledger = Ledger("root")
        self.number = 0

    def store(self, event: AnyEvent) -> int:
        sequence = self.ledger.sequence + 1
        self.ledger.apply(event, sequence, at=float(sequence))
        return sequence

    def opens(self, parent: TaskId = ROOT, keep: SentList | None = None, round: int = 0) -> int:
        return self.store(Opened(parent, "", round, keep or []))

    def sends(self, batch: int, first: int, count: int, *topics: str) -> None:
        names, marks = layout(list(topics or ("item",)))
        self.store(Sent(batch, first, count, names, marks))

    def fans_out(self, count: int, parent: TaskId = ROOT) -> int:
        """`parent` sends `count` items."""
        batch = self.opens(parent)
        self.sends(batch, 0, count)
        return batch

    def ends(
        self, batch: int, *ordinals: int, outcome: Outcome = "success", topic: str = "item", round: int = 0
    ) -> None:
        self.number += 1
        self.store(Ended("w", self.number, [Ends(topic, batch, round, outcome, ranges(ordinals))]))

    def dispatcher_ends(
        self, task: TaskId, sent: SentList, *, outcome: Outcome = "success", topic: str = "item", round: int = 0
    ) -> None:
        self.number += 1
        self.store(Ended("w", self.number, dispatchers=[DispatcherEnd(topic, task, round, outcome, sent)]))

    def root_ends(self, *sent: tuple[int, int], outcome: Outcome = "success", round: int = 0) -> None:
        self.dispatcher_ends(ROOT, list(sent), outcome=outcome, topic="root", round=round)

    def retries(self, task: TaskId, attempt: int, round: int = 0, topic: str = "item") -> None:
        self.store(Retrying(topic, task, attempt, 1.0, round))

    @property
    def counts(self) -> Counts:
        return self.ledger.counts()[0]

    @property
    def topics(self) -> dict[str, Counts]:
        return self.ledger.counts()[1]


@pytest.fixture
def story() -> Story:
    return Story()


# --- the root ----------------------------------------------------------------------------------------


def test_a_new_run_has_its_root_pending(story: Story) -> None:
    assert story.counts == Counts(total=1, pending=1)
    assert story.topics == {"root": Counts(total=1, pending=1)}
    assert not story.ledger.finished


def test_a_root_that_sent_nothing_is_the_one_task_of_its_run(story: Story) -> None:
    story.ends(0, 0, topic="root")
    assert story.counts == Counts(total=1, success=1)
    assert story.ledger.finished


def test_a_root_that_sent_tasks_is_not_counted_among_them(story: Story) -> None:
    batch = story.fans_out(3)
    assert story.topics == {"item": Counts(total=3, pending=3)}
    story.root_ends((batch, 3))
    story.ends(batch, 0, 1, 2)
    assert story.counts == Counts(total=3, success=3)
    assert story.ledger.finished


@pytest.mark.parametrize(
    ("outcome", "counted"), [("error", Counts(total=1, error=1)), ("killed", Counts(total=1, interrupted=1))]
)
def test_a_root_that_did_not_end_well_is_counted_beside_what_it_sent(
    story: Story, outcome: Outcome, counted: Counts
) -> None:
    batch = story.fans_out(2)
    story.root_ends((batch, 2), outcome=outcome)
    assert story.topics == {"item": Counts(total=2, pending=2), "root": counted}


def test_a_run_is_finished_when_its_root_and_everything_below_have_ended(story: Story) -> None:
    outer = story.fans_out(1)
    inner = story.fans_out(1, parent=(outer, 0))
    story.root_ends((outer, 1))
    story.dispatcher_ends((outer, 0), [(inner, 1)])
    assert not story.ledger.finished
    story.ends(inner, 0)
    assert story.ledger.finished


# --- what is known -----------------------------------------------------------------------------------


def test_tasks_count_once_their_window_is_confirmed(story: Story) -> None:
    batch = story.opens()
    assert story.counts.total == 1
    story.sends(batch, 0, 2)
    assert story.counts.total == 2
    story.sends(batch, 2, 5)
    assert story.counts.total == 5


def test_every_message_of_a_window_has_its_topic(story: Story) -> None:
    batch = story.opens()
    story.sends(batch, 0, 3, "a", "b", "a")
    story.ends(batch, 2, topic="a")
    assert story.topics == {"a": Counts(total=2, pending=1, success=1), "b": Counts(total=1, pending=1)}


def test_a_task_that_ends_before_its_window_is_confirmed_counts_alone(story: Story) -> None:
    batch = story.opens()
    story.ends(batch, 7, topic="b")
    assert story.topics == {"b": Counts(total=1, success=1)}
    story.sends(batch, 0, 8, *"aaaaaaab")
    assert story.topics == {"a": Counts(total=7, pending=7), "b": Counts(total=1, success=1)}


def test_a_task_that_is_retried_before_its_window_is_confirmed_counts_as_well(story: Story) -> None:
    batch = story.opens()
    story.retries((batch, 4), attempt=2)
    assert story.counts == Counts(total=1, pending=1, retrying=1)


def test_an_end_that_lists_more_than_the_log_is_believed(story: Story) -> None:
    batch = story.fans_out(2)
    story.root_ends((batch, 5), outcome="interrupted")
    assert story.topics["item"] == Counts(total=5, pending=5)


def test_a_list_that_names_the_batch_of_another_task_is_not_believed(story: Story) -> None:
    outer = story.fans_out(2)
    inner = story.fans_out(3, parent=(outer, 0))
    story.dispatcher_ends((outer, 1), [(inner, 3), (outer, 2), (0, 1), (99, 4)])
    assert story.counts == Counts(total=5, pending=4, success=1)
    story.dispatcher_ends((outer, 0), [(inner, 3)])
    assert story.counts == Counts(total=5, pending=3, success=2)


def test_an_event_about_an_unknown_batch_changes_nothing(story: Story) -> None:
    story.ends(99, 0)
    story.sends(99, 0, 4)
    story.retries((99, 0), attempt=2)
    story.opens(parent=(99, 0))
    assert story.counts == Counts(total=1, pending=1)
    assert not story.ledger.tree.knows((99, 0))


# --- the first end wins ------------------------------------------------------------------------------


def test_the_first_end_of_a_task_wins(story: Story) -> None:
    batch = story.fans_out(1)
    story.ends(batch, 0, outcome="error")
    story.ends(batch, 0, outcome="success")
    assert story.counts == Counts(total=1, error=1)


def test_of_an_event_that_overlaps_only_the_new_part_counts(story: Story) -> None:
    batch = story.fans_out(4)
    story.ends(batch, 0, 1)
    story.ends(batch, 1, 2, outcome="error")
    assert story.counts == Counts(total=4, pending=1, success=2, error=1)


def test_an_event_that_is_delivered_again_is_passed_over(story: Story) -> None:
    batch = story.fans_out(1)
    story.ledger.apply(Sent(batch, 0, 9, ["item"]), 1)
    assert story.counts.total == 1


def test_durations_count_once_however_often_their_event_is_stored(story: Story) -> None:
    batch = story.fans_out(2)
    event = Ended("w", 1, [Ends("item", batch, 0, "success", [(0, 1)])], durations=[(5, 1)], waits=[(2, 1)])
    story.store(event)
    story.store(event)
    assert (story.ledger.durations, story.ledger.waits) == ({5: 1}, {2: 1})


# --- a dispatcher that runs again --------------------------------------------------------------------


def test_a_new_opening_keeps_only_what_it_says(story: Story) -> None:
    first = story.fans_out(5)
    story.ends(first, 4)
    second = story.opens(keep=[(first, 2)])
    assert story.counts == Counts(total=2, pending=2)
    story.sends(second, 0, 1)
    assert story.counts == Counts(total=3, pending=3)


def test_the_winning_end_decides_which_batches_count(story: Story) -> None:
    """A frozen execution wakes up and ends before the one that replaced it."""
    first = story.fans_out(3)
    second = story.fans_out(5)
    assert story.counts.total == 5
    story.root_ends((first, 3))
    assert story.counts.total == 3
    story.root_ends((second, 5))
    story.ends(second, 0, 1, 2, 3, 4)
    assert story.counts == Counts(total=3, pending=3)
    story.ends(first, 0, 1, 2)
    assert story.ledger.finished


def test_what_is_opened_after_the_winning_end_never_counts(story: Story) -> None:
    first = story.fans_out(1)
    story.root_ends((first, 1))
    late = story.fans_out(4)
    assert story.ledger.tree.knows((late, 0))
    assert story.counts == Counts(total=1, pending=1)


def test_ends_in_a_batch_count_when_the_batch_does(story: Story) -> None:
    """The ends of a superseded batch are kept: its execution may still win."""
    first = story.fans_out(3)
    story.fans_out(1)
    story.ends(first, 0, 1)
    assert story.counts == Counts(total=1, pending=1)
    story.root_ends((first, 3))
    assert story.counts == Counts(total=3, pending=1, success=2)


def test_what_a_task_sent_counts_only_if_the_task_does(story: Story) -> None:
    first = story.fans_out(2)
    inner = story.fans_out(10, parent=(first, 1))
    assert story.counts.total == 12
    story.opens(keep=[(first, 1)])
    assert story.counts.total == 1
    assert story.ledger.tree.is_counted((first, 0))
    assert not story.ledger.tree.is_counted((inner, 0))
    story.root_ends((first, 2))
    assert story.counts.total == 12


def test_a_dispatcher_that_sends_nothing_the_second_time_has_sent_nothing(story: Story) -> None:
    outer = story.fans_out(1)
    story.fans_out(10, parent=(outer, 0))
    story.ends(outer, 0)
    assert story.counts == Counts(total=1, success=1)


def test_what_a_task_is_known_to_have_sent(story: Story) -> None:
    first = story.fans_out(3)
    second = story.opens(keep=[(first, 2)])
    assert story.ledger.tree.sent_by(ROOT) == [(first, 2), (second, 0)]
    story.ends(second, 4)
    assert story.ledger.tree.sent_by(ROOT) == [(first, 2), (second, 5)]
    assert story.ledger.tree.sent_by((first, 0)) == []


# --- attempts ----------------------------------------------------------------------------------------


def test_a_task_waits_for_its_next_attempt_until_it_ends(story: Story) -> None:
    batch = story.fans_out(2)
    story.retries((batch, 0), attempt=2)
    assert story.counts == Counts(total=2, pending=2, retrying=1)
    assert story.ledger.tree.attempt((batch, 0)) == 2
    assert story.ledger.tree.attempt((batch, 1)) == 1
    story.ends(batch, 0)
    assert story.counts == Counts(total=2, pending=1, success=1)


def test_an_attempt_that_was_reported_late_does_not_take_the_number_back(story: Story) -> None:
    batch = story.fans_out(1)
    story.retries((batch, 0), attempt=3)
    story.retries((batch, 0), attempt=2)
    assert story.ledger.tree.attempt((batch, 0)) == 3


def test_a_root_that_waits_is_pending_and_retrying(story: Story) -> None:
    story.retries(ROOT, attempt=2, topic="root")
    assert story.counts == Counts(total=1, pending=1, retrying=1)
    assert story.ledger.root_state() == "retrying"
    assert story.ledger.root_state(True) == "running"


def test_a_task_is_suspect_after_two_workers_died_under_it(story: Story) -> None:
    batch = story.fans_out(1)
    story.store(Crashed("w1", [(batch, 0)]))
    story.store(Crashed("w1", [(batch, 0)]))
    assert not story.ledger.suspect((batch, 0))
    story.store(Crashed("w2", [(batch, 0)]))
    assert story.ledger.suspect((batch, 0))


# --- running -----------------------------------------------------------------------------------------


def test_running_is_part_of_what_is_open(story: Story) -> None:
    batch = story.fans_out(3)
    story.retries((batch, 0), attempt=2)
    counts, topics = story.ledger.counts({"item": 3, "other": 5})
    assert counts == Counts(total=3, running=3)
    assert topics == {"item": counts}
    assert story.ledger.counts({"item": 2})[0] == Counts(total=3, pending=1, running=2, retrying=1)


# --- interrupt ---------------------------------------------------------------------------------------


def test_the_end_of_an_interrupted_run_ends_every_open_task(story: Story) -> None:
    batch = story.fans_out(3)
    story.ends(batch, 0)
    story.store(Interrupted())
    story.store(RunEnded(interrupted=True, status="interrupted"))
    assert story.topics == {"item": Counts(total=3, success=1, interrupted=2), "root": Counts(total=1, interrupted=1)}
    assert story.ledger.finished
    assert story.ledger.status == "interrupted"
    assert list(story.ledger.tree.open_tasks()) == []


def test_a_receipt_accounts_for_what_had_not_ended_when_the_order_was_stored(story: Story) -> None:
    batch = story.fans_out(6)
    story.ends(batch, 0)
    story.store(Interrupted())
    story.ends(batch, 1, outcome="error")
    story.ends(batch, 2, outcome="interrupted")
    story.ends(batch, 3, outcome="killed")
    expected = Receipt(removed=3, stopped=1, killed=1, finished_first=1, seconds=2.5)
    assert story.ledger.make_receipt(2.5) == expected, "two items and the root are open"
    story.store(RunEnded(interrupted=True, receipt=expected))
    assert story.ledger.make_receipt(2.5) == story.ledger.receipt == expected


def test_a_receipt_leaves_out_what_no_longer_counts(story: Story) -> None:
    first = story.fans_out(3)
    story.store(Interrupted())
    story.ends(first, 0, 1, 2)
    story.root_ends((first, 1), outcome="interrupted")
    assert story.ledger.make_receipt(0.0) == Receipt(stopped=1, finished_first=1)


def test_an_interrupted_dispatcher_has_sent_what_must_lie_before_what_is_known(story: Story) -> None:
    """Messages of a window that was never confirmed are taken out of the queue with the others."""
    batch = story.opens()
    story.ends(batch, 3)
    story.store(Interrupted())
    promised = story.ledger.make_receipt(0.0)
    story.store(RunEnded(interrupted=True))
    assert story.topics["item"] == Counts(total=4, success=1, interrupted=3)
    assert promised == story.ledger.make_receipt(0.0) == Receipt(removed=4)
    story.store(Reopened(1, [("item", batch, [(0, 1)])]))
    story.sends(batch, 0, 9)
    assert story.topics["item"] == Counts(total=4, pending=1, success=1, interrupted=2), "its log goes no further"


def test_only_the_first_order_to_stop_of_a_round_counts(story: Story) -> None:
    story.store(Interrupted(by="first"))
    story.store(Interrupted(by="second"))
    assert story.ledger.interrupt == Interrupted(by="first")
    assert story.ledger.interrupted_at == 1.0


# --- rounds ------------------------------------------------------------------------------------------


def ended_with_an_error(story: Story) -> int:
    """A run of two items, one of which failed."""
    batch = story.fans_out(2)
    story.root_ends((batch, 2))
    story.ends(batch, 0)
    story.ends(batch, 1, outcome="error")
    story.store(RunEnded(status="failed"))
    return batch


def test_what_is_stored_after_the_end_of_a_round_says_nothing(story: Story) -> None:
    batch = ended_with_an_error(story)
    story.sends(batch, 2, 9)
    story.fans_out(3)
    story.store(Interrupted())
    assert story.counts == Counts(total=2, success=1, error=1)
    assert story.ledger.interrupt is None


def test_a_retry_brings_back_what_it_names(story: Story) -> None:
    batch = ended_with_an_error(story)
    story.store(Reopened(1, [("item", batch, [(1, 2)])]))
    assert story.counts == Counts(total=2, pending=1, success=1)
    assert (story.ledger.round, story.ledger.over, story.ledger.status) == (1, False, "")
    story.ends(batch, 1, round=1)
    assert story.counts == Counts(total=2, success=2)


def test_an_event_of_a_task_from_before_its_retry_is_ignored(story: Story) -> None:
    batch = ended_with_an_error(story)
    story.store(Reopened(1, [("item", batch, [(1, 2)])]))
    story.ends(batch, 1, outcome="error")
    story.retries((batch, 1), attempt=5)
    late = story.fans_out(3, parent=(batch, 1))
    assert story.counts == Counts(total=2, pending=1, success=1)
    assert story.ledger.tree.stale((batch, 1), 0)
    assert not story.ledger.tree.stale((batch, 0), 0)
    assert not story.ledger.tree.is_counted((late, 0))


def test_attempts_and_crashes_begin_anew_in_a_retry(story: Story) -> None:
    batch = story.fans_out(1)
    story.retries((batch, 0), attempt=3)
    story.store(Crashed("w1", [(batch, 0)]))
    story.store(Crashed("w2", [(batch, 0)]))
    story.ends(batch, 0, outcome="error")
    story.root_ends((batch, 1))
    story.store(RunEnded())
    story.store(Reopened(1, [("item", batch, [(0, 1)])]))
    assert story.ledger.tree.attempt((batch, 0)) == 1
    assert not story.ledger.suspect((batch, 0))


def test_orders_and_ends_of_another_round_are_ignored(story: Story) -> None:
    batch = ended_with_an_error(story)
    story.store(Reopened(1, [("item", batch, [(1, 2)])]))
    story.store(Interrupted(round=0))
    story.store(RunEnded(round=0, interrupted=True))
    story.store(RunEnded(round=2))
    assert story.ledger.interrupt is None
    assert not story.ledger.over
    assert story.counts == Counts(total=2, pending=1, success=1)


@pytest.mark.parametrize("number", [0, 2])
def test_only_the_next_round_can_begin(story: Story, number: int) -> None:
    batch = ended_with_an_error(story)
    story.store(Reopened(number, [("item", batch, [(0, 2)])]))
    assert story.ledger.over
    assert story.counts == Counts(total=2, success=1, error=1)


def test_a_run_that_is_not_over_cannot_be_reopened(story: Story) -> None:
    batch = story.fans_out(1)
    story.ends(batch, 0, outcome="error")
    story.store(Reopened(1, [("item", batch, [(0, 1)])]))
    assert story.ledger.round == 0
    assert story.counts == Counts(total=1, error=1)


def test_a_receipt_is_about_its_own_round(story: Story) -> None:
    batch = story.fans_out(3)
    story.store(Interrupted())
    story.ends(batch, 0, outcome="killed")
    story.store(RunEnded(interrupted=True))
    story.store(Reopened(1, [("item", batch, [(0, 2)])]))
    story.store(Interrupted(round=1))
    story.ends(batch, 0, round=1)
    assert story.ledger.make_receipt(0.0) == Receipt(removed=1, finished_first=1)


# --- scale -------------------------------------------------------------------------------------------


def test_a_chain_of_a_thousand_dispatchers_is_followed(story: Story) -> None:
    first = batch = story.fans_out(1)
    for _ in range(1_000):
        batch = story.fans_out(1, parent=(batch, 0))
    assert story.counts.total == 1_001
    story.opens(keep=[(first, 0)])
    assert story.counts.total == 1
