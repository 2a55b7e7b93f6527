"""Time travel: what is shown of any moment is what the events until then say, and the keys that lead there."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from corral.events import AnyEvent, encode_event
from corral.ledger import Ledger
from corral_tui.replay import SPEEDS, History, Replay
from corral_tui.screens.replay import ReplayScreen
from tests.tui.drawn import Stage, dashboard
from tests.tui.scenes import NOW, PlainSource, busy_state, live_events, look_into, record
from tests.tui.test_numbers import said
from tests.unit.histories import Simulation, Tape

BIG = "7qk2mzt4w9ha"


@settings(max_examples=20, deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(0, 60), max_size=4))
def test_at_every_position_its_numbers_are_the_ledgers(data: bytes, positions: list[int]) -> None:
    events = Simulation(Tape(data)).run()
    history: History = [(sequence, NOW + n, encode_event(event)) for n, (sequence, event) in enumerate(events)]
    replay = Replay(record("a", "root"), history)
    for position in [*positions, 0, len(history)]:
        replay.seek(NOW + position - 1)
        while not replay.arrived:
            replay.work(7)
        alone = Ledger("root")
        for sequence, event in events[: replay.position]:
            alone.apply(event, sequence, NOW)
        look = replay.look()
        assert replay.position == min(max(1, position), len(history))
        assert (look.run.counts, look.run.topics) == alone.counts()
        assert look.run.ended == alone.over
        assert look.run.holds
        counts = look.run.counts
        assert said(look.run) == [counts.total, counts.pending, 0, counts.success, counts.error, counts.interrupted]


def test_it_plays_at_its_speed_and_stops_at_the_end() -> None:
    history = [(sequence, at, encode_event(event)) for sequence, at, event in story()]
    replay = Replay(record(BIG), history)
    replay.play()
    replay.passed(1.0)
    assert replay.at == replay.begins + 1
    replay.faster(2)
    assert replay.speed == SPEEDS[2]
    replay.passed(1.0)
    assert replay.at == replay.begins + 6
    replay.passed(1_000.0)
    assert (replay.at, replay.playing) == (replay.ends, False)
    replay.play()
    assert (replay.at, replay.playing) == (replay.begins, True)
    replay.step(1)
    assert (replay.target, replay.playing) == (2, False)


def story() -> list[tuple[int, float, AnyEvent]]:
    return list(live_events(batch=1_000, topic="reindex-entity", total=1_000_000, done=627_990, errors=194, seconds=15))


async def arrived(stage: Stage, replay: Replay) -> None:
    """Until all is folded that is to be."""
    while not replay.arrived:
        await stage.tick()
    await stage.tick(1)


async def travelled(stage: Stage) -> Replay:
    """Into the replay of the big run."""
    await stage.press("left_square_bracket")
    await stage.tick()
    screen = stage.app.screen
    assert isinstance(screen, ReplayScreen)
    return screen.replay


async def test_brackets_lead_into_the_past_and_esc_back() -> None:
    source = PlainSource(look_into(busy_state()))
    source.stored = story()
    async with dashboard(source, run_id=BIG) as stage:
        replay = await travelled(stage)
        assert "replay" in stage.lines()[-2]
        assert "interrupt" not in stage.lines()[-1]
        await stage.press("9")
        await arrived(stage, replay)
        assert "627,990 success + 194 error" in stage.text()
        await stage.press(*["left_square_bracket"] * 20)
        await arrived(stage, replay)
        halfway = replay.look().run.counts
        assert 0 < halfway.success < 600_000
        assert f"{halfway.success:,} success" in stage.text()
        await stage.press("3", "1", "space")
        await stage.tick(1)
        await arrived(stage, replay)
        assert replay.playing
        assert replay.look().run.counts.success > halfway.success
        await stage.press("space", "0")
        await arrived(stage, replay)
        assert "0 success" in stage.text()
        await stage.press("escape")
        assert not isinstance(stage.app.screen, ReplayScreen)
        assert "371,816 pending" in stage.text()


async def test_a_run_of_which_nothing_is_stored_has_no_replay() -> None:
    async with dashboard(PlainSource(look_into(busy_state())), run_id=BIG) as stage:
        await stage.press("right_square_bracket")
        await stage.tick()
        assert "nothing is stored of it any more" in stage.text()


async def test_on_every_tab_space_plays_and_nobody_is_called_gone() -> None:
    source = PlainSource(look_into(busy_state()))
    source.stored = story()
    async with dashboard(source, (80, 24), run_id=BIG) as stage:
        replay = await travelled(stage)
        await stage.press("9")
        await arrived(stage, replay)
        await stage.press("0")
        await arrived(stage, replay)
        for tab in "12345":
            await stage.press(tab)
            assert "space play, pause" in stage.lines()[-1]
            await stage.press("space")
            assert replay.playing
            await stage.press("space")
            assert not replay.playing
        await stage.press("9", "4")
        await arrived(stage, replay)
        assert "gone" not in stage.text()
        assert "ws1-4021-1" in stage.text()
        assert "marked" not in stage.text()
