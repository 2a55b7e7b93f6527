"""Why nothing moves, on the screen; and the workers."""

from __future__ import annotations

import msgspec
import pytest

from corral.doctor.facts import Bookkeeper, Facts, Look, StreamFacts, WorkerFacts
from corral.doctor.finding import Finding
from corral.errors import Unconfirmed
from corral.runs import Beat
from corral_tui.crew import KEPT, Paces, summary_lines, worker_columns, worker_lines, worker_row
from corral_tui.diagnosis import Diagnosis, findings_lines, heading, hint, vitals
from corral_tui.spans import plain
from corral_tui.state import State
from tests.tui.drawn import dashboard
from tests.tui.scenes import NOW, PlainSource, beat, busy_state

SIZES = [(60, 15), (80, 24), (120, 40), (200, 60)]


def facts(*, share: float = 0.1, workers: list[Beat] | None = None, pool: str | None = "ws1-4021") -> Facts:
    return Facts(
        at=NOW,
        namespace="corral",
        server="127.0.0.1:4222",
        version="0.1.0",
        server_ahead=0.004,
        streams=[
            StreamFacts(name="corral_TASKS", kind="tasks", messages=71_000, bytes=int(share * 4e9), limit=int(4e9))
        ],
        bookkeeper=Bookkeeper(pool=pool, answers=bool(pool), seconds=0.003),
        workers=[WorkerFacts(beat=each) for each in workers or [beat("ws1-4021-1", {})]],
        after=Look(listed=False),
    )


def source(facts: Facts) -> PlainSource:
    source = PlainSource(busy_state())
    source.facts = facts
    return source


@pytest.mark.parametrize("size", SIZES)
async def test_the_findings_are_shown_with_what_helps_and_all_of_it_fits(size: tuple[int, int]) -> None:
    blocked = beat("ws1-4021-1", {"r1": {"t": 4}}, blocked=42.0, blocked_by="t r1 5-3")
    async with dashboard(source(facts(share=0.85, workers=[blocked])), size) as stage:
        await stage.press("d")
        await stage.tick()
        assert stage.line_with("Why is nothing moving?").split()[4:7] == ["1", "wrong", "1"]
        assert "✗ wrong" in stage.text()
        assert "has been blocked for" in " ".join(stage.text().split())
        assert all(len(line) <= size[0] for line in stage.lines())
        assert len(stage.lines()) == size[1]
        if size[1] > 15:
            assert "corral interrupt r1 --kill-after 5" in " ".join(stage.text().split())
            assert "85%" in stage.text()
            assert "3.4 GB of 4.0 GB" in stage.text()


async def test_where_all_is_well_the_numbers_are_shown() -> None:
    async with dashboard(source(facts())) as stage:
        await stage.press("d")
        await stage.tick()
        assert "✓ nothing is wrong" in stage.text()
        assert "400 MB of 4.0 GB" in stage.line_with("corral_TASKS")
        assert "answered in 3 ms" in stage.line_with("bookkeeper    ws1-4021")
        await stage.press("escape")
        assert "Why is nothing moving?" not in stage.text()


async def test_from_a_run_it_is_about_that_run_and_it_looks_again_when_asked() -> None:
    shown = source(facts())
    async with dashboard(shown, run_id="7qk2mzt4w9ha") as stage:
        await stage.press("d")
        assert shown.diagnosed == ["7qk2mzt4w9ha"]
        assert "run 7qk2mzt4w9ha" in stage.line_with("Why is nothing moving?")
        shown.facts = facts(share=1.0)
        await stage.press("R")
        await stage.tick()
        assert shown.diagnosed == ["7qk2mzt4w9ha"] * 2
        assert "corral_TASKS is full" in stage.text()


async def test_what_cannot_be_looked_at_is_said() -> None:
    shown = source(facts())
    shown.undiagnosed = Unconfirmed("a look")
    async with dashboard(shown) as stage:
        await stage.press("d")
        await stage.tick()
        assert "could not look: " in stage.text()
        assert "looking ..." not in stage.text()


async def test_something_seriously_wrong_is_hinted_at_above_the_keys() -> None:
    shown = source(facts())
    async with dashboard(shown, (80, 24)) as stage:
        assert "d says why" not in stage.text()
        bad = [Finding(severity="wrong", code="c", about="a", text=text, help="h") for text in ("nobody works", "more")]
        mild = Finding(severity="warning", code="c", about="a", text="mild", help="h")
        shown.state.diagnosis = Diagnosis(NOW, facts(), (*bad, mild))
        await stage.tick()
        assert stage.lines()[-2].strip() == "✗ nobody works  and 1 more  d says why"
        shown.state.diagnosis = Diagnosis(NOW, facts(), (mild,))
        await stage.tick()
        assert stage.lines()[-2].strip() == ""


