"""`corral runs`, `show`, `errors`, `events`, `topics`, `workers`: looking, without changing anything."""

from __future__ import annotations

from typing import Annotated

import typer

from corral.cli import exits
from corral.cli.commands import command
from corral.cli.event_lines import event_fields, event_line
from corral.cli.options import Json, Limit, Namespace, RunName, Server, StatusName, Timeout
from corral.cli.output import ago, clock, note, plural, say, say_table, size, write_json, write_json_line
from corral.cli.progress import (
    RUN_HEADINGS,
    run_line,
    run_page,
    run_row,
    runs_as_they_change,
    warned_if_unserved,
)
from corral.cli.session import at_most, connected, run, thinned
from corral.client import Client, Run
from corral.errors import RunNotFound
from corral.runs import TaskError
from corral.subjects import check_topic

EVERY = 1.0
"""Seconds between two lines about the same run, for people."""


@command(
    "corral runs",
    "corral runs --status failed --limit 10",
    "corral runs --json | jq -r '.[] | select(.error > 0) | .id'",
    "corral runs --follow --json                         # a line for each change, until Ctrl-C",
)
def runs(
    *,
    status: Annotated[StatusName | None, typer.Option("--status", help="Only runs that stand so.")] = None,
    topic: Annotated[str | None, typer.Option("--topic", metavar="TOPIC", help="Only runs of this topic.")] = None,
    limit: Limit = None,
    follow: Annotated[bool, typer.Option("--follow", help="Then every change, until Ctrl-C.")] = False,
    server: Server = None,
    namespace: Namespace = None,
    json: Json = False,
) -> int:
    """List the runs, newest first.

    With --follow the newest comes last, and then every change.
    """
    topic = None if topic is None else check_topic(topic)

    async def work() -> int:
        async with connected(server, namespace) as client:
            if follow:
                await _follow_runs(client, status, topic, limit, json=json)
                return exits.DONE
            found = await client.runs(status=status, topic=topic, limit=limit)
            if json:
                write_json(found)
            elif found:
                say_table(RUN_HEADINGS, [run_row(each) for each in found])
            else:
                note(f"No such runs in namespace {client.settings.namespace!r}.")
            return exits.DONE

    return run(work())


async def _follow_runs(
    client: Client, status: StatusName | None, topic: str | None, limit: int | None, *, json: bool
) -> None:
    source = runs_as_they_change(client, limit)
    async for each in source if json else thinned(source, lambda each: each.id, EVERY):
        if status in (None, each.status) and topic in (None, each.topic):
            if json:
                write_json_line(each)
            else:
                say(f"{each.id}  {each.topic}  {run_line(each)}")


@command(
    "corral show last",
    "corral show 7f3k --json | jq .topics",
    "corral show last --follow --timeout 600             # exit 0, 1 (errors), 5 (interrupted), 6 (timeout)",
)
def show(
    name: RunName,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", help="Until the run has ended: exit 0 success, 1 errors, 5 interrupted.")
    ] = False,
    timeout: Timeout = None,
    server: Server = None,
    namespace: Namespace = None,
    json: Json = False,
) -> int:
    """Show how a run stands, by topic."""
    _check_timeout(timeout, follow=follow)

    async def work() -> int:
        async with connected(server, namespace) as client:
            found = await client.find(name)
            if follow:
                return await _follow(client, found, timeout, json=json)
            status = await found.status()
            if json:
                write_json(status)
            else:
                say("\n".join(run_page(status)))
            return exits.DONE

    return run(work())


async def _follow(client: Client, found: Run, timeout: float | None, *, json: bool) -> int:
    last = await found.status()
    source = found.watch()
    async with (
        at_most(timeout, lambda: f"run {found.id} has not ended"),
        warned_if_unserved(client, last.topic),
    ):
        async for last in source if json else thinned(source, lambda each: each.id, EVERY):
            if json:
                write_json_line(last)
            else:
                say(run_line(last))
    if not last.ended:
        raise RunNotFound(found.id)  # its record expired meanwhile
    if not json:
        say("\n" + "\n".join(run_page(last)))
    return exits.code_of(last)


@command(
    "corral errors last",
    "corral errors last --json | jq -r '.[].fingerprint' | sort | uniq -c",
)
def errors(
    name: RunName,
    *,
    limit: Limit = None,
    server: Server = None,
    namespace: Namespace = None,
    json: Json = False,
) -> int:
    """Show why tasks of a run failed.

    For each task that ended as error: the message, the traceback, and the body that it had.
    """

    async def work() -> int:
        async with connected(server, namespace) as client:
            found = await client.find(name)
            listed = [error async for error in client.errors(found.id)]
            shown = listed[:limit]
            if json:
                write_json(shown)
                return exits.DONE
            for error in shown:
                say(_error_text(error))
            left = len(listed) - len(shown)
            note(f"{plural(len(listed), 'error')} in run {found.id}{f', {left:,} of them not shown' if left else ''}.")
            return exits.DONE

    return run(work())


