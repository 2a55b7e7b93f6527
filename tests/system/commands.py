"""`corral` as others see it: a process with arguments, an environment, two outputs and an exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

CORRAL = Path(sys.executable).with_name("corral")
DEADLINE = 60.0
"""Seconds; far more than anything takes, on a machine that is busy with other tests."""


class Done(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on standard output."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """The documents on standard output, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def id(self) -> str:
        """The run id that is all of standard output."""
        (line,) = self.out.splitlines()
        return line


class Running:
    """A command that runs; its outputs are read from the beginning, so that it never waits for us."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._texts: dict[str, str] = {"out": "", "err": ""}
        self._news = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=(name, pipe), daemon=True)
            for name, pipe in (("out", process.stdout), ("err", process.stderr))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str, pipe: Any) -> None:
        for line in pipe:
            with self._news:
                self._texts[name] += line
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def wait_for(self, text: str, *, on: str = "out") -> str:
        """All that was written to an output, once it contains `text`."""
        with self._news:
            arrived = self._news.wait_for(lambda: text in self._texts[on] or not self._alive, DEADLINE)
            assert arrived, f"no {text!r} in {DEADLINE} s: {self._texts}"
            assert text in self._texts[on], f"it ended without {text!r}: {self._texts}"
            return self._texts[on]

    @property
    def _alive(self) -> bool:
        return any(reader.is_alive() for reader in self._readers)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def read_to_the_end(self) -> None:
        """Return when nobody holds its outputs any more, and all that was written is read."""
        for reader in self._readers:
            reader.join(DEADLINE)

    def done(self) -> Done:
        """What it left, once it has ended."""
        code = self.process.wait(DEADLINE)
        self.read_to_the_end()
        assert "Traceback" not in self._texts["err"], self._texts["err"]
        return Done(code, self._texts["out"], self._texts["err"])


class Corral:
    """Calls commands in a folder of their own, which is also their home."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("CORRAL_", "NATS_"))},
            "CORRAL_HOME": str(self.home),
            **(environment or {}),
        }

    def __call__(self, *arguments: str, stdin: bytes = b"", **environment: str) -> Done:
        """Run a command to its end. Whatever happens, no traceback is shown."""
        return self._run([str(CORRAL), *arguments], stdin, environment)

    def in_bash(self, script: str) -> Done:
        """Run a script, for pipes."""
        return self._run(["bash", "-c", script], b"", {})

    def _run(self, command: list[str], stdin: bytes, environment: Mapping[str, str]) -> Done:
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            cwd=self.folder,
            env={**self.environment, **environment},
            timeout=DEADLINE,
            check=False,
        )
        out, err = done.stdout.decode(), done.stderr.decode()
        assert "Traceback" not in err, err
        return Done(done.returncode, out, err)

    @contextmanager
    def running(self, *arguments: str, **environment: str) -> Iterator[Running]:
        """A command that is killed if the test does not end it."""
        process = subprocess.Popen(
            [CORRAL, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=self.environment | environment,
            # As from a shell: a signal goes to the command itself, and Ctrl-C is not ignored.
            start_new_session=True,
        )
        with process:
            running = Running(process)
            try:
                yield running
            finally:
                process.kill()
                running.read_to_the_end()
