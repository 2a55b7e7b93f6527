"""The options by which a command is let in. Every command that takes --server has them.

An option stands for the variable of the same meaning, so that what the command starts is let in as well.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import Annotated, Any, ParamSpec, TypeVar

import typer

from corral.credentials import VARIABLES

P = ParamSpec("P")
R = TypeVar("R")

_Context = Annotated[
    str | None,
    typer.Option(
        "--context",
        metavar="NAME|FILE",
        help="A context of the nats command: server, login, certificates. Default: NATS_CONTEXT.",
    ),
]
_Creds = Annotated[
    str | None, typer.Option("--creds", metavar="FILE", help="A NATS credentials file. Default: NATS_CREDS.")
]
_REPLACED = {
    "--context": ("NATS_URL", "NATS_CREDS", "NATS_NKEY", "NATS_USER", "NATS_PASSWORD", "NATS_TOKEN", "NATS_CA"),
    "--creds": ("NATS_NKEY", "NATS_USER", "NATS_PASSWORD", "NATS_TOKEN"),
}
"""What of the environment an option takes the place of, besides its own variable."""


def forget_login() -> None:
    """Let the environment say nothing of it any more: the embedded server's address brings a login of its own."""
    for variable in VARIABLES.values():
        os.environ.pop(variable, None)


def with_login(command: Callable[P, R]) -> Callable[P, R]:
    """The command with --context and --creds, if it takes --server."""
    signature = inspect.signature(command, eval_str=True)
    if "server" not in signature.parameters:
        return command

    @functools.wraps(command)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        for option, variable in (("--context", "NATS_CONTEXT"), ("--creds", "NATS_CREDS")):
            value: Any = kwargs.pop(option.strip("-"), None)
            if value is not None:
                for name in _REPLACED[option]:
                    os.environ.pop(name, None)
                os.environ[variable] = str(value)
        return command(*args, **kwargs)

    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in (("context", _Context), ("creds", _Creds))
    ]
    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in signature.parameters.values()]
    call.__signature__ = signature.replace(parameters=[*parameters, *added])  # type: ignore[attr-defined]
    call.__annotations__ = {**command.__annotations__, "context": _Context, "creds": _Creds}
    return call
