"""What a retry brings back, what of it gets a message, and what the bookkeeper says of the rest."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.answering import answer_to
from corral.bitmap import EMPTY, Bitmap
from corral.errors import TaskNotFound
from corral.events import Interrupted, Reopened, RunEnded, encode_event
from corral.history import Tasks
from corral.jetstream.connection import Message
from corral.ledger import Ledger
from corral.messages import ROOT, TaskId
from corral.parts import split
from corral.questions import Answer, Asker, Question, decode_questions, encode
from corral.recovery import lost_ends
from corral.reopening import brought_back, by_topic, ended_badly, plan, select, with_messages
from corral.subjects import Names
from tests.unit.histories import Tape
from tests.unit.test_ledger import Story
from tests.unit.test_ledger_properties import fold, plausible, search, tapes


def bits(*ordinals: int) -> Bitmap:
    return Bitmap.of_ranges((n, n + 1) for n in ordinals)


@pytest.fixture
def story() -> Story:
    """A root with four tasks, of which the second has sent three more; some have failed."""
    story = Story()
    first = story.fans_out(4)
    second = story.fans_out(3, (first, 1))
    story.ends(first, 0, 2)
    story.ends(first, 3, outcome="error")
    story.dispatcher_ends((first, 1), [(second, 3)])
    story.ends(second, 0)
    story.ends(second, 1, 2, outcome="error")
    story.root_ends((first, 4))
    story.store(RunEnded(0, status="failed"))
    return story


def test_errors_with_stored_bodies_come_back_by_themselves(story: Story) -> None:
    bodies = {1: bits(3), 3: bits(1, 2)}
    back = plan(story.ledger.tree, bodies)
    assert back == {1: bits(3), 3: bits(1, 2)}
    assert with_messages(story.ledger.tree, back) == back
    assert sorted(by_topic(story.ledger.tree, back)) == [("item", 1, bits(3)), ("item", 3, bits(1, 2))]


def test_without_a_body_the_dispatcher_comes_back_as_well_and_sees_to_its_tasks(story: Story) -> None:
    back = plan(story.ledger.tree, {1: bits(3, 1), 3: bits(1)})
    assert back == {1: bits(1, 3), 3: bits(1, 2)}
    assert with_messages(story.ledger.tree, back) == {1: bits(1, 3)}


def test_without_any_body_everything_comes_back_by_the_root(story: Story) -> None:
    back = plan(story.ledger.tree, {})
    assert back == {0: bits(0), 1: bits(1, 3), 3: bits(1, 2)}
    assert with_messages(story.ledger.tree, back) == {0: bits(0)}


# --- a selection -------------------------------------------------------------------------------------


def test_a_selection_brings_back_its_tasks_and_no_others(story: Story) -> None:
    tree, bodies = story.ledger.tree, {1: bits(3), 3: bits(1, 2)}
    one = select("r", tree, [(3, 2)], [])
    assert plan(tree, bodies, one) == {3: bits(2)}
    assert plan(tree, bodies, select("r", tree, [(3, 2), (1, 3), (3, 2)], [])) == {1: bits(3), 3: bits(2)}
    for part in split(1, by_topic(tree, plan(tree, bodies, one)), 1):
        story.store(part)
    assert (story.counts.pending, story.counts.error) == (1, 2)
    assert brought_back(story.ledger) == {3: bits(2)}


def test_what_has_succeeded_is_passed_over(story: Story) -> None:
    selection = select("r", story.ledger.tree, [(3, 0), (3, 1), (0, 0)], [])
    assert plan(story.ledger.tree, {3: bits(1)}, selection) == {3: bits(1)}
    assert plan(story.ledger.tree, {}, select("r", story.ledger.tree, [(3, 0), (0, 0)], [])) == {}
    assert plan(story.ledger.tree, {}, select("r", story.ledger.tree, [], [])) == {}


def test_who_sent_a_selected_task_comes_back_with_it_where_its_body_is_not_stored(story: Story) -> None:
    tree = story.ledger.tree
    one = select("r", tree, [(3, 2)], [])
    assert plan(tree, {1: bits(1)}, one) == {1: bits(1), 3: bits(2)}
    assert with_messages(tree, plan(tree, {1: bits(1)}, one)) == {1: bits(1)}
    assert plan(tree, {}, one) == {0: bits(0), 1: bits(1), 3: bits(2)}


def test_all_of_a_topic_can_be_selected() -> None:
    story = Story()
    batch = story.fans_out(3)
    story.sends(batch, 3, 5, "other")
    story.ends(batch, 0)
    story.ends(batch, 1, 2, outcome="error")
    story.ends(batch, 3, 4, topic="other", outcome="error")
    story.root_ends((batch, 5))
    story.store(RunEnded(0, status="failed"))
    tree, bodies = story.ledger.tree, {batch: bits(1, 2, 3, 4)}
    assert plan(tree, bodies, select("r", tree, [], ["other"])) == {batch: bits(3, 4)}
    assert plan(tree, bodies, select("r", tree, [(batch, 1)], ["other"])) == {batch: bits(1, 3, 4)}
    assert plan(tree, bodies, select("r", tree, [], [tree.topic])) == {}  # the root has succeeded
    with pytest.raises(TaskNotFound, match="no task of topic 'nobody'"):
        select("r", tree, [], ["other", "nobody"])


def test_a_selection_of_everything_is_none(story: Story) -> None:
    tree = story.ledger.tree
    everything = [(batch, ordinal) for batch, ordinals in ended_badly(tree).items() for ordinal in ordinals]
    assert select("r", tree, [*everything, (0, 0)], []) is None
    assert select("r", tree, everything[1:], []) is not None


@pytest.mark.parametrize("task", [(2, 0), (3, 3), (1, 4), (0, 1), (1, 1 << 60)])
def test_a_task_that_the_run_does_not_have_is_named(story: Story, task: TaskId) -> None:
    with pytest.raises(TaskNotFound, match=f"run r has no task {task[0]}-{task[1]}"):
        select("r", story.ledger.tree, [(3, 1), task], [])


@search
@given(tape=tapes, data=st.data())
def test_any_selection_brings_back_itself_and_who_has_to_send_it_and_nothing_else(
    tape: Tape, data: st.DataObject
) -> None:
    tree = fold(plausible(tape)).tree
    bad = [(batch, ordinal) for batch, ordinals in ended_badly(tree).items() for ordinal in ordinals]
    chosen = data.draw(st.lists(st.sampled_from(bad), unique=True)) if bad else []
    stored = Tasks()
    for task in data.draw(st.lists(st.sampled_from(bad), unique=True)) if bad else []:
        stored.add(task)
    bodies = stored.batches()
    selection = select("r", tree, chosen, [])
    assert (selection is None) == (len(chosen) == len(bad))
    back = plan(tree, bodies, selection)
    found = {(batch, ordinal) for batch, ordinals in back.items() for ordinal in ordinals}
    needed = set(chosen)
    for task in chosen:
        above = task
        while above != ROOT and above[1] not in bodies.get(above[0], EMPTY):
            above = tree.parent(above[0])
            needed.add(above)
    assert found == needed
    sent = {(batch, ordinal) for batch, ordinals in with_messages(tree, back).items() for ordinal in ordinals}
    assert all(task in sent or tree.parent(task[0]) in found for task in found)
    assert all(task == ROOT or task[1] in bodies.get(task[0], EMPTY) for task in sent)


def test_what_is_brought_back_is_what_the_events_say(story: Story) -> None:
    back = plan(story.ledger.tree, {})
    for part in split(1, by_topic(story.ledger.tree, back), 1):
        assert story.ledger.over
        story.store(part)
    assert not story.ledger.over
    assert brought_back(story.ledger) == back
    assert story.counts.error == 0


def test_a_round_begins_with_the_last_part_and_hears_nothing_of_it_before(story: Story) -> None:
    story.store(Reopened(1, [("item", 1, [(3, 4)])], part=1, parts=2))
    for event in (Interrupted(1), RunEnded(1, interrupted=True), Interrupted(0)):
        story.store(event)
    story.ends(1, 3, round=1)
    assert (story.ledger.over, story.ledger.round, story.counts.error) == (True, 0, 3)
    story.store(Reopened(1, [("item", 3, [(1, 2)])], part=0, parts=2))
    assert (story.ledger.over, story.ledger.round) == (False, 1)
    assert (story.counts.pending, story.counts.error) == (2, 1)
    assert story.ledger.interrupt is None
    story.ends(1, 3)  # of the round before: late, and stale
    assert story.counts.pending == 2
    story.ends(1, 3, round=1)
    story.store(Reopened(1, [("item", 1, [(3, 4)])], part=1, parts=2))  # somebody else's, late
    assert story.counts.pending == 1


def test_a_set_of_tasks_grows_and_shrinks() -> None:
    tasks = Tasks({7: bits(1, 5_000)})
    assert not tasks.add((7, 1))
    assert tasks.add((7, 2))
    assert tasks.add((8, 0))
    assert tasks.count() == 4
    assert tasks.take((7, 5_000))
    assert not tasks.take((7, 5_000))
    assert not tasks.take((9, 0))
    assert tasks.batches() == {7: bits(1, 2), 8: bits(0)}


# --- answers -----------------------------------------------------------------------------------------


def removed(count: int, every: int) -> Ledger:
    """A run of which one task in `every` was removed, and has been brought back by its dispatcher."""
    story = Story()
    batch = story.fans_out(count)
    other = story.opens(keep=[(batch, count)])
    story.sends(other, 0, 3)
    story.ends(batch, *(n for n in range(count) if n % every))
    story.root_ends((batch, count), (other, 3))
    story.store(Interrupted())
    story.store(RunEnded(0, interrupted=True))
    back = plan(story.ledger.tree, {})
    for part in split(1, by_topic(story.ledger.tree, back), 1 << 20):
        story.store(part)
    return story.ledger


def pages_of(ledger: Ledger, room: int) -> list[Answer]:
    pages: list[Answer] = []
    after: TaskId | None = (0, 0)
    while after is not None:
        pages.append(answer_to(Question("r", ROOT, 1, after), ledger, room))
        after = pages[-1].more
    return pages


@given(st.integers(1, 40), st.integers(1, 4), st.sampled_from([1, 200, 400, 1_000, 100_000]))
def test_the_pages_of_an_answer_are_the_whole(count: int, every: int, room: int) -> None:
    ledger = removed(count, every)
    found: dict[int, Bitmap] = {}
    for page in pages_of(ledger, room):
        assert (page.verdict, page.sent) == ("run", ledger.tree.sent_by(ROOT))
        for batch, spans in page.restore:
            assert not Bitmap.of_ranges(spans).both(found.get(batch, EMPTY)), "nothing comes twice"
            found[batch] = found.get(batch, EMPTY).plus(Bitmap.of_ranges(spans))
    assert found == dict(ledger.tree.to_restore(ROOT, 1))


def test_a_page_fits_into_a_message() -> None:
    pages = pages_of(removed(20_000, 2), 100_000)
    assert len(pages) > 5
    assert max(len(encode(page)) for page in pages) < 100_000


class Bookkeeper:
    """Answers from a ledger, in messages that hold so many answers and so many bytes of one."""

    def __init__(self, ledger: Ledger, room: int, most: int) -> None:
        self.ledger = ledger
        self.room = room
        self.most = most
        self.asked: list[int] = []

    async def request(self, subject: str, payload: bytes, *, timeout: float) -> Message:
        del subject, timeout
        questions = decode_questions(payload)
        self.asked.append(len(questions))
        await asyncio.sleep(0)
        answers = [answer_to(question, self.ledger, self.room) for question in questions[: self.most]]
        return Message("", encode(answers), "")


async def test_a_worker_asks_until_it_knows_all() -> None:
    ledger = removed(1_000, 2)
    keeper = Bookkeeper(ledger, 2_000, 2)
    asker = Asker(keeper, Names())  # type: ignore[arg-type]  # it only makes requests
    leaves = await asyncio.gather(*[asker.ask("r", ROOT, 1) for _ in range(5)])
    for leave in leaves:
        assert leave is not None
        assert leave.before.restore == dict(ledger.tree.to_restore(ROOT, 1))
        assert leave.before.sent == ledger.tree.sent_by(ROOT)
    assert len(keeper.asked) > 5


# --- lost tasks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 500, 20_000, 1 << 20])
def test_what_is_lost_ends_in_as_many_events_as_it_takes(limit: int) -> None:
    ledger = removed(2_000, 2)
    lost = lost_ends(ledger, limit)
    assert max(len(encode_event(each)) for each in lost) < limit + 300
    assert len(lost) > 1 or limit > 20_000
    sequence = ledger.sequence
    for number, ended in enumerate(lost):
        assert not ledger.finished
        ledger.apply(msgspec.structs.replace(ended, number=number), sequence + 1 + number)
    assert ledger.finished
    assert ledger.counts()[0].error == 1_000 + 3 + 1  # the root, too


def test_a_run_with_nothing_open_has_nothing_lost(story: Story) -> None:
    assert lost_ends(story.ledger, 100) == []
