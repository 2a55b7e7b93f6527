"""`corral interrupt`."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from corral.cli import exits
from corral.cli.commands import command
from corral.cli.options import Json, Namespace, Server, Timeout
from corral.cli.output import duration, note, say, write_json
from corral.cli.progress import warned_if_unserved
from corral.cli.session import at_most, connected, run
from corral.client import Client, Run
from corral.events import Receipt
from corral.subjects import check_key


@command(
    "corral interrupt last --wait                        # returns when everything has stopped, with the receipt",
    'corral interrupt 7f3k 9qxm --reason "wrong input"',
    "corral interrupt --unique Product/7 --wait --json",
)
def interrupt(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN...", show_default=False, help="Ids, their first characters, or 'last'."),
    ] = None,
    *,
    unique: Annotated[
        str | None, typer.Option("--unique", metavar="KEY", help="The run that holds this key, if one does.")
    ] = None,
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="TEXT", help="Stored with the order, for others to read.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until everything has stopped; then print the receipt.")] = False,
    timeout: Timeout = None,
    server: Server = None,
    namespace: Namespace = None,
    json: Json = False,
) -> int:
    """Stop runs: the queued part and the running part.

    What is queued is removed, what is running is cancelled. A run that has ended already is left as it is, and that
    is no error. The receipt says how many tasks were removed from the queue, were stopped while they ran, were killed
    with their process, or had finished first.
    """
    if not names and unique is None:
        raise typer.BadParameter("which one? Give a run or --unique KEY", param_hint="RUN")
    if timeout is not None and not wait:
        raise typer.BadParameter("it goes with --wait", param_hint="--timeout")
    key = None if unique is None else check_key(unique)

    async def work() -> int:
        async with connected(server, namespace) as client:
            targets = await _targets(client, names or [], key)
            async with (
                at_most(timeout, lambda: f"not everything has stopped in {_listed(targets)}. The order stands"),
                warned_if_unserved(client),
            ):
                done = await asyncio.gather(*(_interrupt(client, each, reason, wait=wait) for each in targets))
            if json:
                # A list only where one was asked for.
                write_json(done if len(names or []) + (key is not None) > 1 else next(iter(done), None))
            elif wait:
                for receipt in done:
                    say(_receipt_line(receipt))
            return exits.DONE

    return run(work())


async def _targets(client: Client, names: list[str], key: str | None) -> list[Run]:
    """All of them, each once, before the first is stopped: what one name has wrong stops none."""
    found = {each.id: each for each in [await client.find(name) for name in names]}
    if key is not None:
        holder = await client.holder(key)
        if holder is None:
            note(f"No run holds the key {key!r}: nothing to stop.")
        else:
            found[holder] = client.run(holder)
    return list(found.values())


async def _interrupt(client: Client, target: Run, reason: str | None, *, wait: bool) -> dict[str, Any]:
    before = await target.status()
    if before.ended:
        note(f"Run {target.id} has ended already: {before.status}.")
    receipt = await client.interrupt(target.id, reason=reason, wait=wait)
    if wait:
        return _receipt_fields(target.id, receipt or Receipt())
    if not before.ended:
        note(f"Run {target.id} is ordered to stop.")
    return {"run": target.id, "ordered": not before.ended, "status": (await target.status()).status}


def _receipt_fields(run_id: str, receipt: Receipt) -> dict[str, Any]:
    return {
        "run": run_id,
        "removed": receipt.removed,
        "stopped": receipt.stopped,
        "killed": receipt.killed,
        "finished_first": receipt.finished_first,
        "seconds": round(receipt.seconds, 3),
    }


def _receipt_line(receipt: dict[str, Any]) -> str:
    return (
        f"{receipt['run']}: {receipt['removed']:,} removed from the queue, {receipt['stopped']:,} stopped, "
        f"{receipt['killed']:,} killed, {receipt['finished_first']:,} had finished first; "
        f"took {duration(receipt['seconds'])}"
    )


def _listed(targets: list[Run]) -> str:
    return ", ".join(each.id for each in targets) or "no run"
