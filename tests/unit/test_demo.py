"""The demo's processors, called as plain functions."""

import asyncio
import os
import warnings
from pathlib import Path
from typing import Any

import msgspec
import pytest

from corral import Context, Reject, SyncContext
from corral.context import Stop, Wiring
from corral.demo import (
    CHUNK,
    File,
    Folders,
    app,
    checksum,
    folders,
    is_workable,
    list_folders,
    parse,
    same_folders,
    walk,
)
from corral.errors import Interrupted


class Sent:
    """What a processor sends, by topic."""

    def __init__(self) -> None:
        self.paths: dict[str, list[str]] = {}

    async def __call__(self, topic: str, body: bytes) -> None:
        self.paths.setdefault(topic, []).append(msgspec.json.decode(body, type=File).path)


def wiring(sent: Sent, stop: Stop) -> Wiring[None]:
    async def start(*_: Any, **__: Any) -> None:
        raise AssertionError("the demo starts no runs")

    return Wiring(
        run_id="r",
        task=(0, 0),
        topic="demo",
        attempt=1,
        state=None,
        stop=stop,
        processors=app.processors,
        limit=1_000_000,
        send=sent,
        start=start,
    )


async def sent_by(message: Folders) -> list[str]:
    sent = Sent()
    await walk(message, Context(wiring(sent, Stop())))
    assert sent.paths.keys() == {"demo.checksum", "demo.parse"}
    assert sent.paths["demo.checksum"] == sent.paths["demo.parse"]
    return sent.paths["demo.parse"]


@pytest.fixture
def context() -> SyncContext[None]:
    with asyncio.Runner() as runner:
        return SyncContext(wiring(Sent(), Stop()), runner.get_loop())


async def test_every_file_goes_to_both_processors(tmp_path: Path) -> None:
    expected = [tmp_path / "a.py", tmp_path / "below" / "b.json", tmp_path / "below" / "deep" / "c"]
    for path in expected:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert await sent_by(Folders([str(tmp_path)])) == [str(path) for path in expected]


async def test_a_file_below_two_given_paths_is_sent_once(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "file").touch()
    paths = [str(tmp_path), str(tmp_path / "below"), f"{tmp_path}/below/../below"]
    assert await sent_by(Folders(paths)) == [str(tmp_path / "below" / "file")]


async def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert await sent_by(Folders([str(tmp_path)])) == [str(tmp_path / "file")]


async def test_a_link_to_nowhere_and_a_missing_path_are_sent_so_that_they_fail(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    missing = str(tmp_path / "missing")
    assert await sent_by(Folders([str(tmp_path), missing])) == [str(tmp_path / "link"), missing]


async def test_a_pipe_is_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    assert await sent_by(Folders([str(tmp_path)])) == [str(tmp_path / "file")]


def test_a_name_that_is_no_text_is_left_out() -> None:
    assert not is_workable(Path(os.fsdecode(b"\xff")))


async def test_folders_without_any_file_are_rejected_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(Reject, match=f"no files in {tmp_path}"):
        await sent_by(Folders([str(tmp_path)]))
    with pytest.raises(Reject, match="an empty list of paths"):
        await sent_by(Folders([]))


def test_without_paths_it_is_the_standard_library_and_the_installed_packages() -> None:
    listed = {path for files in list_folders(folders()) for path in files}
    assert len(listed) > 1000
    assert {os.__file__, msgspec.__file__} <= listed
    assert not any(path.endswith(".pyc") for path in listed)


def test_the_same_folders_make_the_same_key_however_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    one, other = str(tmp_path), str(tmp_path.parent)
    assert same_folders(Folders([one, other])) == same_folders(Folders([other, f"{one}/link", one]))
    assert same_folders(Folders([one])) != same_folders(Folders([other]))


def test_the_key_of_many_folders_is_not_too_long() -> None:
    many = Folders([f"/{number}/{'x' * 100}" for number in range(100)])
    assert len(same_folders(many)) < 1000
    assert len(app.processors["demo"].key(many) or "") < 1000


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("a.py", b"x = 1", b"x ="),
        ("a.json", b'{"x": 1}', b"{x: 1}"),
        ("a.toml", b"x = 1", b"x ="),
        ("a.txt", "größer".encode(), "größer".encode("latin-1")),
        ("a", b"", b"\xff"),
        ("long", b"x" * (CHUNK - 1) + "ö".encode(), b"x" * CHUNK + b"\xc3"),
    ],
)
def test_a_file_is_parsed_as_what_its_name_says(
    tmp_path: Path, context: SyncContext[None], name: str, good: bytes, bad: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(good)
    parse(File(str(path)), context)
    path.write_bytes(bad)
    with pytest.raises((SyntaxError, ValueError)):
        parse(File(str(path)), context)


def test_a_file_that_cannot_be_read_fails(tmp_path: Path, context: SyncContext[None]) -> None:
    for processor in (checksum, parse):
        with pytest.raises(FileNotFoundError):
            processor(File(str(tmp_path / "missing")), context)
        with pytest.raises(IsADirectoryError):
            processor(File(str(tmp_path)), context)


def test_an_interrupt_stops_in_the_middle_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    stop = Stop()
    stop.set()
    with asyncio.Runner() as runner:
        stopped = SyncContext(wiring(Sent(), stop), runner.get_loop())
    for processor in (checksum, parse):
        with pytest.raises(Interrupted):
            processor(File(str(path)), stopped)


async def test_warnings_about_old_code_are_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "old.py"
    path.write_text("'\\d'")
    async with app.lifespan():
        await asyncio.to_thread(parse, File(str(path)), SyncContext(wiring(Sent(), Stop()), asyncio.get_running_loop()))
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        await asyncio.to_thread(parse, File(str(path)), SyncContext(wiring(Sent(), Stop()), asyncio.get_running_loop()))
    assert shown
