"""`corral tui`."""

from __future__ import annotations

import asyncio
import sys
from importlib.util import find_spec
from typing import Annotated, Protocol

import typer

from corral.cli.commands import command
from corral.cli.exits import Wrong
from corral.cli.options import Namespace, Server
from corral.cli.output import note
from corral.cli.session import connected, find_server
from corral.settings import Settings


@command(
    "corral tui",
    "corral tui --run last",
    "corral tui --read-only                              # for a screen on the wall",
)
def tui(
    read_only: Annotated[bool, typer.Option("--read-only", help="Keys that change something do nothing.")] = False,
    run_name: Annotated[
        str | None, typer.Option("--run", metavar="RUN", help="Open this run: an id, its first characters, or 'last'.")
    ] = None,
    server: Server = None,
    namespace: Namespace = None,
) -> int:
    """Watch and stop runs in the terminal."""
    check_terminal()
    open_dashboard = dashboard()

    async def look() -> tuple[Settings, str | None]:
        async with connected(server, namespace) as client:
            return client.settings, (await client.find(run_name)).id if run_name else None

    # Before the screen is taken: what goes wrong here is said in a line.
    settings, run_id = asyncio.run(look())
    return open_dashboard(url=find_server(server).url, namespace=settings.namespace, read_only=read_only, run_id=run_id)


class Dashboard(Protocol):
    """Takes the terminal until the user leaves; the exit code."""

    def __call__(self, *, url: str, namespace: str, read_only: bool = False, run_id: str | None = None) -> int:
        """See `run_dashboard`."""


def dashboard() -> Dashboard:
    """The function that runs the dashboard; Wrong if it is not installed."""
    if not all(map(find_spec, ("textual", "corral_tui"))):
        raise Wrong("the dashboard is not installed: `pip install 'corral[tui]'` brings it")
    from corral_tui import run_dashboard

    return run_dashboard


def dashboard_if_possible() -> Dashboard | None:
    """The dashboard; None where it has no terminal to be in, or is not installed."""
    if not is_terminal():
        return None
    try:
        return dashboard()
    except Wrong as reason:
        note(f"Lines of progress instead: {reason}.")
        return None


def is_terminal() -> bool:
    """Whether a person sits there."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def check_terminal() -> None:
    """Wrong if the dashboard has no terminal to be in."""
    if not is_terminal():
        raise Wrong("the dashboard needs a terminal; `corral runs --follow` says the same in lines")
