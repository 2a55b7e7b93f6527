"""The edge of every command: whatever happens inside becomes an exit code and a sentence, never a traceback."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import platform
import sys
import tempfile
import traceback
from collections import deque
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import ParamSpec, TextIO

import typer

from corral.cli import exits
from corral.cli.output import CannotWrite, note
from corral.cli.session import hide_secret
from corral.errors import CorralError
from corral.server import home

P = ParamSpec("P")

_KEPT = 200
"""Lines of the log that are kept for a report of a failure."""


class _Recent(logging.Handler):
    """The last lines of the log: libraries log tracebacks, which are for the report and not for the terminal."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: deque[str] = deque(maxlen=_KEPT)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


_recent = _Recent()


def prepare() -> None:
    """Keep what this process would write to standard error unasked."""
    logging.basicConfig(level=logging.INFO, handlers=[_recent], force=True)
    logging.captureWarnings(capture=True)
    sys.unraisablehook = _keep_unraisable
    # Whoever started this may have closed them (`>&-`): nothing is read then, and what is written is nobody's.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115  # for as long as the process lives
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _keep_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    what = "".join(traceback.format_exception(unraisable.exc_value)) if unraisable.exc_value else ""
    _recent.lines.append(f"{unraisable.err_msg or 'ignored'}: {unraisable.object!r}\n{what}")


def guarded(command: Callable[P, int]) -> Callable[P, None]:
    """The command as typer calls it: it ends by `typer.Exit` with its exit code."""

    @functools.wraps(command)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        raise typer.Exit(outcome(lambda: command(*args, **kwargs)))

    return call


def outcome(work: Callable[[], int]) -> int:  # noqa: PLR0911  # one for each way to end
    """The exit code of `work`, which may raise anything; what there is to say about it has been said."""
    try:
        try:
            code = work()
            sys.stdout.flush()
        except BrokenPipeError:
            return _reader_gone()
        except KeyboardInterrupt:
            return exits.CTRL_C
        except CorralError as error:
            if isinstance(error, CannotWrite):
                _leave_unwritten(sys.stdout)
            return _say_error(error)
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except Exception as error:  # noqa: BLE001  # this is where the last one is told
            return _say_bug(error)
    except BrokenPipeError:
        return _reader_gone()  # of standard error
    except OSError:
        _leave_unwritten(sys.stdout, sys.stderr)  # standard error is full: there is nowhere to say it
        return exits.NO_OUTPUT
    except KeyboardInterrupt:
        return exits.CTRL_C
    return code


def _reader_gone() -> int:
    _leave_unwritten(sys.stdout, sys.stderr)
    return exits.READER_GONE


def _leave_unwritten(*streams: TextIO) -> None:
    # What is still buffered has nowhere to go; Python would complain about it on its way out.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(nowhere, stream.fileno())


def _say_error(error: CorralError) -> int:
    explained = exits.explain(error)
    if explained is None:
        return _say_bug(error)
    note(f"Error: {error}.")
    for line in [*getattr(error, "__notes__", []), *explained.advice]:
        note(line)
    return explained.code


def _say_bug(error: Exception) -> int:
    note(f"Error: Corral failed at something that it should not fail at: {_brief(error)}")
    try:
        path = _write_report(error)
    except OSError as unwritable:
        note(f"The report could not be written: {unwritable}")
    else:
        note(
            f"The report is in {path}: please send it to whoever maintains Corral. It holds no passwords of addresses."
        )
    return exits.BUG


def _brief(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def _write_report(error: Exception) -> Path:
    from corral import __version__

    lines = [
        f"--- {datetime.now().astimezone().isoformat(timespec='seconds')}",
        f"corral {__version__}, Python {platform.python_version()}, {platform.platform()}",
        " ".join(hide_secret(argument) for argument in sys.argv),
        *_recent.lines,
        *traceback.format_exception(error),
    ]
    path = _writable(log_file())
    with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write("\n".join(line.rstrip("\n") for line in lines) + "\n")
    return path


def log_file() -> Path:
    """Where reports of failures go."""
    return home() / "logs" / "corral.log"


def _writable(path: Path) -> Path:
    """The path, or where it cannot be written one among the temporary files."""
    try:
        home().mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.mkdir(exist_ok=True)
        path.open("a").close()
    except OSError:
        return Path(tempfile.gettempdir()) / f"corral-{os.getuid()}.log"
    return path
