"""The command line: `corral COMMAND`. One file for each group of commands.

    demo.py   demo              look.py    runs show errors events topics workers
    serve.py  up server pool    act.py     interrupt retry
    tui.py    tui               dismiss.py drain stop
    start.py  start             prove.py   verify env
    doctor.py doctor            secure.py  bookkeeper

`failures.py` is the edge around each of them: errors become exit codes (exits.py) and sentences there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Annotated

import typer

from corral import __version__
from corral.cli import exits
from corral.cli.failures import guarded, outcome, prepare
from corral.cli.login import with_login
from corral.cli.output import CannotWrite, say

__all__ = ["main"]

_COMMANDS = {
    "demo": "demo",
    "up": "serve",
    "server": "serve",
    "pool": "serve",
    "bookkeeper": "secure",
    "tui": "tui",
    "start": "start",
    "runs": "look",
    "show": "look",
    "errors": "look",
    "events": "look",
    "topics": "look",
    "workers": "look",
    "interrupt": "act",
    "retry": "act",
    "drain": "dismiss",
    "stop": "dismiss",
    "verify": "prove",
    "doctor": "doctor",
    "env": "prove",
}
"""The file of each command, in the order of the help."""


def _program(commands: Iterable[str]) -> typer.Typer:
    """`corral` with these commands."""
    program = typer.Typer(
        name="corral",
        help="Many message processors in parallel on NATS JetStream, counted exactly.\n\n"
        "Options stand after the command: `corral runs --json`. `corral COMMAND --help` has examples.",
        epilog="\b\nFirst steps:\n"
        "  corral demo                                         watch workers go through thousands of files\n"
        "  corral up processors.py                             server, workers and dashboard for processors of yours\n"
        "  corral start newsletter '{\"number\": 7}'             start a run\n"
        "  corral show last --follow                           see how it goes\n"
        "  corral interrupt last                               stop it\n"
        "  corral retry last                                   bring back what failed or was interrupted",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    )
    program.callback()(_options)
    for name in commands:
        command = getattr(import_module(f"corral.cli.{_COMMANDS[name]}"), name)
        program.command(epilog=command.epilog, no_args_is_help=False)(guarded(with_login(command.function)))
    return program


def _show_version(asked: bool) -> None:
    if asked:
        say(f"corral {__version__}")
        raise typer.Exit


def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main() -> int:
    """Run the command that the process was called with; its exit code."""
    prepare()
    return outcome(_call)


def _call() -> int:
    # Making all commands takes as long as many a command itself: the one that is named will do.
    named = [name for name in sys.argv[1:2] if name in _COMMANDS]
    try:
        _program(named or _COMMANDS)(prog_name="corral")
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):
            raise end.__context__ from None  # typer says 1 of it
        return end.code if isinstance(end.code, int) else exits.DONE
    except OSError as error:  # commands keep theirs to themselves: it is of the help, which typer writes
        raise CannotWrite(error.strerror or str(error)) from None
    return exits.DONE
