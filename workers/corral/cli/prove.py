"""`corral verify` and `corral env`: proving the counts, and what commands go by."""

from __future__ import annotations

import os
import platform
import time
from typing import Annotated, Any

import msgspec
import typer

from corral.cli import exits
from corral.cli.commands import command
from corral.cli.failures import log_file
from corral.cli.options import Json, Namespace, RunName, Server
from corral.cli.output import note, say, say_table, write_json
from corral.cli.session import connected, find_server, hide_secret, run
from corral.cli.verdict import Verdict, judge
from corral.client import Client
from corral.credentials import hidden
from corral.errors import EventsExpired, NoServer
from corral.events import Interrupted
from corral.recount import recount
from corral.server import home
from corral.settings import Settings

_TRIES = 5
"""Looks at a run that moves, until one finds it still."""


@command("corral verify last", "corral verify last --json | jq .ok")
def verify(name: RunName, server: Server = None, namespace: Namespace = None, json: Json = False) -> int:
    """Count a run again, by other code, and compare.

    The counts come from the raw events; exit 1 if the record says something else. What is pending is compared with
    the messages in the queue, too.
    """

    async def work() -> int:
        async with connected(server, namespace) as client:
            found = await client.find(name)
            verdict = await _verify(client, found.id)
            if json:
                write_json(verdict.fields())
            else:
                rows = [(what, counted, recorded) for what, counted, recorded in verdict.rows()]
                say_table(("", "COUNTED", "RECORDED"), rows)
                say(f"{'ok' if verdict.ok else 'MISMATCH'}: {verdict.events:,} events, up to {verdict.seq}")
            for difference in verdict.differences:
                note(difference)
            return exits.DONE if verdict.ok else exits.FAILED

    return run(work())


async def _verify(client: Client, run_id: str) -> Verdict:
    """The verdict; of a run that moves, the one of a quiet moment, or if there is none, without the queue."""
    for _ in range(_TRIES):
        before = await client.queued(run_id)
        # The record before the events: every one that it counts is stored by then.
        record = await client.operations.record(run_id, leader=True)
        stored = [(each.seq, each.event) async for each in client.events(run_id)]
        counted = recount(record.topic, [(seq, event) for seq, event in stored if seq <= record.seq])
        now = recount(record.topic, stored)
        stopping = any(isinstance(event, Interrupted) and event.round == now.round for _, event in stored)
        after = await client.queued(run_id)
        # While tasks end, the earlier look saw more of their messages; while tasks are sent, the later one.
        queued = None if stopping and record.live else max(before, after) if record.live else after
        verdict = judge(record, counted, now, queued)
        if not verdict.lacks_messages:
            break
        # Tasks are open that have no message. If they ended between the two looks, there is an event of it.
        if [each.seq async for each in client.events(run_id)] == [seq for seq, _ in stored]:
            break
        verdict = judge(record, counted, now, None)
    if not verdict.ok and record.created_at < time.time() - client.settings.events_max_age:
        raise EventsExpired(run_id)
    return verdict


@command("corral env", "export NATS_URL=$(corral env --show-secret --json | jq -r .server)")
def env(
    show_secret: Annotated[
        bool, typer.Option("--show-secret", help="With the password, for other NATS programs.")
    ] = False,
    server: Server = None,
    namespace: Namespace = None,
    json: Json = False,
) -> int:
    """Say which server, namespace and home are used, and why.

    Nothing is connected to.
    """
    fields = _server_fields(server, show_secret=show_secret) | _other_fields(namespace)
    if json:
        write_json(fields)
        return exits.DONE
    say(f"server     {fields['server'] or 'none'}  ({fields['server_from'] or 'tried ' + ', '.join(fields['tried'])})")
    say(f"login      {_login_line(fields['login'], fields['login_from'])}")
    say(f"namespace  {fields['namespace']}  ({fields['namespace_from']})")
    say(f"home       {fields['home']}  ({fields['home_from']})")
    say(f"reports    {fields['log']}")
    say(f"version    corral {fields['version']}, Python {fields['python']}")
    return exits.DONE


def _server_fields(server: str | None, *, show_secret: bool) -> dict[str, Any]:
    try:
        located = find_server(server)
    except NoServer as none:
        nobody = {"server": None, "server_from": None, "tried": none.tried}
        return nobody | {"login": {}, "login_from": []}
    url = located.url if show_secret else hide_secret(located.url)
    login = msgspec.to_builtins(located.login.login)
    if not show_secret:
        login = {name: hidden(name, value) for name, value in login.items()}
    sources = list(located.login.sources)
    return {
        "server": url,
        "server_from": located.source,
        "tried": list(located.tried),
        "login": login,
        "login_from": sources,
    }


def _login_line(login: dict[str, str], sources: list[str]) -> str:
    said = ", ".join(f"{name} {value}" for name, value in login.items())
    return f"{said}  ({', '.join(sources)})" if said else "what the address says, if anything"


def _other_fields(namespace: str | None) -> dict[str, Any]:
    from corral import __version__

    if namespace is not None:
        why = "--namespace"
    else:
        why = "CORRAL_NAMESPACE" if os.environ.get("CORRAL_NAMESPACE") else "default"
    return {
        "namespace": Settings.from_env(namespace=namespace).namespace,
        "namespace_from": why,
        "home": str(home()),
        "home_from": "CORRAL_HOME" if os.environ.get("CORRAL_HOME") else "default",
        "log": str(log_file()),
        "version": __version__,
        "python": platform.python_version(),
    }
