"""`corral interrupt` and `corral retry`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

import typer

from corral.cli import exits
from corral.cli.commands import command
from corral.cli.exits import Wrong
from corral.cli.options import Json, KillAfter, Namespace, RunName, Server, Timeout
from corral.cli.output import duration, note, plural, refusal, say, write_json
from corral.cli.progress import warned_if_unserved
from corral.cli.session import at_most, connected, in_doubt, run
from corral.cli.waiting import wait_for_end
from corral.client import Client, Run
from corral.errors import DuplicateRun, EventsExpired
from corral.events import Receipt
from corral.subjects import check_key

_PATIENCE = 3.0
"""Seconds after which it is said what an interrupt waits for."""


@command(
    "corral interrupt last --wait                        # returns when everything has stopped, with the receipt",
    "corral interrupt last --wait --kill-after 10        # threads that do not stop by then go with their worker",
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
    kill_after: KillAfter = None,
    timeout: Timeout = None,
    server: Server = None,
    namespace: Namespace = None,
    json: Json = False,
) -> int:
    """Stop runs: the queued part and the running part.

    What is queued is removed, what is running is cancelled. A run that has ended already is left as it is, and that
    is no error. The receipt says how many tasks were removed from the queue, were stopped while they ran, were killed
    with their process, or had finished first.

    A thread cannot be cancelled: a plain function goes on until it looks at its context, or returns. With --kill-after
    its worker process is replaced then; what else that one was doing is done by others.
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
                _told_what_runs(targets if kill_after is None else []),
            ):
                done = await asyncio.gather(
                    *(_interrupt(client, each, reason, wait=wait, kill_after=kill_after) for each in targets)
                )
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


@asynccontextmanager
async def _told_what_runs(targets: Sequence[Run]) -> AsyncIterator[None]:
    """Say it, once, if what is inside waits for tasks that do not stop."""
    watching = asyncio.create_task(_tell_what_runs(targets))
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait({watching})


async def _tell_what_runs(targets: Sequence[Run]) -> None:
    await asyncio.sleep(_PATIENCE)
    for target in targets:
        status = await target.status()
        if not status.ended and (running := status.running or int(status.root == "running")):
            note(f"{plural(running, 'task')} of run {target.id} still {'runs' if running == 1 else 'run'}.")
            note("What is executed in a thread stops only by itself, or with its worker: --kill-after S replaces that.")


async def _interrupt(
    client: Client, target: Run, reason: str | None, *, wait: bool, kill_after: float | None
) -> dict[str, Any]:
    before = await target.status()
    if before.ended:
        note(f"Run {target.id} has ended already: {before.status}.")
    receipt = await client.interrupt(target.id, reason=reason, wait=wait, kill_after=kill_after)
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


@command(
    "corral retry last                                   # what failed or was interrupted; the rest stays done",
    "corral retry 7f3k --wait --timeout 600              # exit 0, 1 (errors), 5 (interrupted), 6 (timeout)",
    "corral retry last --task 41-7 --task 41-9           # only these; `corral errors` has their names",
    """corral errors last --json | jq -r '.[] | select(.type == "OSError").task' | corral retry last --task -""",
    "corral retry last --topic invoice.print",
    "corral retry last --json | jq .brought_back",
)
def retry(
    name: RunName,
    *,
    tasks: Annotated[
        list[str] | None,
        typer.Option("--task", metavar="TASK", help="Only this task, or several; '-' reads them from standard input."),
    ] = None,
    topics: Annotated[
        list[str] | None, typer.Option("--topic", metavar="TOPIC", help="Only tasks of this topic, or of several.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Until the run has ended again: exit 0 success, 1 errors, 5 interrupted.")
    ] = False,
    timeout: Timeout = None,
    server: Server = None,
    namespace: Namespace = None,
    json: Json = False,
) -> int:
    """Bring back what ended as error or was interrupted, in the same run.

    What has succeeded stays done. Errors come back with the message that they had; what an interrupt removed is sent
    again by the tasks that had sent it, which must send the same as before. A run with a unique key needs that key:
    exit 3 if another run holds it now.

    With --task and --topic only these tasks are brought back, as far as they have not succeeded, and who has to send
    some of them again. The rest stays as it ended.
    """
    if timeout is not None and not wait:
        raise typer.BadParameter("it goes with --wait", param_hint="--timeout")
    selected = _tasks(tasks) if tasks else None

    async def work() -> int:
        async with connected(server, namespace) as client:
            found = await client.find(name)
            brought_back = await _retry(found, selected, topics or None, json=json)
            if not json:
                say(f"{found.id}: {_brought_back_text(brought_back, limited=bool(tasks or topics))}")
            elif not wait:
                status = (await found.status()).status
                write_json({"run": found.id, "brought_back": brought_back, "status": status})
            return await wait_for_end(client, found, timeout, json=json) if wait else exits.DONE

    return run(work())


def _tasks(given: list[str]) -> list[str]:
    """The tasks themselves, those on standard input among them."""
    if "-" not in given:
        return given
    try:
        read = sys.stdin.read()
    except (OSError, ValueError) as error:
        raise Wrong(f"standard input cannot be read: {error}") from None
    return [*(task for task in given if task != "-"), *read.split()]


async def _retry(target: Run, tasks: list[str] | None, topics: list[str] | None, *, json: bool) -> int:
    look = f"`corral show {target.id}` says how it stands; the same command again does no harm."
    try:
        with in_doubt(f"the retry of run {target.id}", look):
            return await target.retry(tasks=tasks, topics=topics)
    except DuplicateRun as held:
        if json:
            write_json(refusal(held))
        raise
    except EventsExpired as error:
        error.add_note("So it is not known what to bring back: `corral start` starts a new run.")
        raise


def _brought_back_text(count: int, *, limited: bool) -> str:
    if count:
        return f"{plural(count, 'task')} brought back"
    return f"nothing to bring back, {'what was selected' if limited else 'everything'} has succeeded"
