"""`corral doctor`: why nothing moves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

import typer

from corral.cli import exits
from corral.cli.commands import command
from corral.cli.options import Json, Namespace, Server
from corral.cli.output import duration, note, plural, say, say_table, write_json
from corral.cli.session import find_server, run
from corral.doctor import Facts, Finding, diagnose, wrong
from corral.doctor.finding import size
from corral.errors import NoServer, PermissionDenied
from corral.operations import Operations
from corral.runs import moment
from corral.settings import Settings
from corral.subjects import check_key

_MARKS = {"wrong": "✗ wrong", "warning": "! warning", "note": "· note", "unknown": "? unknown"}


@command(
    "corral doctor",
    "corral doctor last                                  # only what concerns this run",
    "corral doctor --unique Product/7                    # who holds the key, and why it does not end",
    "corral doctor --json | jq -r '.findings[] | select(.severity == \"wrong\") | .text'",
)
def doctor(
    name: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="An id, its first characters, or 'last'. Default: all.")
    ] = None,
    *,
    unique: Annotated[
        str | None, typer.Option("--unique", metavar="KEY", help="The run that holds this unique key.")
    ] = None,
    server: Server = None,
    namespace: Namespace = None,
    json: Json = False,
) -> int:
    """Say why nothing moves, and what helps.

    Looks at server, storage, workers, topics and runs for about a second, and changes nothing. Exit 0 if nothing is
    wrong, 1 if something is; docs/operations.md explains each finding.
    """
    if name is not None and unique is not None:
        raise typer.BadParameter("either a run or a key", param_hint="--unique")
    key = None if unique is None else check_key(unique)

    async def work() -> int:
        from corral import __version__
        from corral.checkup import examine

        async with _looking(server, namespace) as operations:
            run_id = await operations.find(name) if name is not None else None
            if key is not None:
                run_id = await operations.starter.holder(key)
                if run_id is None:
                    note(f"The key {key!r} is free: no live run holds it.")
            facts = await examine(operations, version=__version__, run_id=run_id)
        findings = diagnose(facts)
        if json:
            write_json(document(facts, findings))
        else:
            _show(facts, findings)
        return exits.FAILED if wrong(findings) else exits.DONE

    return run(work())


@asynccontextmanager
async def _looking(server: str | None, namespace: str | None) -> AsyncIterator[Operations]:
    """Operations on a connection that makes and changes no stream, as a client's would."""
    from corral.jetstream.connection import Connection

    settings = Settings.from_env(namespace=namespace)
    located = find_server(server)
    try:
        connection = await Connection.open(located.access, name="corral doctor")
    except (NoServer, PermissionDenied) as error:
        error.add_note(f"That address is from {located.source}.")
        raise
    operations = Operations(connection, settings, by="doctor")
    try:
        yield operations
    finally:
        await operations.close()
        await connection.close()


def document(facts: Facts, findings: Sequence[Finding]) -> dict[str, Any]:
    """The diagnosis for programs."""
    keeper = facts.bookkeeper
    workers = facts.workers
    return {
        "ok": not wrong(list(findings)),
        "server": facts.server,
        "namespace": facts.namespace,
        "run": facts.run,
        "at": moment(facts.at),
        "findings": list(findings),
        "storage": [
            {
                "stream": stream.name,
                "bytes": stream.bytes,
                "limit": stream.limit if stream.limit > 0 else None,
                "messages": stream.messages,
            }
            for stream in facts.streams
        ],
        "workers": None if workers is None else len(workers),
        "pools": None if workers is None else len({worker.beat.pool for worker in workers}),
        "bookkeeper": None
        if keeper is None
        else {"pool": keeper.pool, "answers": keeper.answers, "seconds": round(keeper.seconds, 4)},
        "clock": {"server_ahead": None if facts.server_ahead is None else round(facts.server_ahead, 3)},
    }


def _show(facts: Facts, findings: Sequence[Finding]) -> None:
    for finding in findings:
        say(f"{_MARKS[finding.severity]:<10} {finding.text}")
        if finding.help:
            say(f"{'':<10}   {finding.help}")
    if findings:
        say("")
    rows = [
        (
            stream.name,
            size(stream.bytes),
            size(stream.limit) if stream.limit > 0 else "none",
            f"{stream.share:.1%}" if stream.limit > 0 else "",
            stream.messages,
        )
        for stream in facts.streams
    ]
    if rows:
        say_table(("STREAM", "USED", "LIMIT", "", "MESSAGES"), rows)
    for line in _vitals(facts):
        say(line)
    bad = sum(finding.severity == "wrong" for finding in findings)
    warnings = sum(finding.severity == "warning" for finding in findings)
    said = f"{plural(bad, 'thing')} wrong" if bad else "Nothing is wrong"
    said += f", {plural(warnings, 'warning')}" if warnings else ""
    note(f"{said}: {facts.server}, namespace {facts.namespace!r}.")


def _vitals(facts: Facts) -> list[str]:
    lines = []
    if facts.workers:
        busy, slots = (sum(each) for each in zip(*((w.beat.busy, w.beat.slots) for w in facts.workers), strict=True))
        pools = len({worker.beat.pool for worker in facts.workers})
        lines.append(f"workers     {len(facts.workers)} in {plural(pools, 'pool')}, {busy:,} of {slots:,} slots in use")
    keeper = facts.bookkeeper
    if keeper is not None and keeper.pool is not None:
        answers = f", answered in {keeper.seconds * 1000:.0f} ms" if keeper.answers else ""
        lines.append(f"bookkeeper  pool {keeper.pool}{answers}")
    if facts.server_ahead is not None:
        ahead = facts.server_ahead
        lines.append(f"clock       the server's is {duration(abs(ahead))} {'ahead' if ahead > 0 else 'behind'}")
    return lines
