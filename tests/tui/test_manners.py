"""Copy, export, freeze, themes, the palette, progress in the tab, and how honest the top line is."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import msgspec
import pytest
from rich.cells import cell_len

from corral import events
from corral.events import AnyEvent
from corral_tui import view
from corral_tui.app import Dashboard
from corral_tui.palette import MOST, best
from corral_tui.spans import plain
from corral_tui.terminal import LIMIT, copying, progress, shows_progress
from corral_tui.theme import DEFAULT, PALETTES, THEMES, style
from corral_tui.values import Link, Truth
from tests.tui.drawn import Stage, dashboard
from tests.tui.scenes import NOW, PlainSource, beat, busy_state, look_into, record

BIG = "7qk2mzt4w9ha"
HOSTILE = "[bold]x[/]\x1b[2J\x07\u202e\u200b\u0301\u0301\u0301漢字\x9b31m\n\r\t"


def sent(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is written to the terminal from now on beside the picture."""
    written: list[str] = []
    driver = stage.app._driver
    assert driver is not None
    monkeypatch.setattr(driver, "write", written.append)
    return written


def decoded(sequence: str) -> str:
    return base64.b64decode(sequence.split(";c;")[1].split("\a", maxsplit=1)[0]).decode()


async def test_y_copies_what_the_cursor_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TMUX", raising=False)
    async with dashboard(PlainSource(look_into(busy_state())), run_id=BIG) as stage:
        written = sent(stage, monkeypatch)
        await stage.press("3", "y")
        assert decoded(written[-1]).startswith("Traceback (most recent call last):")
        assert "copied Traceback" in stage.text()
        await stage.press("2", "y")
        assert decoded(written[-1]) == "reindex-entity"


def test_what_is_copied_is_capped_and_gets_through_tmux() -> None:
    assert decoded(copying("ab", {})) == "ab"
    assert len(decoded(copying("ä" * LIMIT, {})).encode()) <= LIMIT
    within = copying("ab", {"TMUX": "/tmp/tmux"})
    assert within.endswith("\x1bPtmux;\x1b\x1b]52;c;YWI=\a\x1b\\")
    assert copying("ab", {"TERM": "screen-256color"}).startswith("\x1bP\x1b]52")
    assert "\x1b" not in copying("\x1b[2J\x1b\\", {})[1:]


async def test_o_writes_what_is_shown_into_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    async with dashboard(PlainSource(look_into(busy_state())), run_id=BIG) as stage:
        for tab, name in (("1", "tasks"), ("2", "topics"), ("3", "errors"), ("4", "workers"), ("5", "events")):
            stage.clock.now += 2
            await stage.press(tab)
            await stage.tick(2)
            await stage.press("o")
            assert "written: corral-run-" in stage.text()
            newest = max(tmp_path.glob("*.json"))
            assert json.loads(newest.read_text())[name]
        await stage.press("escape")
        await stage.tick(2)
        await stage.press("o")
        shown = json.loads(max(tmp_path.glob("corral-runs-*.json")).read_text())
        big = next(run for run in shown if run["id"] == BIG)
        assert big["total"] == big["pending"] + big["running"] + big["success"] + big["error"] + big["interrupted"]
        assert max(tmp_path.glob("*.svg")).read_text().startswith("<svg")
        assert stage.app.screen.is_active


async def test_an_export_that_cannot_be_written_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    async with dashboard(PlainSource(busy_state())) as stage:
        await stage.press("o")
        await stage.press("o")
        assert "not exported: " in stage.text()


async def test_p_freezes_the_view_while_all_goes_on() -> None:
    source = PlainSource(busy_state())
    async with dashboard(source) as stage:
        await stage.press("p")
        before = stage.lines()[2:-3]
        source.state.put_record(record("new", created_at=NOW + 1))
        await stage.tick(12)
        assert stage.lines()[2:-3] == before
        assert "frozen for 12 s" in stage.lines()[0]
        await stage.press("p")
        assert "new" in stage.text()
        assert "frozen" not in stage.text()


async def test_t_goes_through_the_themes_and_all_of_it_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    async with dashboard(PlainSource(look_into(busy_state())), run_id=BIG) as stage:
        for theme in (*THEMES[1:], THEMES[0]):
            await stage.press("t")
            assert stage.app.theme == theme.name
            await stage.press("3", "1")
            assert "1,000,000 total" in stage.text()


@pytest.mark.parametrize("palette", [*PALETTES, "corral-plain"])
def test_every_role_has_a_look_in_every_theme(palette: str) -> None:
    for role in next(iter(PALETTES.values())).roles():
        for cursor in (False, True):
            look = style(role, palette, cursor=cursor)
            assert look.color is not None
            assert look.bgcolor is not None


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("name", [DEFAULT, "corral-light"])
def test_all_that_is_said_stands_out_from_what_it_is_written_on(name: str) -> None:
    palette = PALETTES[name]
    for role, look in palette.roles().items():
        least = 2.2 if role == "faint" else 0.0 if role.startswith(("bar-", "map-")) else 4.5
        for ground in (palette.ground, palette.raised, palette.cursor):
            dark, bright = sorted((luminance(look.split()[-1]), luminance(ground)))
            assert (bright + 0.05) / (dark + 0.05) >= least, (role, ground)


