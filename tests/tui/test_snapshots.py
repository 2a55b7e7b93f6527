"""Every screen, to the letter, in every size and state: what is drawn is what was looked at and kept.

A change of the looks is made with `python -m pytest tests/tui/test_snapshots.py --make-snapshots`, and reviewed as a
difference of the text files in `snapshots/`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.tui.drawn import dashboard
from tests.tui.shots import MIDDLE, SHOTS
from tests.tui.snapshot import COMMAND, FOLDER, compared, path_of, printed, settled

TAKEN = {path_of(name, size) for name, shot in SHOTS.items() for size in shot.sizes}


@pytest.fixture
def anew(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--make-snapshots"))


@pytest.fixture(autouse=True)
def anywhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The same on every machine: its time zone, and what its terminal is called."""
    for name in ("NO_COLOR", "CORRAL_THEME", "WT_SESSION"):
        monkeypatch.delenv(name, raising=False)
    with monkeypatch.context() as zone:
        zone.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize("name", SHOTS)
async def test_the_screen_is_what_was_kept(name: str, *, anew: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    shot = SHOTS[name]
    monkeypatch.setenv(*(("NO_COLOR", "1") if shot.theme == "NO_COLOR" else ("CORRAL_THEME", shot.theme)))
    differences: list[str] = []
    async with dashboard(shot.make(), shot.sizes[0], run_id=shot.run, read_only=shot.read_only) as stage:
        await stage.press(*shot.keys.split())
        await shot.then(stage)
        for size in shot.sizes:
            await stage.pilot.resize_terminal(*size)
            await settled(stage)
            differences += compared(path_of(name, size), printed(stage.app, looks=size == MIDDLE), anew=anew)
    if differences:
        pytest.fail("\n".join([f"If it should look so, keep it: {COMMAND}", *differences]), pytrace=False)


def test_every_kept_snapshot_is_of_something(*, anew: bool) -> None:
    stale = set(FOLDER.iterdir()) - TAKEN
    for path in stale if anew else ():
        path.unlink()
    assert anew or not stale
