"""What others have stored or sent is a value or an error of ours: never another error, and never one at its use.

`CORRAL_EXAMPLES=100000 pytest tests/unit/test_fuzz.py` searches longer, from `CORRAL_SEED` on.
"""

from __future__ import annotations

import base64
import contextlib
import os
import tracemalloc
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral import book as book_module
from corral import checkpoint_reading, gate, keys, questions
from corral.answering import answer_to
from corral.book import Book
from corral.checkpoint_reading import Anchor
from corral.decoding import DEEPEST, cut_levels, too_deep
from corral.errors import BadMessage, CorralError, Unreadable
from corral.events import AnyEvent, Interrupted, decode_event, encode_event
from corral.jetstream.acks import sequence_of
from corral.jetstream.wire import parse_headers
from corral.keys import KeyField, TopicRecord, encode_topic
from corral.ledger import Ledger
from corral.messages import check_body, check_json, decode_task, encode_body, encode_task
from corral.questions import Answer, Question, decode_questions
from corral.recount import recount
from corral.runs import (
    Beat,
    Marker,
    Record,
    counted,
    decode_beat,
    decode_marker,
    decode_record,
    encode,
    plain,
    status_of,
    worker_status,
)
from corral.snapshot import freeze, thaw
from corral.tally import Counts
from corral_tui import state as state_module
from corral_tui.fold import Detail
from corral_tui.state import State
from tests.unit.histories import Simulation, Tape
from tests.unit.mutants import BOMBS, mutants

EXAMPLES = int(os.environ.get("CORRAL_EXAMPLES", "300"))
SEED = int(os.environ.get("CORRAL_SEED", "0"))
NOW = 1_700_000_000.0
BITS = base64.b64encode(b"\xff" * 700_000)
"""As many as one event has room for."""


# --- what is decoded, and what is done with it -------------------------------------------------------


class Target(NamedTuple):
    """A decoder, samples of what it takes, and what readers do with what it gives."""

    decode: Callable[[bytes], Any]
    samples: list[bytes]
    use: Callable[[Any], object]


RECORD = Record(
    id="r1",
    topic="a.b",
    body=msgspec.Raw(b'{"n":1}'),
    state="running",
    created_at=NOW,
    unique="key",
    claim=(0, 7),
    started_at=NOW,
    updated_at=NOW,
    seq=9,
    counts=Counts(total=3, pending=1, running=1, success=1),
    topics={"a.b": Counts(total=3, pending=1, running=1, success=1)},
)
BEAT = Beat(
    id="w1", pool="p", host="h", pid=7, topics=["a"], slots=9, started_at=NOW, version="1", rss=1,
    running={"r1": {"a": 2}}, roots=["r1"], stopping=["r2"], blocked=0.5, blocked_by="x",
)  # fmt: skip
MARKER = Marker(kind="stop", round=1, by="me", reason="so", at=NOW, kill_after=3.0)
SENT = msgspec.json.encode


def history() -> list[tuple[int, AnyEvent]]:
    """A run with fan-outs, failures, an interrupt and a retry."""
    return Simulation(Tape(bytes((5 * n * n + 3 * n) % 251 for n in range(400)))).run()


@cache
def folded() -> Ledger:
    """The ledger of that run."""
    ledger = Ledger("root")
    for sequence, event in history():
        ledger.apply(event, sequence)
    return ledger


def show_record(record: Record) -> None:
    msgspec.json.encode(plain(status_of(record)))
    encode(record)
    state = State()
    state.put_record(record)
    state.run(record.id, NOW)
    assert too_deep(bytes(record.body)) in (True, False)


def show_beat(beat: Beat) -> None:
    msgspec.json.encode(plain(worker_status(beat, NOW)))
    state = State()
    state.put_record(RECORD)
    state.beat(beat, NOW)
    assert state.workers(NOW)
    state.run("r1", NOW)
    state.truth(NOW)


def fold_event(event: AnyEvent) -> None:
    fold([(1, event), (2, event)])


def ask(questions: list[Question]) -> None:
    for question in questions:
        msgspec.json.encode(answer_to(question, folded(), 100_000))


def template(record: TopicRecord) -> None:
    if record.unique is not None:
        with contextlib.suppress(ValueError):
            keys.render_json(record.unique, record.fields, b'{"a":{"b":1},"c":"x"}')


def nothing(_: object) -> None:
    pass