def test_of_many_runs_the_palette_offers_the_one_that_is_called_so_first() -> None:
    runs = [record(f"r{number:03d}", "shop", unique=f"Product/{number}") for number in range(300, 0, -1)]
    found = best(runs, "product/17", lambda _: True)
    assert [run.unique for run in found[:4]] == ["Product/17", "Product/179", "Product/178", "Product/177"]
    assert len(found) == MOST
    assert [run.id for run in best(runs, "R042", lambda _: False)] == ["r042"]
    assert best(runs, "nothing", lambda _: False) == []


async def test_the_palette_does_what_keys_do_and_finds_runs() -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        await stage.press("colon")
        await stage.pilot.app.workers.wait_for_complete()
        await stage.press(*"thumbnails")
        await stage.pilot.app.workers.wait_for_complete()
        await stage.pilot.pause()
        assert "thumbnails jzx40we9bqn1" in stage.text()
        await stage.press("escape")


def test_progress_is_for_terminals_that_show_it() -> None:
    assert not shows_progress({})
    assert shows_progress({"WT_SESSION": "x"})
    assert not shows_progress({"WT_SESSION": "x", "TMUX": "y"})
    assert progress(42) == "\x1b]9;4;1;42\a"
    assert progress(142, bad=True) == "\x1b]9;4;2;100\a"
    assert progress(None) == "\x1b]9;4;0;0\a"


async def test_progress_stands_in_the_tab(monkeypatch: pytest.MonkeyPatch) -> None:
    async with dashboard(PlainSource(busy_state())) as stage:
        written = sent(stage, monkeypatch)
        stage.app._shows_progress = True
        await stage.tick()
        await stage.tick()
        assert [text for text in written if "]9;" in text] == ["\x1b]9;4;2;62\a"]


@pytest.mark.parametrize(
    ("truth", "said"),
    [
        (Truth(link=Link(phase="live", ready=True), bookkeeper=""), "no bookkeeper"),
        (Truth(link=Link(phase="live", ready=True), lag=4.2), "lag 4 s"),
        (Truth(link=Link(phase="live", ready=True), stale=9.0), "records 9 s old"),
        (Truth(link=Link(phase="live", ready=True), bookkeeper="ws1-4021", lag=0.04), "bookkeeper ws1-4021"),
        (Truth(link=Link(phase="live", ready=True), lag=0.04), "lag 40 ms"),
        (Truth(link=Link(phase="live", ready=True), abreast=False), "reading events"),
    ],
)
def test_the_top_line_says_what_its_numbers_are_worth(truth: Truth, said: str) -> None:
    assert said in plain(view.truth_right(truth, NOW, 200))


def test_frames_that_were_left_out_are_counted() -> None:
    app = Dashboard(PlainSource(), frame=0.1)
    for at in (0.0, 0.1, 0.2, 5.2, 5.3):
        app._count_late_frames(at)
    assert app.late_frames == 49
    assert "49 frames dropped" in plain(
        view.truth_right(Truth(link=Link(phase="live", ready=True)), NOW, 120, late_frames=49)
    )


def hostile_events() -> list[tuple[int, AnyEvent]]:
    """A task whose every text is an attack, one of a megabyte."""
    failed = events.Failed(
        topic=HOSTILE,
        task=(1_000, 7),
        error=HOSTILE,
        message=HOSTILE * 10_000,
        traceback=f"{HOSTILE}\n  File {HOSTILE}, line 3, in {HOSTILE}\n" * 5_000,
        attempt=1,
        worker=HOSTILE,
        body=msgspec.Raw(json.dumps({HOSTILE: [HOSTILE] * 50}).encode()),
    )
    ended = events.Ended(worker=HOSTILE, number=1, tasks=[events.Ends(HOSTILE, 1_000, 0, "error", [(7, 8)])])
    return [(9_000, failed), (9_001, ended), (9_002, events.Interrupted(by=HOSTILE, reason=HOSTILE))]


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 50)])
async def test_hostile_text_draws_harmlessly(size: tuple[int, int]) -> None:
    source = PlainSource(look_into(busy_state()))
    state, detail = source.state, source.state.detail
    assert detail is not None
    source.stored = [(sequence, NOW, event) for sequence, event in hostile_events()]
    for sequence, at, event in source.stored:
        detail.apply(sequence, at, event)
        state.apply(BIG, sequence, at, event, NOW)
    state.put_record(record("h", HOSTILE, unique=HOSTILE * 50, created_at=NOW + 1))
    state.beat(beat("w1", {BIG: {HOSTILE: 3}}, host=HOSTILE, topics=[HOSTILE]), NOW)
    async with dashboard(source, size) as stage:
        check(stage)
        await stage.press("i")
        assert "Interrupt [bold]" in stage.text()
        check(stage)
        await stage.press("escape", "j", "j", "j", "enter")
        for tab in "12345":
            await stage.press(tab)
            await stage.tick(1)
            check(stage)
        await stage.press("3", "e", "enter")
        check(stage)
        await stage.press("1", "n", "enter", "enter")
        await stage.tick(1)
        check(stage)
        await stage.press("escape", "escape", "escape", "w")
        check(stage)


def check(stage: Stage) -> None:
    """No line is wider than the terminal, and nothing is there that a terminal would obey."""
    for text in stage.lines():
        assert not {char for char in text if not char.isprintable()}
        assert cell_len(text) <= stage.app.size.width
