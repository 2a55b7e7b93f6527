"""What others have stored or sent is a value or an error of ours: never another error, and never one at its use.

`CORRAL_EXAMPLES=100000 pytest tests/unit/test_fuzz.py` searches longer, from `CORRAL_SEED` on.
"""

from __future__ import annotations

import base64
import contextlib
import tracemalloc
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral import book as book_module
from corral import checkpoint_reading
from corral.book import Book
from corral.checkpoint_reading import Anchor
from corral.decoding import DEEPEST, cut_levels, too_deep
from corral.errors import BadMessage, CorralError, Unreadable
from corral.events import Interrupted, decode_event, encode_event
from corral.ledger import Ledger
from corral.messages import check_json, encode_body
from corral.recount import recount
from corral.runs import decode_record, encode
from corral.snapshot import freeze, thaw
from corral_tui import state as state_module
from corral_tui.state import State
from tests.unit.mutants import BOMBS, mutants
from tests.unit.targets import BEAT, EXAMPLES, NOW, RECORD, SEED, TARGETS, Target, fold, folded, history

BITS = base64.b64encode(b"\xff" * 700_000)
"""As many as one event has room for."""


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
