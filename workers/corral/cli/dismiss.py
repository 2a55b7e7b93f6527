"""`corral drain` and `corral stop`: telling workers and pools to leave."""

from __future__ import annotations

from typing import Annotated

import typer

from corral.cli import exits
from corral.cli.commands import command
from corral.cli.options import Json, Namespace, Server, Timeout
from corral.cli.output import duration, plural, say, write_json
from corral.cli.session import at_most, connected, run
from corral.leaving import Departure, How

Names = Annotated[
    list[str], typer.Argument(metavar="NAME...", help="Workers or pools: ids, or their first characters.")
]
Wait = Annotated[bool, typer.Option("--wait", help="Until they are gone.")]


@command(
    "corral drain 3fa9c1-2                               # one worker; its pool goes on without it",
    "corral drain 3fa9c1 --wait                          # a pool, all of it",
    "corral drain 3fa9c1 7be042 --wait --timeout 600     # exit 6 if some are still there then",
)
def drain(
    names: Names,
    *,
    wait: Wait = False,
    timeout: Timeout = None,
    server: Server = None,
    namespace: Namespace = None,
    json: Json = False,
) -> int:
    """Let workers take nothing new, finish what they are at, and leave.

    What has not ended when their pool's --drain-timeout is over is handed back, and done by others; no attempt is
    spent. Nobody takes the place of a worker that was told to leave, and a pool ends with its last one.
    """
    return _dismiss("drain", names, wait=wait, timeout=timeout, server=server, namespace=namespace, json=json)


@command(
    "corral stop 3fa9c1-2                                # hands back what it executes, at once",
    "corral stop 3fa9c1 --wait                           # a pool, all of it",
)
def stop(
    names: Names,
    *,
    wait: Wait = False,
    timeout: Timeout = None,
    server: Server = None,
    namespace: Namespace = None,
    json: Json = False,
) -> int:
    """Let workers hand back what they execute, at once, and leave.

    It is done by others, and no attempt is spent. A worker that does not hear of it, because something blocks its
    loop, is killed by its pool. Nobody takes the place of a worker that was told to leave, and a pool ends with its
    last one. What stops runs is `corral interrupt`.
    """
    return _dismiss("stop", names, wait=wait, timeout=timeout, server=server, namespace=namespace, json=json)


def _dismiss(
    how: How,
    names: list[str],
    *,
    wait: bool,
    timeout: float | None,
    server: str | None,
    namespace: str | None,
    json: bool,
) -> int:
    if timeout is not None and not wait:
        raise typer.BadParameter("it goes with --wait", param_hint="--timeout")

    async def work() -> int:
        async with connected(server, namespace) as client:
            async with at_most(timeout, lambda: "not all of them are gone. The order stands"):
                told = await (client.drain if how == "drain" else client.stop)(*names, wait=wait)
            if json:
                write_json(told)
            else:
                for each in told:
                    say(_line(how, each))
            return exits.DONE

    return run(work())


def _line(how: How, told: Departure) -> str:
    stands = "gone" if told.gone else "drains" if how == "drain" else "stops"
    return (
        f"{told.id} on {told.host}: {stands}; it was told while it executed {plural(told.running, 'task')},"
        f" and confirmed it after {duration(told.confirmed)}"
    )
