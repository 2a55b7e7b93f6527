"""Events as they are stored, and the helpers of those who write them."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral import events
from corral.events import (
    AnyEvent,
    DispatcherEnd,
    Ended,
    Ends,
    Interrupted,
    Opened,
    Receipt,
    Reopened,
    RunEnded,
    Sent,
    bucket,
    bucket_bound,
    decode_event,
    encode_event,
    kind,
    layout,
    quantile,
    ranges,
)

naturals = st.integers(0, 2**63 - 1)
ordinals = st.integers(0, events.MOST)
tasks = st.tuples(naturals, ordinals)
sent = st.lists(tasks, max_size=3)
pairs = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 2**53)), max_size=3)
spans = st.sets(ordinals, max_size=6).map(lambda found: list(zip(*[iter(sorted(found))] * 2, strict=False)))
pages = st.lists(st.tuples(st.integers(0, events.MOST - 80), st.binary(max_size=10)), max_size=3)
text = st.text(max_size=8)
outcomes = st.sampled_from(get_args(events.Outcome))
seconds = st.floats(0, 1e6)
receipts = st.builds(
    Receipt, removed=naturals, stopped=naturals, killed=naturals, finished_first=naturals, seconds=seconds
)
any_event: st.SearchStrategy[AnyEvent] = st.one_of(
    st.builds(Opened, tasks, text, naturals, sent),
    st.builds(Sent, naturals, ordinals, ordinals, st.lists(text, max_size=3), text, text, text),
    st.builds(
        Ended,
        text,
        naturals,
        st.lists(st.builds(Ends, text, naturals, naturals, outcomes, spans), max_size=3),
        st.lists(st.builds(DispatcherEnd, text, tasks, naturals, outcomes, sent), max_size=3),
        pairs,
        pairs,
    ),
    st.builds(events.Retrying, text, tasks, naturals, seconds, naturals, text),
    st.builds(
        events.Failed,
        text,
        tasks,
        text,
        text,
        text,
        naturals,
        text,
        st.just(msgspec.Raw(b'{"id":1}')),
        text,
        naturals,
    ),
    st.builds(events.Crashed, text, st.lists(tasks, max_size=3), text),
    st.builds(
        Reopened,
        naturals,
        st.lists(st.tuples(text, naturals, spans), max_size=3),
        st.lists(st.tuples(text, naturals, pages), max_size=3),
        naturals,
        st.integers(1, 99),
        text,
    ),
    st.builds(Interrupted, naturals, text, st.none() | text),
    st.builds(RunEnded, naturals, interrupted=st.booleans(), status=text, receipt=st.none() | receipts),
)


@given(any_event)
def test_what_is_decoded_is_what_was_encoded(event: AnyEvent) -> None:
    decoded = decode_event(encode_event(event))
    assert type(decoded) is type(event)
    # A raw body is a view of the message that it was decoded from, and equal only by its bytes.
    assert encode_event(decoded) == encode_event(event)


def test_every_kind_of_event_is_tried() -> None:
    assert {kind(event) for event in get_args(AnyEvent)} == {
        "opened", "sent", "ended", "retrying", "failed", "crashed", "reopened", "interrupted", "run-ended",
    }  # fmt: skip


def test_the_wire_is_json_that_a_human_can_read() -> None:
    ended = Ended("w1", 7, tasks=[Ends("a", 12, 0, "success", [(0, 3), (5, 6)])])
    assert encode_event(ended) == (
        b'{"type":"ended","worker":"w1","number":7,"tasks":[["a",12,0,"success",[[0,3],[5,6]]]]}'
    )
    assert encode_event(Interrupted(by="cli")) == b'{"type":"interrupted","by":"cli"}'


def test_fields_that_came_later_have_defaults() -> None:
    assert decode_event(b'{"type":"opened","parent":[0,0],"nonce":"n"}') == Opened((0, 0), "n")


def test_fields_of_a_later_version_are_skipped() -> None:
    assert decode_event(b'{"type":"interrupted","colour":"red"}') == Interrupted()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b'{"type":"nonsense"}',
        b'{"type":"sent","batch":1,"first":-1,"count":2,"topics":["a"]}',
        b'{"type":"opened","parent":[0,-1],"nonce":""}',
        b'{"type":"ended","worker":"w","number":1,"tasks":[["a",1,0,"success",[[-5,3]]]]}',
        b'{"type":"ended","worker":"w","number":1,"tasks":[["a",1,0,"unheard-of",[[0,3]]]]}',
        b'{"type":"reopened","round":1,"tasks":[["a",1,[[0,-3]]]]}',
        # So many tasks that a set of them would not fit into memory.
        b'{"type":"opened","parent":[0,1099511627776],"nonce":""}',
        b'{"type":"opened","parent":[0,0],"nonce":"","keep":[[1,1099511627776]]}',
        b'{"type":"sent","batch":1,"first":0,"count":1099511627776,"topics":["a"]}',
        b'{"type":"ended","worker":"w","number":1,"tasks":[["a",1,0,"success",[[0,1099511627776]]]]}',
        b'{"type":"ended","worker":"w","number":1,"dispatchers":[["a",[0,0],0,"success",[[1,1099511627776]]]]}',
        b'{"type":"retrying","topic":"a","task":[1,1099511627776],"attempt":2,"delay":1}',
        b'{"type":"crashed","worker":"w","tasks":[[1,1099511627776]]}',
        b'{"type":"reopened","round":1,"tasks":[["a",1,[[0,1099511627776]]]]}',
        b'{"type":"reopened","round":1,"tasks":[],"bits":[["a",1,[[1099511627776,"AQ=="]]]]}',
        b'{"type":"reopened","round":1,"tasks":[],"bits":[["a",1,[[16777216,"AQ=="]]]]}',
        # Reversed, overlapping and empty ranges.
        b'{"type":"ended","worker":"w","number":1,"tasks":[["a",1,0,"success",[[5,3]]]]}',
        b'{"type":"ended","worker":"w","number":1,"tasks":[["a",1,0,"success",[[0,9],[3,5]]]]}',
        b'{"type":"ended","worker":"w","number":1,"tasks":[["a",1,0,"success",[[3,3]]]]}',
        b'{"type":"reopened","round":1,"tasks":[["a",1,[[7,9],[0,2]]]]}',
        # Bits that are none, and a split into nothing.
        b'{"type":"reopened","round":1,"tasks":[],"bits":[["a",1,[[0,"?"]]]]}',
        b'{"type":"reopened","round":1,"tasks":[],"parts":0}',
    ],
)
def test_what_is_no_event_is_refused_when_it_is_read(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_event(data)


# --- histograms --------------------------------------------------------------------------------------


@given(st.floats(1e-6, 1e7))
def test_a_bucket_holds_what_lies_between_its_bounds(value: float) -> None:
    index = bucket(value)
    assert value <= bucket_bound(index) * (1 + 1e-9)
    assert index == 0 or value >= bucket_bound(index - 1) * (1 - 1e-9)


@given(st.floats(1e-6, 1e6))
def test_the_bounds_of_a_bucket_are_close(value: float) -> None:
    assert bucket_bound(bucket(value)) < value * 1.2


@pytest.mark.parametrize("value", [0.0, -0.5, 1e-9, 1e-6])
def test_nothing_is_shorter_than_the_first_bucket(value: float) -> None:
    assert bucket(value) == 0


@given(st.lists(st.floats(1e-6, 1e4), min_size=1, max_size=50), st.floats(0.01, 1.0))
def test_a_quantile_is_the_bound_below_which_that_share_lies(values: list[float], share: float) -> None:
    histogram: dict[int, int] = {}
    for value in values:
        histogram[bucket(value)] = histogram.get(bucket(value), 0) + 1
    bound = quantile(histogram, share)
    assert bound is not None
    below = sum(value <= bound * (1 + 1e-9) for value in values)
    assert below >= share * len(values) - 1e-9


def test_there_is_no_quantile_of_nothing() -> None:
    assert quantile({}, 0.5) is None


# --- ranges and layouts ------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 60)))
def test_ranges_hold_each_ordinal_once_in_order(ordinals: list[int]) -> None:
    spans = ranges(ordinals)
    assert [ordinal for first, last in spans for ordinal in range(first, last)] == sorted(set(ordinals))
    assert all(spans[i][1] < spans[i + 1][0] for i in range(len(spans) - 1))


@given(st.lists(st.sampled_from([f"topic-{n}" for n in range(60)]), min_size=1))
def test_a_layout_says_the_topic_of_every_message(topics: list[str]) -> None:
    names, marks = layout(topics)
    read = [names[ord(mark) - 48] for mark in marks] if marks else names * len(topics)
    assert read == topics
    sent = Sent(1, 0, len(topics), names, marks)
    assert decode_event(encode_event(sent)) == sent


def test_a_single_topic_needs_no_layout() -> None:
    assert layout(["a", "a", "a"]) == (["a"], "")
    assert layout(["a", "b", "a"]) == (["a", "b"], "010")
