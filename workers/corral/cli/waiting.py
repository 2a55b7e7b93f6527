"""Waiting for the end of a run: what is shown meanwhile, and what the end is as an exit code."""

from __future__ import annotations

import asyncio

from corral.cli import exits
from corral.cli.output import note, write_json
from corral.cli.progress import LiveLine, run_line, warned_if_unserved
from corral.cli.session import at_most
from corral.client import Client, Run
from corral.errors import Unconfirmed
from corral.runs import RunStatus


async def wait_for_end(client: Client, run: Run, timeout: float | None, *, json: bool) -> int:
    """Wait until the run has ended, and return how; with `json` its last status is written.

    Raises:
        TimedOut: `timeout` seconds have passed; the run goes on.
        Unconfirmed: the record expired while it was watched.
    """
    last: RunStatus | None = None
    line = LiveLine()
    try:
        async with (
            at_most(timeout, lambda: f"run {run.id} has not ended"),
            warned_if_unserved(client, (await run.status()).topic),
        ):
            async for last in run.watch():
                line.show(run_line(last))
    except asyncio.CancelledError:
        line.clear()
        note(f"Run {run.id} goes on: `corral interrupt {run.id}` stops it.")
        raise
    finally:
        line.clear()
        if json and last is not None:
            write_json(last)
    if last is None or not last.ended:
        raise Unconfirmed(f"the end of run {run.id}: its record is gone")
    note(f"Run {last.id} {run_line(last)}.")
    return exits.code_of(last)