TARGETS: dict[str, Target] = {
    "event": Target(decode_event, [encode_event(event) for _, event in history()], fold_event),
    "record": Target(decode_record, [encode(RECORD)], show_record),
    "beat": Target(decode_beat, [encode(BEAT)], show_beat),
    "marker": Target(decode_marker, [encode(MARKER)], encode),
    "task": Target(decode_task, [encode_task((7, 3), 1, b'{"a":[1,2,{"b":"c"}]}')], lambda task: bytes(task.body)),
    "questions": Target(decode_questions, [SENT([Question("r1", (0, 0), 0), Question("r1", (12, 3), 1)])], ask),
    "answers": Target(
        questions._decode_answers, [SENT([Answer("run", 2, [(1, 2)], [(1, [(0, 1)])], (1, 2)), None])], nothing
    ),
    "topic": Target(
        keys.decode_topic,
        [encode_topic(TopicRecord(topic="a", unique="{a.b}", fields={"a.b": KeyField("int"), "c": KeyField("str")}))],
        template,
    ),
    "start": Target(gate._decode_start, [SENT(gate._Start("a", msgspec.Raw(b"[1]"), "k", "join", "r1"))], nothing),
    "gate status": Target(gate._decode_status, [SENT(gate._Status("r1"))], nothing),
    "gate answer": Target(
        gate._decode_answer, [SENT(gate._Answer(error="BadName", arguments=["a", "b", "c"]))], gate._error
    ),
    "ack": Target(
        lambda data: sequence_of("s", data),
        [b'{"stream":"s","seq":7}', b'{"error":{"code":503,"err_code":10077,"description":"full"}}'],
        nothing,
    ),
    "body": Target(lambda data: check_json("a", check_body("a", data, 1 << 20)), [b'{"a":[1,2.5,"x",null]}'], nothing),
    "headers": Target(parse_headers, [b"NATS/1.0 100 Idle\r\nA: b\r\n\r\n", b"NATS/1.0\r\nA: b\r\n\r\n"], nothing),
}  # fmt: skip


def attempt(target: Target, data: bytes) -> bool:
    """Whether the bytes are a value; if they are not, that is said by an error of ours."""
    try:
        value = target.decode(data)
    except CorralError as error:
        if isinstance(error, Unreadable) and len(str(error)) > 1000:
            pytest.fail("it quotes all that was read")
        return False
    target.use(value)
    return True


# --- bombs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("name", TARGETS)
def test_a_bomb_is_a_value_or_our_error(name: str, bomb: str) -> None:
    attempt(TARGETS[name], BOMBS[bomb])


@pytest.mark.parametrize("name", TARGETS)
def test_a_bomb_in_a_field_is_a_value_or_our_error(name: str) -> None:
    for sample in TARGETS[name].samples[:5]:
        for bomb in BOMBS.values():
            if sample.startswith(b"{"):
                attempt(TARGETS[name], sample[:-1] + b',"new":' + bomb + b"}")
                attempt(TARGETS[name], sample[:-1] + b',"body":' + bomb + b"}")


def test_the_samples_are_good() -> None:
    for name, target in TARGETS.items():
        assert all(attempt(target, sample) for sample in target.samples[:1]), name


# --- mutants -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TARGETS)
def test_a_sample_with_something_wrong_in_it_is_a_value_or_our_error(name: str) -> None:
    target = TARGETS[name]
    for data in mutants(target.samples, EXAMPLES, SEED):
        try:
            attempt(target, data)
        except Exception as error:
            error.add_note(repr(data[:2_000]))
            raise


def test_new_fields_are_passed_over_and_new_kinds_are_unreadable() -> None:
    assert decode_record(encode(RECORD)[:-1] + b',"new":{"a":[1]}}').id == "r1"
    assert isinstance(decode_event(b'{"type":"interrupted","new":[1]}'), Interrupted)
    for data in (
        b'{"type":"from-the-future","round":1}',
        b'{"type":"ended","worker":"w","number":1,"tasks":[["a",1,0,"skipped",[[0,1]]]]}',
    ):
        with pytest.raises(Unreadable):
            decode_event(data)
    with pytest.raises(Unreadable):
        decode_record(encode(RECORD).replace(b'"running"', b'"hibernating"'))


