"""What a dispatcher that runs again sends, and what it does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.bitmap import Bitmap
from corral.errors import ContentChanged
from corral.events import AnyEvent, Opened, Sent, SentList, layout, ranges
from corral.resume import Before, Digest, Message, Resume

messages = st.lists(
    st.builds(Message, st.sampled_from(["a", "b"]), st.sampled_from([b"1", b"2", b"3"]), st.none()), max_size=12
)


class Log:
    """A dispatcher's log, and what its batches hold: the truth."""

    def __init__(self) -> None:
        self.events: list[tuple[int, AnyEvent]] = []
        self.batches: dict[int, list[Message]] = {}

    def execute(
        self,
        content: list[Message],
        window: int,
        *,
        round: int = 0,
        base: SentList | None = None,
        stop: int | None = None,
    ) -> SentList:
        """Send `content`, a window at a time; killed before the message number `stop`, if that is given."""
        resume = Resume(list(self.events), round, Before(base or []))
        batch: int | None = None
        unsaid: list[Message] = []

        def really_send(new: list[Message]) -> None:
            nonlocal batch
            for message in new:
                if batch is None:
                    batch = len(self.events) + 1
                    self.events.append((batch, Opened((0, 0), "n", round=round, keep=resume.keep)))
                    self.batches[batch] = []
                self.batches[batch].append(message)
                unsaid.append(message)
                if len(unsaid) == window:
                    say()

        def say() -> None:
            if batch is not None and unsaid:
                count = len(self.batches[batch])
                topics, places = layout([message.topic for message in unsaid])
                sent = Sent(batch, count - len(unsaid), count, topics, places, digest_of(unsaid))
                self.events.append((len(self.events) + 1, sent))
                unsaid.clear()

        for number, message in enumerate(content):
            if number == stop:
                return []
            if resume.over:
                really_send([message])
            else:
                really_send(resume.offer(message.topic, message.body))
        if not resume.over:
            really_send(resume.rest())
        say()
        return [*resume.keep, *([(batch, len(self.batches[batch]))] if batch is not None else [])]

    def listed(self, sent: SentList) -> list[Message]:
        return [message for batch, count in sent for message in self.batches[batch][:count]]


def digest_of(window: list[Message]) -> str:
    digest = Digest()
    for message in window:
        digest.add(message.topic, message.body)
    return digest.text()


@given(first=messages, second=messages, window=st.integers(1, 4), stop=st.none() | st.integers(0, 12))
def test_the_end_lists_exactly_what_the_execution_sent_whatever_came_before(
    first: list[Message], second: list[Message], window: int, stop: int | None
) -> None:
    log = Log()
    log.execute(first, window, stop=stop)
    log.execute(second, window, stop=stop)
    assert log.listed(log.execute(second, window)) == second
    assert log.listed(log.execute(first, window)) == first


@given(content=messages, window=st.integers(1, 4), stop=st.integers(0, 12))
def test_with_the_same_content_at_most_one_window_is_sent_twice(content: list[Message], window: int, stop: int) -> None:
    log = Log()
    log.execute(content, window, stop=stop)
    log.execute(content, window)
    assert sum(map(len, log.batches.values())) < len(content) + max(window, 1)


@given(content=messages, window=st.integers(1, 4))
def test_a_complete_fan_out_is_not_sent_again(content: list[Message], window: int) -> None:
    log = Log()
    sent = log.execute(content, window)
    assert log.execute(content, window) == sent


@given(content=messages, window=st.integers(1, 4))
def test_a_retry_is_compared_with_what_the_ledger_says_was_sent(content: list[Message], window: int) -> None:
    log = Log()
    sent = log.execute(content, window)
    assert log.listed(log.execute(content, window, round=1, base=sent)) == content
    assert sum(map(len, log.batches.values())) == len(content)


@given(content=messages, window=st.integers(1, 4))
def test_a_retry_that_is_killed_goes_on_from_its_own_log(content: list[Message], window: int) -> None:
    log = Log()
    sent = log.execute(content, window)
    other = [*content, Message("c", b"4")]
    log.execute(other, window, round=1, base=sent)
    assert log.listed(log.execute(other, window, round=1, base=sent)) == other


def test_what_may_be_the_same_is_held_back_until_its_window_is_complete() -> None:
    log: list[tuple[int, AnyEvent]] = [
        (1, Opened((0, 0), "n")),
        (2, Sent(1, 0, 2, ["a"], digest=digest_of([Message("a", b"1"), Message("a", b"2")]))),
    ]
    resume = Resume(log, 0, Before())
    assert resume.offer("a", b"1") == []
    assert resume.keep == []
    assert resume.offer("a", b"2") == []
    assert resume.keep == [(1, 2)]
    assert resume.offer("a", b"3") == [Message("a", b"3")]


def test_a_window_that_differs_is_sent_as_a_whole() -> None:
    log: list[tuple[int, AnyEvent]] = [
        (1, Opened((0, 0), "n")),
        (2, Sent(1, 0, 2, ["a"], digest=digest_of([Message("a", b"1"), Message("a", b"2")]))),
    ]
    resume = Resume(log, 0, Before())
    resume.offer("a", b"1")
    assert resume.offer("b", b"2") == [Message("a", b"1"), Message("b", b"2")]
    assert resume.keep == []


@given(content=messages, window=st.integers(1, 4), back=st.sets(st.integers(0, 11)))
def test_what_a_retry_brings_back_is_sent_again_under_its_old_identity(
    content: list[Message], window: int, back: set[int]
) -> None:
    log = Log()
    sent = log.execute(content, window)
    wanted = sorted(ordinal for ordinal in back if ordinal < len(content))
    restore = {sent[0][0]: Bitmap.of_ranges(ranges(wanted))} if wanted else {}
    resume = Resume(list(log.events), 1, Before(sent, restore))
    again = [message for each in content for message in resume.offer(each.topic, each.body)] + resume.rest()
    assert again == [content[ordinal]._replace(task=(sent[0][0], ordinal)) for ordinal in wanted]
    assert resume.keep == sent


def test_a_dispatcher_that_sends_other_messages_cannot_bring_any_back() -> None:
    log = Log()
    sent = log.execute([Message("a", b"1"), Message("a", b"2")], 2)
    resume = Resume(list(log.events), 1, Before(sent, {sent[0][0]: Bitmap.of_one(1)}))
    resume.offer("a", b"1")
    with pytest.raises(ContentChanged):
        resume.offer("a", b"3")


def test_a_dispatcher_that_sends_less_cannot_bring_the_rest_back() -> None:
    log = Log()
    sent = log.execute([Message("a", b"1"), Message("a", b"2")], 1)
    resume = Resume(list(log.events), 1, Before(sent, {sent[0][0]: Bitmap.of_one(1)}))
    resume.offer("a", b"1")
    with pytest.raises(ContentChanged):
        resume.rest()
