"""The types of the public API: what is right passes, and a wrong message, field or target does not."""

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
EXPECTED = re.compile(r"# refused: ([a-z-]+)")


def mypy(file: Path, cache: Path) -> set[tuple[int, str]]:
    """(line, code) of every error in a file."""
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "mypy",
        "--config-file",
        ROOT / "pyproject.toml",
        "--cache-dir",
        cache,
        file,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return {(int(line), code) for line, code in re.findall(rf"{file.name}:(\d+): error: .*\[([a-z-]+)\]", done.stdout)}


def test_what_is_right_passes(tmp_path: Path) -> None:
    assert mypy(HERE / "right.py", tmp_path) == set()


def test_every_mistake_is_refused_and_nothing_else(tmp_path: Path) -> None:
    lines = enumerate((HERE / "wrong.py").read_text().splitlines(), 1)
    expected = {(number, mark[1]) for number, line in lines if (mark := EXPECTED.search(line))}
    found = mypy(HERE / "wrong.py", tmp_path)
    assert {line for line, _ in found} == {line for line, _ in expected}
    assert expected <= found  # what follows from a mistake on the same line may be said too