def test_long_sentences_are_wrapped_and_hostile_ones_are_harmless() -> None:
    finding = Finding(severity="wrong", code="c", about="a", text="word " * 60 + "\x1b[2J[bold]", help="corral x")
    lines = [plain(each) for each in findings_lines([finding], 80)]
    assert all(len(each) <= 80 for each in lines)
    assert "\x1b" not in "".join(lines)
    assert "\x1b" not in plain(hint(Diagnosis(NOW, facts(), (finding,)), 80))
    assert len(plain(hint(Diagnosis(NOW, facts(), (finding, finding)), 80))) <= 78
    assert heading(None, NOW, "") != ()


# --- the workers -----------------------------------------------------------------------------------------


async def test_a_blocked_worker_is_shouted_about() -> None:
    shown = PlainSource(busy_state())
    shown.state.beat(
        beat("ws1-4021-3", {"7qk2mzt4w9ha": {"reindex-entity": 70}}, blocked=12.0, blocked_by="reindex-entity r 5-3"),
        NOW - 0.2,
    )
    async with dashboard(shown) as stage:
        await stage.press("w")
        assert "1 BLOCKED: nothing else moves there" in stage.line_with("Workers")
        assert "✗ BLOCKED" in stage.line_with("ws1-4021-3")
        assert "for 12 s by reindex-entit" in stage.line_with("ws1-4021-3")


@pytest.mark.parametrize("size", SIZES)
async def test_workers_say_what_they_do_at_every_size(size: tuple[int, int]) -> None:
    shown = PlainSource(busy_state())
    shown.state.bookkeeper = "ws1-4021"
    async with dashboard(shown, size) as stage:
        await stage.press("w")
        row = stage.line_with("ws1-4021-2")
        assert "78/100" in row
        assert "70 reind" in row
        assert all(len(line) <= size[0] for line in stage.lines())
        if size[1] >= 24:
            assert "ws1-4021 on ws1: 8 workers, 645/800, keeps the books" in stage.text()
            assert "pid 4101 on ws1" in stage.text()
            await stage.press("j")
            await stage.tick()
            assert "pid 4102 on ws1" in stage.text()
            assert "reindex-entity  7qk2mzt4w9ha" in " ".join(stage.text().split(" ")).replace("   ", " ")
        assert stage.app.screen.exported()[0]["id"] == "ws1-4021-1"  # type: ignore[attr-defined]


def test_no_bookkeeper_is_said_and_one_without_workers_is_named() -> None:
    workers = busy_state().workers(NOW)
    assert "no bookkeeper" in "".join(map(plain, summary_lines(workers, "", 118)))
    assert "bookkeeper-1 keeps the books" in "".join(map(plain, summary_lines(workers, "bookkeeper-1", 118)))
    assert "keep" not in "".join(map(plain, summary_lines(workers, None, 118)))


def test_a_worker_that_waits_for_room_or_is_still_stopping_something_says_so() -> None:
    state = State()
    state.beat(beat("w-1", {}, waiting=2, stopping=["r1"], settings={"ack_wait": 2.0}), NOW)
    (worker,) = state.workers(NOW)
    cells = dict(
        zip([column.name for column in worker_columns(200)], worker_row(worker, worker_columns(200), NOW), strict=True)
    )
    assert plain(cells["state"]) == "‖ no room"
    assert "the queue is full: 2 tasks that send wait for room" in "".join(
        map(plain, summary_lines([worker], None, 118))
    )
    said = "\n".join(map(plain, worker_lines(worker, NOW)))
    assert "still stops r1" in said
    assert "set otherwise: ack_wait=2" in said


def test_the_pace_of_each_worker_is_counted_and_not_of_all_that_ever_were() -> None:
    paces = Paces()
    for number in range(KEPT + 100):
        paces.note(NOW, f"w{number}", 1)
    assert paces.rate("w0", NOW + 1) == 0.0
    assert paces.rate(f"w{KEPT + 99}", NOW + 1) > 0
    assert len(paces._pulses) == KEPT


def test_a_silent_worker_is_told_to_the_diagnosis() -> None:
    state = State()
    state.beat(beat("w-1", {}, at=NOW + 3), NOW)
    (heard,) = state.heard(NOW + 9)
    assert (heard.ago, heard.ahead) == (9.0, 3.0)


@pytest.mark.parametrize(("ahead", "said"), [(0.0002, "within a millisecond of ours"), (-2.0, "is 2 s behind ours")])
def test_clocks_that_agree_are_not_told_to_differ(ahead: float, said: str) -> None:
    assert said in plain(vitals(msgspec.structs.replace(facts(), server_ahead=ahead))[-1])
