"""`corral demo`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from corral.cli import exits
from corral.cli.commands import command
from corral.cli.exits import Wrong
from corral.cli.hosting import PoolProcess, ends_when_told, pool_beside, some_server
from corral.cli.options import Json, Namespace, NoTui
from corral.cli.output import note, plural, say, write_json
from corral.cli.progress import run_line, run_page
from corral.cli.serve import EVERY, show_beside
from corral.cli.session import connected, thinned
from corral.cli.tui import dashboard_if_possible
from corral.client import Client
from corral.demo import Folders, folders, list_folders, walk
from corral.runs import RunStatus
from corral.settings import Settings

_SHOWN = 5
"""Errors in the summary."""


@command(
    "corral demo                                         # the files of this Python",
    "corral demo ~/projects ~/Documents",
    "corral demo --json > result.json                    # without the dashboard; the run as JSON when it has ended",
)
def demo(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH...", show_default=False, help="Files and folders. Default: those of this Python."),
    ] = None,
    *,
    no_tui: NoTui = False,
    namespace: Namespace = None,
    json: Json = False,
) -> int:
    """Watch workers go through thousands of real files.

    Every file is hashed and parsed by workers on an embedded server, and those that are not what their names say fail.
    Nothing is changed. Without a terminal, or with --no-tui or --json, it ends with the run.
    """
    message = _checked(paths or [])
    settings = Settings.from_env(namespace=namespace)
    show = None if no_tui or json else dashboard_if_possible()
    with (
        ends_when_told(),
        some_server(elsewhere=False) as url,
        pool_beside("corral.demo", url, settings, workers=None, slots=100) as beside,
    ):
        if show is None:
            return asyncio.run(_tell(url, settings, message, beside, json=json))
        run_id = asyncio.run(_start(url, settings, message))
        return show_beside(show, url, settings, beside, run_id)
    return exits.DONE


def _checked(paths: list[Path]) -> Folders:
    """The demo's message; Wrong if there is nothing to work on."""
    for path in paths:
        if not path.exists():
            raise Wrong(f"there is no {str(path)!r}")
    message = folders(paths)
    if not any(list_folders(message)):
        raise Wrong(f"there are no files in {', '.join(message.paths)}")
    return message


async def _start(url: str, settings: Settings, message: Folders) -> str:
    async with connected(url, settings.namespace) as client:
        return (await client.start(walk, message, on_duplicate="join")).id


async def _tell(url: str, settings: Settings, message: Folders, beside: PoolProcess, *, json: bool) -> int:
    """Lines about the run until it has ended, and a summary."""
    async with connected(url, settings.namespace) as client:
        run = await client.start(walk, message, on_duplicate="join")
        following = asyncio.create_task(_follow(client, run.id))
        ended = asyncio.create_task(beside.ended())
        try:
            await asyncio.wait({following, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                beside.complain()
                return ended.result()
            await _summarize(client, following.result(), json=json)
        finally:
            for each in (following, ended):
                each.cancel()
            await asyncio.wait({following, ended})
    return exits.DONE


async def _follow(client: Client, run_id: str) -> RunStatus:
    async for last in thinned(client.run(run_id).watch(), lambda each: each.id, EVERY):
        note(f"{last.id} {run_line(last)}")
    return last


async def _summarize(client: Client, run: RunStatus, *, json: bool) -> None:
    if json:
        write_json(run)
        return
    say("\n".join(run_page(run)))
    if run.error:
        shown = [error async for error in client.errors(run.id)][:_SHOWN]
        say("")
        for error in shown:
            say(f"{error.topic}  {error.type}: {error.message}".splitlines()[0])
        left = run.error - len(shown)
        if left:
            note(f"And {plural(left, 'more error')}: `corral errors {run.id}` shows them, while a server runs.")
