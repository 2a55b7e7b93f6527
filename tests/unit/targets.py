"""What is decoded of what others have stored or sent, and what is done with it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import msgspec

from corral import gate, keys, questions
from corral.answering import answer_to
from corral.bitmap import Bitmap
from corral.book import Book
from corral.decoding import too_deep
from corral.events import AnyEvent, decode_event, encode_event
from corral.jetstream.acks import sequence_of
from corral.jetstream.wire import parse_headers
from corral.keys import KeyField, TopicRecord, encode_topic
from corral.ledger import Ledger
from corral.messages import check_body, check_json, decode_task, encode_task
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
from corral.selection import Selection
from corral.snapshot import freeze, thaw
from corral.tally import Counts
from corral_tui.fold import Detail
from corral_tui.state import State
from tests.unit.histories import Simulation, Tape

EXAMPLES = int(os.environ.get("CORRAL_EXAMPLES", "300"))
SEED = int(os.environ.get("CORRAL_SEED", "0"))
NOW = 1_700_000_000.0


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
    selection=Selection([(7, [(0, 2), (5, 6)])], [(9, [(8, b"\x05")])]),
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
    if record.selection is not None:
        some = {batch: Bitmap.of_range(0, 9) for batch in range(10)}
        within = record.selection.within(some)
        assert all(not bits.minus(some[batch]) for batch, bits in within.items())


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