def test_a_record_counts_only_for_the_run_under_whose_key_it_lies() -> None:
    assert decode_record(encode(RECORD), "r1").id == "r1"
    with pytest.raises(Unreadable, match="names run 'r1'"):
        decode_record(encode(RECORD), "r2")
    for name in ("*", ">", "a.b", "", "x" * 65, "r1\n", "a b", "é"):
        with pytest.raises(Unreadable):
            decode_record(encode(msgspec.structs.replace(RECORD, id=name)))
        with pytest.raises(Unreadable):
            decode_event(b'{"type":"interrupted"}', f"corral.event.{name}.interrupted")


@pytest.mark.parametrize("subject", ["", "x", "corral.event", "corral.event.r1", "corral.event..", "corral.event.r1."])
def test_an_event_on_a_subject_that_says_nothing_is_unreadable(subject: str) -> None:
    with pytest.raises(Unreadable):
        decode_event(b'{"type":"interrupted"}', subject)


# --- histories with something wrong in them ----------------------------------------------------------


def fold(events: list[tuple[int, AnyEvent]]) -> None:
    """All that reads events reads these; what they have counted can be stored and shown."""
    ledger, state, detail, book = Ledger("root"), State(), Detail("r1", "root"), Book("r1")
    state.put_record(RECORD)
    book.open(Ledger("root"))
    for sequence, event in events:
        ledger.apply(event, sequence, NOW)
        state.apply("r1", sequence, NOW, event, NOW)
        detail.apply(sequence, NOW, event)
        book.take(event, sequence, NOW)
    counts, topics = ledger.counts({"a": 7, "x": 1}, root_running=True)
    assert counts.total == counts.pending + counts.running + counts.success + counts.error + counts.interrupted
    assert min(msgspec.structs.astuple(counts)) >= 0
    assert sum(topics.values(), Counts()) == counts
    state.run("r1", NOW)
    detail.stragglers(NOW)
    again = thaw(freeze(ledger))
    assert again.counts({"a": 7, "x": 1}, root_running=True) == (counts, topics)
    record = counted(RECORD, ledger, {}, root_running=False)
    assert decode_record(encode(record)) == record
    assert recount("root", events).finished == ledger.finished


def test_events_with_something_wrong_in_them_are_left_out_or_folded() -> None:
    right = [(sequence, encode_event(event)) for sequence, event in history()]
    wrong = mutants([data for _, data in right], EXAMPLES, SEED)
    for at in range(0, EXAMPLES, 30):
        mixed = list(right)
        for place, data in zip(range(30), wrong, strict=False):
            mixed[(at + 7 * place) % len(mixed)] = (mixed[(at + 7 * place) % len(mixed)][0], data)
        found = []
        for sequence, data in mixed:
            try:
                found.append((sequence, decode_event(data)))
            except Unreadable:
                continue
        fold(found)


@pytest.mark.parametrize(
    ("reopened", "back"),
    [
        (b'"tasks":[["a",1,[[0,%d]]]]' % (1 << 24), 1 << 24),
        (b'"tasks":[],"bits":[["a",1,[[0,"%s"]]]]' % BITS, 5_600_000),
    ],
    ids=["ranges", "bits"],
)
def test_the_most_that_an_event_can_say_costs_little_memory(reopened: bytes, back: int) -> None:
    """No event makes its readers keep more than some bits for each task that there can be."""
    most = 1 << 24
    events = [
        b'{"type":"opened","parent":[0,0],"nonce":"n"}',
        b'{"type":"sent","batch":1,"first":0,"count":%d,"topics":["a"]}' % most,
        b'{"type":"ended","worker":"w","number":1,"tasks":[["a",1,0,"error",[[0,%d]]]]}' % most,
        b'{"type":"run-ended","round":0,"interrupted":true,"receipt":{"removed":9223372036854775807}}',
        b'{"type":"reopened","round":1,%s}' % reopened,
    ]
    ledger = Ledger("root")
    read = [(number, decode_event(data)) for number, data in enumerate(events, 1)]
    tracemalloc.start()
    for number, event in read:
        ledger.apply(event, number)
    freeze(ledger)
    _, peak = tracemalloc.get_traced_memory()
    assert peak < 100 << 20
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    assert recount("root", read).counts.pending == back
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - before < 1 << 20


