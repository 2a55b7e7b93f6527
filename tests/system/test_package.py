"""What a wheel holds, and what an editable install falls back to."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from corral.server import config_file

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built and laid out as an installation would."""
    built = tmp_path_factory.mktemp("built")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(built)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    target = tmp_path_factory.mktemp("unpacked")
    zipfile.ZipFile(next(built.glob("*.whl"))).extractall(target)
    return target


def test_an_editable_install_uses_the_configuration_at_the_top() -> None:
    assert config_file() == ROOT / "nats.conf"


def test_a_wheel_brings_its_own_configuration(unpacked: Path) -> None:
    program = "from corral.server import config_file; print(config_file(), end='')"
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    shown = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=unpacked, check=True, capture_output=True, text=True
    ).stdout
    assert Path(shown) == unpacked / "corral" / "nats.conf"
    assert Path(shown).read_bytes() == (ROOT / "nats.conf").read_bytes()


def test_a_wheel_holds_the_two_packages_the_program_and_nothing_else(unpacked: Path) -> None:
    assert {path.name for path in unpacked.iterdir() if not path.name.endswith(".dist-info")} == {
        "corral",
        "corral_command.py",
        "corral_tui",
    }
    assert (unpacked / "corral" / "py.typed").exists()
    assert (unpacked / "corral_tui" / "py.typed").exists()
