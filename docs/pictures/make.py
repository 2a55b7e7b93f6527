"""Makes the pictures of the dashboard from real runs: `python docs/pictures/make.py`.

A server and two workers are started in a folder of their own, with the app beside this file. Nothing of the pictures is
drawn by hand; they say what the dashboard said, but for the folder in which the app stands.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from textual.pilot import Pilot

from corral_tui import text

HERE = Path(__file__).parent
SIZE = (120, 34)
DEADLINE = 120.0
_clean = text.clean


def clean(said: str, limit: int = text.LINE_LIMIT) -> str:
    """Text without the folder of this machine."""
    return _clean(said.replace(str(HERE), "/srv/shop"), limit)


text.clean = clean  # before anybody else takes it

from corral_tui.app import Dashboard  # noqa: E402
from corral_tui.feed import Feed  # noqa: E402


@contextmanager
def workers() -> Iterator[None]:
    """A server and two workers; they are ended."""
    command = [sys.executable, "-m", "corral", "up", "shop.py", "-p", "2", "--no-tui"]
    with subprocess.Popen(command, cwd=HERE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as up:
        assert up.stderr is not None
        for line in up.stderr:
            if "ready" in line:
                break
        try:
            yield
        finally:
            up.send_signal(2)
            up.stderr.read()


def reindex(shop: str, products: int) -> str:
    """A run of many tasks; its id."""
    return start("reindex", {"shop": shop, "products": products})


def start(topic: str, message: object) -> str:
    """A run; its id."""
    command = [sys.executable, "-m", "corral", "start", topic, json.dumps(message)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


async def until(app: Dashboard, pilot: Pilot[int], pattern: str) -> None:
    """Wait for something to be said."""
    async with asyncio.timeout(DEADLINE):
        while not re.search(pattern, app.export_screenshot(simplify=True).replace("&#160;", " ")):
            await pilot.pause(0.2)


def save(app: Dashboard, name: str) -> None:
    """What is on the screen. That making pictures holds it up is not told."""
    app._late.clear()  # noqa: SLF001
    app.tick()
    (HERE / f"{name}.svg").write_text(app.export_screenshot(title=f"corral: {name}", simplify=True), encoding="utf-8")


async def unwell(app: Dashboard, pilot: Pilot[int]) -> None:
    """What is said of a worker whose loop is blocked, and of a topic that nobody serves."""
    reindex("sofas", 30_000)
    start("price.list", {"shop": "books"})
    start("invoice.print", {"invoice": 7_012})
    await pilot.press("w")
    await until(app, pilot, "BLOCKED")
    save(app, "workers")
    await pilot.press("escape", "escape", "d")
    await until(app, pilot, "has been blocked")
    save(app, "doctor")
    await pilot.press("escape", "enter")


async def main() -> None:
    """One after the other."""
    reindex("lamps", 700)
    reindex("chairs", 3_000)
    app = Dashboard(Feed(None, None))
    try:
        async with app.run_test(size=SIZE) as pilot:
            await until(app, pilot, "✗")
            reindex("carpets", 6_000)
            big = reindex("books", 60_000)
            await until(app, pilot, big[:8])
            await until(app, pilot, r"[1-7]\d%")
            await pilot.press("g")
            save(app, "runs")
            await pilot.press("enter")
            await until(app, pilot, "a cell is")
            await until(app, pilot, r"Errors \d")
            await pilot.press("n")
            await until(app, pilot, "error")
            save(app, "tasks")
            for key, said, name in (("3", "TASKS", "errors"), ("4", "RUNNING", "share"), ("5", "KIND", "events")):
                await pilot.press(key)
                await until(app, pilot, said)
                save(app, name)
            await pilot.press("question_mark")
            await until(app, pilot, "Signs")
            save(app, "help")
            await pilot.press("escape", "1", "n", "enter", "enter")
            await until(app, pilot, "is in the queue")
            save(app, "task")
            await pilot.press("escape")
            await until(app, pilot, "a cell is")
            await pilot.press("left_square_bracket")
            await until(app, pilot, "replay")
            await pilot.press("0", *["right_square_bracket"] * 15)
            await until(app, pilot, "paused")
            save(app, "replay")
            await pilot.press("escape", "escape")
            await unwell(app, pilot)
            await pilot.press("t")
            await until(app, pilot, "theme")
            save(app, "light")
    finally:
        await asyncio.to_thread(app.source.stop)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="corral-pictures-", ignore_cleanup_errors=True) as home:
        os.environ["CORRAL_HOME"] = home
        os.environ.pop("NATS_URL", None)
        with workers():
            asyncio.run(main())
