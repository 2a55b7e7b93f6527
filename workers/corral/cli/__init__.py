"""The command line: `corral COMMAND`. One file for each group of commands.

    demo.py   demo              look.py    runs show errors events topics workers
    serve.py  up server pool    act.py     interrupt retry
    tui.py    tui               dismiss.py drain stop
    start.py  start             prove.py   verify env
    doctor.py doctor            secure.py  bookkeeper

`failures.py` is the edge around each of them: errors become exit codes (exits.py) and sentences there.
"""

from __future__ import annotations

from typing import Annotated

import typer

from corral import __version__
from corral.cli import act, demo, dismiss, doctor, exits, look, prove, secure, serve, start, tui
from corral.cli.failures import guarded, outcome, prepare
from corral.cli.login import with_login
from corral.cli.output import say

__all__ = ["main"]

_COMMANDS = (
    demo.demo,
    serve.up,
    serve.server,
    serve.pool,
    secure.bookkeeper,
    tui.tui,
    start.start,
    look.runs,
    look.show,
    look.errors,
    look.events,
    look.topics,
    look.workers,
    act.interrupt,
    act.retry,
    dismiss.drain,
    dismiss.stop,
    prove.verify,
    doctor.doctor,
    prove.env,
)

_app = typer.Typer(
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
for _command in _COMMANDS:
    _app.command(epilog=_command.epilog, no_args_is_help=False)(guarded(with_login(_command.function)))


def _show_version(asked: bool) -> None:
    if asked:
        say(f"corral {__version__}")
        raise typer.Exit


@_app.callback()
def _corral(
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
    try:
        _app(prog_name="corral")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else exits.DONE
    return exits.DONE