def _error_text(error: TaskError) -> str:
    body = bytes(error.body).decode(errors="replace")
    lines = [
        f"{error.topic} {error.task}  {error.type}: {error.message}",
        f"  attempt {error.attempt}, worker {error.worker}, {clock(error.at)}",
        f"  body {body if len(body) <= 500 else body[:499] + '…'}",
        *(f"  {line}" for line in error.traceback.rstrip().splitlines()),
    ]
    return "\n".join(lines) + "\n"


@command(
    "corral events last",
    "corral events last --follow --json                  # a line for each, until the run has ended",
    """corral events last --json | jq '.[] | select(.type == "retrying")'""",
)
def events(
    name: RunName,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", help="Then those to come, until the run has ended: exit 0, 1 or 5.")
    ] = False,
    timeout: Timeout = None,
    server: Server = None,
    namespace: Namespace = None,
    json: Json = False,
) -> int:
    """Show the events that a run is counted from."""
    _check_timeout(timeout, follow=follow)

    async def work() -> int:
        async with connected(server, namespace) as client:
            found = await client.find(name)
            if follow:
                return await _follow_events(client, found, timeout, json=json)
            listed = [stored async for stored in client.events(found.id)]
            if json:
                write_json([event_fields(stored) for stored in listed])
            else:
                for stored in listed:
                    say(event_line(stored))
            return exits.DONE

    return run(work())


async def _follow_events(client: Client, found: Run, timeout: float | None, *, json: bool) -> int:
    async with at_most(timeout, lambda: f"run {found.id} has not ended"):
        async for stored in client.events(found.id, follow=True):
            if json:
                write_json_line(event_fields(stored))
            else:
                say(event_line(stored))
        return exits.code_of(await found.wait())


@command("corral topics", "corral topics --json | jq -r '.[] | select(.workers == 0 and .pending > 0) | .topic'")
def topics(server: Server = None, namespace: Namespace = None, json: Json = False) -> int:
    """List the topics, and who serves them.

    Messages that wait, tasks that run, and how many workers there are for them.
    """

    async def work() -> int:
        async with connected(server, namespace) as client:
            found = await client.topics()
            if json:
                write_json(found)
            elif found:
                rows = [(each.topic, each.pending, each.running, each.workers) for each in found]
                say_table(("TOPIC", "PENDING", "RUNNING", "WORKERS"), rows)
            else:
                note(f"No topics in namespace {client.settings.namespace!r}: nothing waits, and no pool has been here.")
            for each in found:
                if not each.workers and each.pending and not json:
                    note(f"Nobody serves {each.topic!r}: what waits there stays.")
            return exits.DONE

    return run(work())


@command("corral workers", "corral workers --json | jq length")
def workers(server: Server = None, namespace: Namespace = None, json: Json = False) -> int:
    """List the worker processes that are alive."""

    async def work() -> int:
        async with connected(server, namespace) as client:
            found = await client.workers()
            if json:
                write_json(found)
            elif found:
                headings = (
                    "WORKER",
                    "POOL",
                    "HOST",
                    "PID",
                    "RUNNING",
                    "SLOTS",
                    "LONGEST",
                    "MEMORY",
                    "UP",
                    "VERSION",
                    "TOPICS",
                )
                rows = [
                    (
                        each.id,
                        each.pool,
                        each.host,
                        str(each.pid),
                        each.running,
                        each.slots,
                        ago(each.longest[0].since) if each.longest else "",
                        size(each.rss),
                        ago(each.started_at),
                        each.version,
                        ", ".join(each.topics),
                    )
                    for each in found
                ]
                say_table(headings, rows)
                if waiting := sum(each.waiting for each in found):
                    note(f"The queue is full: {waiting} tasks that send wait for room.")
                for how, by in sorted({(each.leaves, each.leaves_by) for each in found if each.leaves}):
                    told = ", ".join(each.id for each in found if (each.leaves, each.leaves_by) == (how, by))
                    note(f"Told to {how} by {by or 'the end of its pool'}, and taking nothing new: {told}.")
            else:
                note(f"No workers in namespace {client.settings.namespace!r}: `corral pool APP` starts some.")
            return exits.DONE

    return run(work())


def _check_timeout(timeout: float | None, *, follow: bool) -> None:
    if timeout is not None and not follow:
        raise typer.BadParameter("it goes with --follow", param_hint="--timeout")
