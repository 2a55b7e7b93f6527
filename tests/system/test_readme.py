"""What the README and the example tell a reader to type works as they say."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
from pathlib import Path

from tests.system.commands import Corral

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def commands(text: str) -> list[list[str]]:
    """The `corral` commands in a text, without the comments behind them."""
    lines = re.findall(r"^ *(?:\$ )?corral (.*)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def test_the_first_processors_of_the_readme_run_as_it_says(tmp_path: Path) -> None:
    program = re.search(r"```python\n(import asyncio.*?)```", README, re.DOTALL)
    assert program
    (tmp_path / "newsletter.py").write_text(program[1])
    corral = Corral(tmp_path)
    (up,) = [words for words in commands(README) if words[:2] == ["up", "newsletter.py"]]
    (start,) = [words for words in commands(README) if words[0] == "start"]
    then = ("runs", "show", "errors", "workers", "interrupt", "retry")
    looks = [words for words in commands(README) if words[0] in then]
    assert len(looks) == 7
    with corral.running(*up, "-p", "1") as running:
        running.wait_for("workers are ready", on="err")
        assert corral(*start).code == 1  # one of the two readers has no address
        shown = corral("show", "last", "--json").json
        assert (shown["status"], shown["success"], shown["error"]) == ("failed", 1, 1)
        for words in looks:
            # One of the two readers has no address, and has none when it is retried either.
            assert corral(*words).code == (1 if "--follow" in words or words[0] == "retry" else 0), words
        running.signal(signal.SIGTERM)
        assert running.done().code == 0


def test_the_example_runs_as_its_docstring_says(tmp_path: Path) -> None:
    (tmp_path / "examples").mkdir()
    shutil.copy(ROOT / "examples" / "entities.py", tmp_path / "examples")
    corral = Corral(tmp_path)
    up, start, show = commands((ROOT / "examples" / "entities.py").read_text())
    with corral.running(*up, "-p", "1") as running:
        running.wait_for("workers are ready", on="err")
        assert corral(*start).code == 1  # one id is negative
        counts = corral(*show, "--json").json
        assert (counts["total"], counts["success"], counts["error"]) == (12, 11, 1)
        assert set(counts["topics"]) == {"entity.index", "entity.notify"}
        running.signal(signal.SIGTERM)
        assert running.done().code == 0
