"""The program as it is installed, before anything of it is imported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_what_is_installed_is_the_program_that_can_be_interrupted_while_it_imports() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["scripts"] == {"corral": "corral_command:main"}
    assert "corral_command.py" in project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"].values()


def test_ctrl_c_during_the_imports_ends_it_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "msgspec.py").write_text("import sys\nsys.stdout.write('importing\\n'), sys.stdout.flush()\ninput()\n")
    paths = [str(tmp_path), str(ROOT / "workers"), *filter(None, [os.environ.get("PYTHONPATH")])]
    program = subprocess.Popen(
        [sys.executable, "-c", "import sys; from corral_command import main; sys.exit(main())"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        start_new_session=True,
    )
    with program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"importing\n"
        program.send_signal(signal.SIGINT)
        _, said = program.communicate(timeout=60)
    assert (program.returncode, said) == (-signal.SIGINT, b"")


def test_it_runs_the_command_and_gives_its_exit_code() -> None:
    program = "import sys; sys.argv = ['corral', *sys.argv[1:]]; from corral_command import main; sys.exit(main())"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "workers"), os.environ.get("PYTHONPATH", "")]),
    }
    known, unknown = (
        subprocess.run([sys.executable, "-c", program, name], env=environment, capture_output=True, check=False)
        for name in ("--version", "nonsense")
    )
    assert (known.returncode, known.stdout[:7]) == (0, b"corral ")
    assert unknown.returncode == 2