def test_runs_and_workers_that_are_made_up_are_kept_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_module, "STRANGERS", 50)
    monkeypatch.setattr(state_module, "WORKERS", 50)
    state = State()
    state.put_record(RECORD)
    for number in range(200):
        state.apply(f"forged{number}", number + 1, NOW, Interrupted(), NOW)
        state.apply("r1", number + 1, NOW, Interrupted(), NOW)
        state.beat(msgspec.structs.replace(BEAT, id=f"forged{number}"), NOW)
        state.beat(BEAT, NOW)
    assert len(state.folds) == 51
    assert "r1" in state.folds
    assert len(state.workers(NOW)) == 50
    assert BEAT.id in {worker.id for worker in state.workers(NOW)}


def test_events_of_a_run_without_a_record_are_kept_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_module, "HELD", 5)
    book = Book("r1")
    for number in range(5):
        book.take(Interrupted(), number + 1, NOW)
    assert not book.reopening
    for number in range(5, 100):
        book.take(Interrupted(), number + 1, NOW)
    assert book.held is not None
    assert len(book.held) <= 5
    assert book.reopening  # the whole history is read, should there be a record after all


# --- what a bookkeeper has kept ----------------------------------------------------------------------


def test_a_snapshot_with_something_wrong_in_it_is_a_ledger_or_a_value_error() -> None:
    frozen = freeze(folded())
    inside = [*mutants([zlib.decompress(frozen)], EXAMPLES, SEED), *BOMBS.values(), b"\x91" * 1_000_000]
    for data in [
        *mutants([frozen], EXAMPLES // 3, SEED),
        *BOMBS.values(),
        *(zlib.compress(data, 1) for data in inside),
    ]:
        with contextlib.suppress(ValueError):
            thaw(data)


def test_a_checkpoint_with_something_wrong_in_it_is_one_or_unreadable() -> None:
    head = msgspec.msgpack.encode(checkpoint_reading.Head(1, 0, 7, b"data", 2, "token"))
    for data in [*mutants([head], EXAMPLES, SEED), *BOMBS.values(), b"\x91" * 100_000]:
        with contextlib.suppress(Unreadable):
            checkpoint_reading.decode_head(data)
    anchor = msgspec.json.encode(Anchor(1, 2.0, "digest"))
    for data in [*mutants([anchor], EXAMPLES, SEED), *BOMBS.values()]:
        with contextlib.suppress(Unreadable):
            checkpoint_reading.decode_anchor(data)


# --- how deep a message may be -----------------------------------------------------------------------


@given(st.recursive(st.none() | st.text('[]{}\\"a', max_size=4), lambda inner: st.lists(inner, max_size=3)), st.data())
def test_a_message_is_as_deep_as_its_brackets_say(value: object, data: st.DataObject) -> None:
    levels = data.draw(st.integers(DEEPEST - 6, DEEPEST + 1))
    body = b"[" * levels + msgspec.json.encode(value) + b"]" * levels
    assert too_deep(body) is (levels + _depth(value) > DEEPEST)


@given(st.recursive(st.none() | st.text('[]{}\\"a', max_size=4), lambda inner: st.lists(inner, max_size=3)))
def test_what_is_cut_is_as_deep_as_wanted_and_the_rest_stays(value: object) -> None:
    def cut(value: object, deepest: int) -> object:
        if not isinstance(value, list):
            return value
        return [cut(each, deepest - 1) for each in value] if deepest else 0

    body = b"[" * 500 + msgspec.json.encode(value) + b"]" * 500
    for deepest in (1, 300, 499, 501, 502):
        outer = min(deepest, 500)
        inner = msgspec.json.encode(cut(value, deepest - 500)) if deepest >= 500 else b"0"
        assert cut_levels(body, deepest) == b"[" * outer + inner + b"]" * outer


def _depth(value: object) -> int:
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


def test_a_message_that_is_too_deep_is_refused_before_anything_is_stored() -> None:
    nested: object = None
    for _ in range(DEEPEST + 1):
        nested = [nested]
    with pytest.raises(BadMessage, match="levels"):
        encode_body("a", nested, 1 << 20)
    with pytest.raises(BadMessage):
        encode_body("a", [nested] * 1000, 1 << 20)
    assert encode_body("a", nested[0], 1 << 20)  # type: ignore[index]  # it is a list
    itself: list[object] = []
    itself.append(itself)
    for wrong in (itself, "\ud800", {"\ud800": 1}, {1: object()}, 1 << 70_000, float("nan"), {1, "a", None}, b"\xff"):
        with contextlib.suppress(BadMessage):
            check_json("a", encode_body("a", wrong, 1 << 20))
