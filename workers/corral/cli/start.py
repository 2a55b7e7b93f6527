"""`corral start`."""

from __future__ import annotations

from typing import Annotated

import typer

from corral.cli import exits
from corral.cli.commands import command
from corral.cli.messages import read_message
from corral.cli.options import Json, Namespace, OnDuplicateName, Server, Timeout
from corral.cli.output import refusal, say, write_json
from corral.cli.progress import warned_if_unserved
from corral.cli.session import at_most, connected, in_doubt, run
from corral.cli.waiting import wait_for_end
from corral.client import Client, Run
from corral.errors import DuplicateRun
from corral.runs import status_of
from corral.subjects import check_run_id, check_topic
from corral.system import new_run_id


@command(
    """corral start newsletter '{"number": 7, "readers": ["ada@example.org"]}'""",
    "corral start newsletter @issue.json --wait          # exit 0, 1 (errors) or 5 (interrupted)",
    "make-report | corral start report -                 # from standard input",
    "corral start import --unique nightly --on-duplicate join",
    "run=$(corral start import)                          # standard output is the run's id, only",
)
def start(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="Which processor the message is for.")],
    message: Annotated[
        str | None,
        typer.Argument(
            metavar="MESSAGE | @FILE | -", show_default=False, help="JSON; '-' is standard input. Default: null."
        ),
    ] = None,
    *,
    unique: Annotated[
        str | None,
        typer.Option("--unique", metavar="KEY", help="At most one run that has not ended holds this key."),
    ] = None,
    on_duplicate: Annotated[
        OnDuplicateName,
        typer.Option(
            "--on-duplicate",
            help="While another run holds the key: refuse (exit 3), take that run for this one, or stop it first.",
        ),
    ] = OnDuplicateName.REJECT,
    id: Annotated[
        str | None,
        typer.Option(
            "--id", metavar="ID", help="The run's id. Starting again with the same id and message starts no second run."
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Until the run has ended: exit 0 success, 1 errors, 5 interrupted.")
    ] = False,
    timeout: Timeout = None,
    server: Server = None,
    namespace: Namespace = None,
    json: Json = False,
) -> int:
    """Start a run of TOPIC, and print its id.

    The command returns when the message is safely stored. Workers need not be there yet.
    """
    replace = on_duplicate is OnDuplicateName.REPLACE
    if timeout is not None and not (wait or replace):
        raise typer.BadParameter("it goes with --wait", param_hint="--timeout")
    body = read_message(check_topic(topic), message)
    run_id = new_run_id() if id is None else check_run_id(id)

    async def work() -> int:
        async with connected(server, namespace) as client:
            try:
                async with (
                    at_most(timeout, lambda: "the run that holds the key has not ended; nothing was started"),
                    warned_if_unserved(client),
                ):
                    started = await _start(client, topic, body, unique=unique, on_duplicate=on_duplicate, run_id=run_id)
            except DuplicateRun as held:
                if json:
                    write_json(refusal(held))
                held.add_note("--on-duplicate join takes that run for this one; replace stops it, and then starts.")
                raise
            if not json:
                say(started.id)
            elif not wait:
                write_json(status_of(await client.operations.record(started.id, leader=True)))
            if not wait:
                return exits.DONE
            return await wait_for_end(client, started, timeout, json=json)

    return run(work())


async def _start(
    client: Client, topic: str, body: bytes, *, unique: str | None, on_duplicate: OnDuplicateName, run_id: str
) -> Run:
    again = f"The same command with --id {run_id} finds out, and starts no second run."
    with in_doubt(f"the start of run {run_id}", again):
        return await client.start_raw(topic, body, unique=unique, on_duplicate=on_duplicate.value, id=run_id)
