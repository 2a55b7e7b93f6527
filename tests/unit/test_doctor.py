"""What `corral doctor` makes of the facts, rule by rule."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from corral import doctor
from corral.doctor import Facts, Finding, diagnose, wrong
from corral.doctor.facts import (
    Account,
    Bookkeeper,
    ConsumerFacts,
    Look,
    OddMessage,
    RunFacts,
    StreamFacts,
    Unseen,
    WorkerFacts,
)
from corral.doctor.finding import ORDER, lasting, size, some
from corral.ledger import Counts
from corral.runs import Beat, Execution, Marker, Record

NOW = 1_000_000.0
OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


def beat(**fields: Any) -> Beat:
    usual: dict[str, Any] = {"id": "p1-1", "pool": "p1", "host": "h1", "pid": 7, "topics": ["t"], "slots": 10}
    return Beat(**{**usual, "started_at": NOW - 60, "version": "1", "markers": 99, **fields})


def stream(**fields: Any) -> StreamFacts:
    usual: dict[str, Any] = {"name": "corral_TASKS", "kind": "tasks", "messages": 1, "bytes": 10, "limit": 1_000}
    return StreamFacts(**{**usual, **fields})


def consumer(**fields: Any) -> ConsumerFacts:
    usual: dict[str, Any] = {"waiting": 0, "held": 0, "asks": 1, "delivered": 5, "ack_wait": 15.0}
    return ConsumerFacts(**{**usual, **fields})


def run(state: str = "running", *, counts: Counts | None = None, **fields: Any) -> RunFacts:
    of_run = {name: fields.pop(name) for name in list(fields) if name in RunFacts.__struct_fields__}
    usual: dict[str, Any] = {"id": "r1", "topic": "t", "body": msgspec.Raw(b"null"), "created_at": NOW - 60}
    record = Record(**{**usual, "state": state, "counts": counts or Counts(total=1, pending=1), **fields})
    return RunFacts(record=record, **of_run)


def facts(**fields: Any) -> Facts:
    """All is well: a worker that has nothing to do."""
    usual: dict[str, Any] = {
        "at": NOW,
        "namespace": "corral",
        "server": "h0:4222",
        "version": "1",
        "server_ahead": 0.01,
        "streams": [stream()],
        "bookkeeper": Bookkeeper(pool="p1", answers=True, seconds=0.01),
        "workers": [WorkerFacts(beat=beat(), ahead=0.0)],
        "before": Look(consumers={"t": consumer()}),
        "after": Look(consumers={"t": consumer()}),
    }
    return Facts(**{**usual, **fields})


def looks(queued: dict[tuple[str, str], int], **consumers: ConsumerFacts) -> dict[str, Look]:
    """Twice the same."""
    look = Look(queued=queued, consumers=consumers)
    return {"before": look, "after": look}


def only(found: list[Finding]) -> Finding:
    (finding,) = found
    return finding


def test_where_all_is_well_nothing_is_found() -> None:
    assert diagnose(facts()) == []
    assert not wrong([])


CASES: list[tuple[str, str, Facts, str]] = [
    (
        "jetstream-off",
        "wrong",
        facts(jetstream="it is switched off", workers=None),
        "JetStream cannot be used on h0:4222",
    ),
    (
        "jetstream-slow",
        "wrong",
        facts(jetstream="a call of STREAM.INFO", slow=True, workers=None),
        "JetStream on h0:4222 has not answered in time (a call of STREAM.INFO): the server has too much to do",
    ),
    ("nothing-here", "note", facts(missing=["a", "b", "c"], workers=None), "'corral' is empty"),
    ("stream-missing", "wrong", facts(missing=["corral_EVENTS"], workers=None), "corral_EVENTS is gone"),
    ("stream-full", "wrong", facts(streams=[stream(bytes=995)]), "corral_TASKS is full, 995 B of 1.0 kB (100%)"),
    ("stream-full", "wrong", facts(streams=[stream(kind="events", bytes=1_000)]), "no outcome can be stored"),
    ("starts-refused", "wrong", facts(streams=[stream(bytes=895)]), "no room for new runs, 895 B of 1.0 kB (90%)"),
    ("stream-filling", "warning", facts(streams=[stream(bytes=800)]), "is filling up, 800 B of 1.0 kB (80%)"),
    ("stream-misconfigured", "wrong", facts(streams=[stream(problems=["its discard is 'old'"])]), "its discard is"),
    ("replica-behind", "warning", facts(streams=[stream(behind=["n2"])]), "no current copy on n2"),
    ("server-full", "wrong", facts(account=Account(bytes=100, limit=100)), "take 100 B of the 100 B"),
    ("server-full", "warning", facts(account=Account(bytes=80, limit=100)), "take 80 B"),
    ("no-bookkeeper", "wrong", facts(bookkeeper=Bookkeeper(pool=None)), "no pool keeps the books"),
    ("bookkeeper-silent", "wrong", facts(bookkeeper=Bookkeeper(pool="p1", answers=False)), "pool p1 keeps the books"),
    ("bookkeeper-slow", "warning", facts(bookkeeper=Bookkeeper(pool="p1", answers=True, seconds=3)), "took 3.0 s"),
    ("no-workers", "note", facts(workers=[]), "although pool p1 is up"),
    ("no-workers", "wrong", facts(workers=[], **looks({("r1", "t"): 2}), runs=[run()]), "2 messages of 1 run wait"),
    ("pool-without-workers", "warning", facts(bookkeeper=Bookkeeper(pool="p2", answers=True)), "pool p2 keeps"),
    (
        "loop-blocked",
        "wrong",
        facts(workers=[WorkerFacts(beat=beat(blocked=12.0, blocked_by="t r1 5-3", running={"r1": {"t": 4}}))]),
        "worker p1-1 (pid 7 on h1) has been blocked for 12 s by t (run r1, task 5-3); 3 other tasks there cannot go on",
    ),
    ("loop-blocked", "warning", facts(workers=[WorkerFacts(beat=beat(blocked=1.5))]), "by something that is no task"),
    ("clock-skew", "warning", facts(server_ahead=-5.0), "the server h0:4222 is 5.0 s behind"),
    (
        "clock-skew",
        "wrong",
        facts(workers=[WorkerFacts(beat=beat(), ahead=90.0)]),
        "the clock of h1, where workers are,",
    ),
    ("version-differs", "warning", facts(version="2"), "1 worker (p1-1) runs Corral 1, and this is 2"),
    ("topic-left", "note", facts(**looks({}, t=consumer(), u=consumer())), "no worker serves topic u any more"),
    (
        "topic-unserved",
        "wrong",
        facts(**looks({("r1", "u"): 1}, t=consumer())),
        "no worker serves topic u: 1 message of run r1 waits",
    ),
    (
        "topic-unserved",
        "wrong",
        facts(workers=[WorkerFacts(beat=beat(leaves="drain"), ahead=0.0)], **looks({("r1", "t"): 2}, t=consumer())),
        "no worker serves topic t but 1 worker that leaves: 2 messages of run r1 wait",
    ),
    ("consumer-missing", "wrong", facts(**looks({("r1", "t"): 1})), "the consumer of topic t is gone"),
    (
        "consumer-misconfigured",
        "warning",
        facts(**looks({}, t=consumer(problems=["its max_deliver is 3 and should be -1"]))),
        "its max_deliver is 3",
    ),
    (
        "consumer-misconfigured",
        "warning",
        facts(workers=[WorkerFacts(beat=beat(settings={"ack_wait": 2.0}))]),
        "it waits 15 s for a worker, and the workers say 2 s",
    ),
    ("topic-paused", "wrong", facts(**looks({}, t=consumer(paused=60.0, waiting=1))), "is paused for another 60 s"),
    (
        "workers-full",
        "warning",
        facts(
            workers=[WorkerFacts(beat=beat(running={"r1": {"t": 9}}, roots=["r2"]))],
            **looks({("r1", "t"): 19}, t=consumer(waiting=10, held=9, asks=0)),
        ),
        "all 10 of 10 slots are taken where topic t is served, by long tasks (9 t of r1 and 1 the root of r2): 10",
    ),
    (
        "nobody-asks",
        "warning",
        facts(
            workers=[WorkerFacts(beat=beat(running={"r1": {"t": 2}}))],
            **looks({("r1", "t"): 12}, t=consumer(waiting=10, held=2, asks=0)),
        ),
        "its `concurrency` or the threads are used up by the 2 that run, or outcomes cannot be stored",
    ),
    (
        "nobody-asks",
        "wrong",
        facts(**looks({("r1", "t"): 10}, t=consumer(waiting=10, asks=0))),
        "outcomes cannot be stored",
    ),
    (
        "tasks-held",
        "warning",
        facts(**looks({("r1", "t"): 3}, t=consumer(held=3))),
        "3 messages of topic t were delivered to workers that are not heard",
    ),
    (
        "leftover",
        "warning",
        facts(ended={"r9": True}, **looks({("r9", "t"): 2}, t=consumer(waiting=2))),
        "2 messages of run r9, which has ended, lie in the queue (topic t)",
    ),
    (
        "stranded",
        "warning",
        facts(odd=[OddMessage(kind="stranded", run="r1", topic="t", sequence=8)]),
        "the server has forgotten 1 message",
    ),
    (
        "poison",
        "warning",
        facts(odd=[OddMessage(kind="poison", run="r1", topic="t", sequence=8)]),
        "1 message is no task",
    ),
    (
        "backing-off",
        "note",
        facts(runs=[run(counts=Counts(total=2, pending=2, retrying=2), next_attempt=NOW + 600)]),
        "all that is left of run r1, 2 tasks, wait for their next attempt; the first is due at",
    ),
    (
        "backing-off",
        "note",
        facts(runs=[run(counts=Counts(total=1, pending=1, retrying=1), last_attempt=NOW + 5)]),
        "the last one that was put off is due at",
    ),
    ("slow-starting", "warning", facts(runs=[run("starting")]), "run r1 is half started"),
    ("slow-reopening", "warning", facts(runs=[run("reopening")]), "is half brought back"),
    ("slow-ending", "warning", facts(runs=[run("ending")]), "has done all its tasks"),
    (
        "slow-interrupt",
        "warning",
        facts(
            workers=[WorkerFacts(beat=beat(stopping=["r1"], running={"r1": {"t": 2}}))],
            runs=[run("interrupting", marker=Marker(kind="stop", at=NOW - 30), marker_revision=7)],
            **looks({("r1", "t"): 2}, t=consumer(held=2)),
        ),
        "ordered to stop 30 s ago: worker p1-1 has not stopped all of it, 2 tasks still run",
    ),
    (
        "slow-interrupt",
        "warning",
        facts(runs=[run(marker=Marker(kind="stop", at=NOW - 30), marker_revision=100)]),
        "worker p1-1 has not confirmed it",
    ),
    (
        "tasks-without-messages",
        "warning",
        facts(runs=[run(root="success", counts=Counts(total=5, pending=2, success=3))]),
        "2 tasks of run r1 are open, without a message",
    ),
    (
        "long-running",
        "note",
        facts(
            workers=[
                WorkerFacts(beat=beat(running={"r1": {"t": 2}}, longest=[Execution("r1", "t", (5, 7), 7_300.0)])),
                WorkerFacts(
                    beat=beat(id="p1-2", running={"r2": {"t": 1}}, longest=[Execution("r2", "t", (8, 7), 9e3)])
                ),
            ],
            runs=[run(root="success", counts=Counts(total=5, running=2, success=3))],
        ),
        "all that is left of run r1 is being executed, 2 tasks; for longest 5-7 of topic t, for 2 h, by worker p1-1",
    ),
    (
        "worker-died",
        "warning",
        facts(runs=[run("queued", deaths=2, death="p1-1: signal SIGKILL", death_at=NOW - 20)]),
        "2 workers died while executing run r1, the last one 20 s ago (p1-1: signal SIGKILL)",
    ),
    ("key-held", "note", facts(runs=[run("queued", unique="Product/7")]), "run r1 (t) holds the key 'Product/7' since"),
    ("run-ended", "note", facts(run="r1", runs=[run("final", refusal="key held by r0")]), "refused its unique key"),
    ("run-ended", "note", facts(run="r1", runs=[run("aborted")]), "was never begun"),
    ("not-seen", "unknown", facts(unseen=[Unseen("the account", "this user may not")]), "could not be seen: this user"),
]


@pytest.mark.parametrize(("code", "severity", "seen", "said"), CASES, ids=[f"{case[0]}-{case[1]}" for case in CASES])
def test_a_finding_says_what_it_is_about(code: str, severity: str, seen: Facts, said: str) -> None:
    finding = only(diagnose(seen))
    assert (finding.code, finding.severity) == (code, severity)
    assert said in finding.text
    assert finding.about
    assert finding.help or severity in ("note", "unknown")


def test_a_silent_worker_is_told_and_does_not_count_as_there() -> None:
    found = diagnose(facts(workers=[WorkerFacts(beat=beat(running={"r1": {"t": 2}}), ago=9.0)]))
    assert [finding.code for finding in found] == ["worker-silent", "no-workers"]
    assert "has not been heard for 9.0 s; the 2 tasks that it had run elsewhere" in found[0].text


def test_settings_that_pools_do_not_share_are_named() -> None:
    workers = [
        WorkerFacts(beat=beat(settings={"death": 9.0})),
        WorkerFacts(beat=beat(id="p2-1", pool="p2")),
    ]
    finding = only(diagnose(facts(workers=workers)))
    assert finding.code == "settings-differ"
    assert finding.text == "pools differ in the setting death: 9.0 in pool p1, the default in pool p2"


def test_a_full_queue_names_the_workers_whose_tasks_wait_for_room() -> None:
    seen = facts(streams=[stream(bytes=1_000)], workers=[WorkerFacts(beat=beat(roots=["r1"], waiting=1))])
    assert only(diagnose(seen)).text.endswith("; 1 task waits for room (worker p1-1)")


@pytest.mark.parametrize(
    "seen",
    [
        facts(runs=[run("starting", moved=True)]),
        facts(runs=[run("starting", created_at=NOW - 1)]),
        facts(runs=[run(marker=Marker(kind="stop", at=NOW - 1))]),
        facts(runs=[run(marker=Marker(kind="over", at=NOW - 99))]),
        facts(runs=[run(root="success", moved=True, counts=Counts(total=5, pending=2, success=3))]),
        facts(before=Look(), after=Look(queued={("r1", "t"): 3}, consumers={"t": consumer(held=3)})),
        facts(
            before=Look(consumers={"t": consumer(held=3)}),
            after=Look(queued={("r1", "t"): 3}, consumers={"t": consumer(held=3, delivered=6)}),
        ),
        facts(runs=[run(counts=Counts(total=1, pending=1, retrying=1))], jetstream="", workers=None),
        facts(
            runs=[run("queued", deaths=1, death="x", death_at=NOW - 99_999)],
            **looks({("r1", "t"): 1}, t=consumer(waiting=1)),
        ),
    ],
    ids=["moves", "just started", "just ordered", "over", "counted anew", "came", "delivered", "back-off", "long ago"],
)
def test_what_moves_or_has_just_begun_is_no_matter(seen: Facts) -> None:
    assert [finding for finding in diagnose(seen) if finding.severity != "note"] == []


def test_a_run_that_is_asked_about_is_told_alone() -> None:
    others = [run("starting"), msgspec.structs.replace(run("starting", id="r2"))]
    seen = facts(run="r2", runs=others, **looks({("r1", "u"): 1, ("r2", "v"): 1}))
    assert {(finding.code, finding.about) for finding in diagnose(seen)} == {
        ("slow-starting", "r2"),
        ("topic-unserved", "v"),
    }


def test_a_loop_that_is_blocked_by_a_task_is_freed_by_interrupting_its_run() -> None:
    for by, advice in (
        ("t r1 5-3", "corral interrupt r1 --kill-after 5; pool p1, "),
        ("", "on h1: kill -9 7; pool p1, "),
        ("t $(reboot) 5-3", "on h1: kill -9 7; pool p1, "),
    ):
        seen = facts(workers=[WorkerFacts(beat=beat(blocked=12.0, blocked_by=by))])
        assert only(diagnose(seen)).help.startswith(advice)


def test_thousands_of_runs_make_a_page_and_not_thousands_of_lines() -> None:
    found = diagnose(facts(runs=[run("starting", id=f"r{n}", unique=f"k{n}") for n in range(5_000)]))
    assert len(found) < 30
    assert "4,980 more runs have the finding 'slow-starting'" in [finding.text for finding in found]
    assert "4,997 more unique keys are held, each by a live run" in [finding.text for finding in found]


def test_the_worst_comes_first() -> None:
    found = diagnose(
        facts(version="2", bookkeeper=Bookkeeper(pool=None), unseen=[Unseen("x", "y")], runs=[run(unique="k")])
    )
    assert [finding.severity for finding in found] == ["wrong", "warning", "note", "unknown"]
    assert wrong(found)


def test_words() -> None:
    assert [some(list("abcd")[:n]) for n in (0, 1, 2, 3, 4)] == ["", "a", "a and b", "a, b and c", "a, b, c and 1 more"]
    assert [lasting(s) for s in (-1, 0.5, 59, 300, 9_000, 200_000)] == ["0.0 s", "0.5 s", "59 s", "5 min", "2 h", "2 d"]
    assert [size(n) for n in (0, 999, 1_500, 4_294_967_296)] == ["0 B", "999 B", "1.5 kB", "4.3 GB"]


def test_every_finding_is_explained_to_operators() -> None:
    folder = Path(doctor.__file__).parent
    texts = [path.read_text() for path in folder.glob("*.py")]
    codes = {code for text in texts for code in re.findall(r'code(?:=|, text = | = )"([a-z-]+)"', text)}
    codes |= {"slow-starting", "slow-reopening", "slow-ending"}
    explained = set(re.findall(r"^\| `([a-z-]+)`", OPERATIONS.read_text(), re.MULTILINE))
    assert codes == explained - set(ORDER)


def test_a_run_of_which_something_still_waits_is_not_told_to_wait_for_what_is_executed() -> None:
    busy = [WorkerFacts(beat=beat(running={"r1": {"t": 2}}, longest=[Execution("r1", "t", (5, 7), 7_300.0)]))]
    waits = run(root="success", counts=Counts(total=6, running=2, pending=1, success=3))
    assert "long-running" not in [each.code for each in diagnose(facts(workers=busy, runs=[waits]))]
