"""Workers that are told to leave from the dashboard: the question, its impact, and who has confirmed it."""

import msgspec
import pytest

from corral.errors import Unconfirmed
from corral.leaving import Departure
from corral_tui.leaving import Dismissed, dismissed_line, impact
from corral_tui.spans import plain
from corral_tui.state import State
from tests.tui.drawn import dashboard
from tests.tui.scenes import NOW, PlainSource, beat, busy_state

FIRST = "ws1-4021-1"


def departure(worker: str = FIRST, *, gone: bool = False) -> Departure:
    return Departure(id=worker, pool="ws1-4021", host="ws1", running=70, confirmed=0.084, gone=gone)


async def test_a_drain_names_its_impact_and_its_default_is_no() -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        await stage.press("w", "D")
        assert f"Drain worker {FIRST} on ws1?" in stage.text()
        assert "takes nothing new; 78 running tasks may end," in stage.text()
        assert "pool ws1-4021: nobody is put in the place; 7 workers of it stay" in stage.text()
        assert "[ No ]" in stage.text()
        await stage.press("enter")
        assert stage.source.dismissed == []
        assert "Drain worker" not in stage.text()


@pytest.mark.parametrize(("key", "how", "sign"), [("D", "drain", "◐"), ("S", "stop", "■")])
async def test_yes_tells_the_worker_and_shows_who_confirmed_it_and_how_fast(key: str, how: str, sign: str) -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        await stage.press("w", key, "y")
        assert stage.source.dismissed == [(how, [FIRST])]
        await stage.tick(0.4)
        assert f"{sign} {how} {FIRST}  not confirmed yet, for 400 ms" in stage.text()
        assert stage.source.departed is not None
        told = next(each for each, _ in stage.source.state._beats.values() if each.id == FIRST)
        stage.source.state.beat(msgspec.structs.replace(told, leaves=how), stage.clock.now)
        stage.source.departed.set_result([departure()])
        await stage.pilot.pause()
        await stage.tick()
        assert f"{sign} {how} {FIRST}  confirmed by it in 84 ms; 78 tasks to end" in stage.text()
        assert f"{sign} {how}s" in stage.line_with(f" {FIRST} ")
        stage.source.state.beat(msgspec.structs.replace(told, leaving=True), stage.clock.now)
        await stage.tick()
        assert "confirmed by it in 84 ms; gone" in stage.text()


async def test_several_workers_need_the_word_typed() -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        await stage.press("w", "P")
        assert "8 workers marked" in stage.text()
        await stage.press("S")
        assert "Stop 8 workers?" in stage.text()
        assert "hands back 645 running tasks at once; they begin again elsewhere" in stage.text()
        assert "pool ws1-4021: ends with it" in stage.text()
        assert "nobody else serves import-csv, reindex, reindex-entity" in stage.text()
        await stage.type("drain")
        await stage.press("enter")
        assert stage.source.dismissed == []
        await stage.press(*["backspace"] * 5, *"stop", "enter")
        ((how, workers),) = stage.source.dismissed
        assert (how, len(workers)) == ("stop", 8)
        assert stage.source.departed is not None
        stage.source.departed.set_result([departure(worker) for worker in workers])
        await stage.pilot.pause()
        await stage.tick()
        assert "confirmed by each in 84 ms; 8 still here, 645 tasks to end" in stage.text()
        await stage.press("escape")
        assert "marked" not in stage.text()


async def test_an_order_that_is_not_confirmed_says_so() -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        await stage.press("w", "D", "y")
        assert stage.source.departed is not None
        stage.source.departed.set_exception(Unconfirmed(f"the order to drain, by {FIRST}"))
        await stage.pilot.pause()
        await stage.tick()
        assert "✗ drain" in stage.line_with("not known whether this happened")


@pytest.mark.parametrize("asked", [True, False])
async def test_who_may_change_nothing_is_not_offered_it(*, asked: bool) -> None:
    source = PlainSource(busy_state())
    source.read_only = not asked
    async with dashboard(source, read_only=asked) as stage:
        await stage.press("w")
        assert "drain" not in stage.lines()[-1]
        await stage.press("D", "S")
        assert stage.source.dismissed == []
        assert "?" not in stage.text().replace("? help", "")


async def test_a_question_about_a_worker_that_is_gone_is_moot() -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        await stage.press("w", "D")
        told = next(each for each, _ in stage.source.state._beats.values() if each.id == FIRST)
        stage.source.state.beat(msgspec.structs.replace(told, leaving=True), NOW)
        await stage.tick()
        assert f"worker {FIRST} leaves already, or is gone" in stage.text()


def test_a_silent_worker_is_counted_neither_among_those_that_stay_nor_among_those_to_end() -> None:
    state = State()
    state.beat(beat("w-1", {"r": {"t": 3}}, topics=["t"]), NOW)
    state.beat(beat("w-2", {}, topics=["t"]), NOW - 30)
    first, second = state.workers(NOW)
    assert "ends with it" in "".join(map(plain, impact("drain", [first], [second])))
    order = Dismissed("drain", ("w-1", "w-2"), NOW, NOW, [departure("w-1"), departure("w-2")])
    assert "1 still here, 3 tasks to end" in plain(dismissed_line(order, [first, second], NOW))
