"""`corral server`, `pool` and `up`: what works, in the foreground until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from corral.cli import exits
from corral.cli.commands import command
from corral.cli.hosting import PoolProcess, ends_when_told, pool_beside, some_server
from corral.cli.moved import Moved, about
from corral.cli.options import App, Json, Namespace, NoTui, Server, Slots, Workers
from corral.cli.output import note, plural, say, say_table, write_json
from corral.cli.progress import RUN_HEADINGS, run_row, runs_as_they_change
from corral.cli.session import connected, find_server, hide_secret
from corral.cli.tui import Dashboard, dashboard_if_possible
from corral.client import Client
from corral.errors import NoServer
from corral.logs import log_to_stderr
from corral.pool import PoolOptions, Stopping, run_pool
from corral.runs import RunStatus
from corral.server import EmbeddedServer
from corral.settings import Settings
from corral.subjects import check_topic

EVERY = 1.0
"""Seconds between two lines of progress."""


@command(
    "CORRAL_HOME=/srv/corral corral server                # data and address are kept there",
    "corral server --secure /srv/queue --host queue.example.org",
)
def server(
    secure: Annotated[
        Path | None,
        typer.Option("--secure", metavar="DIR", help="With TLS, users and rights, which are made in DIR once."),
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(
            "--host", metavar="NAME", help="--secure: how clients call this machine, which then lets them in."
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", metavar="N", min=0, max=65535, help="--secure: default 4222; 0 for one that is free."),
    ] = None,
    namespace: Namespace = None,
    *,
    json: Json = False,
) -> int:
    """Run a server alone, until Ctrl-C.

    The embedded server listens on this machine only, keeps its data in CORRAL_HOME, and is found by every other command
    of the same user.

    With --secure the server may be reached by others, who are let in by a file for their role that is made in DIR:
    producer, worker, operator, viewer. What is in DIR already is kept as it is. The books are kept here, too.
    """
    if secure is not None:
        from corral.cli.secure import serve_secured

        return serve_secured(secure, hosts=host or [], port=port, namespace=namespace, json=json)
    if host or port is not None or namespace is not None:
        raise typer.BadParameter("it goes with --secure", param_hint="--host, --port and --namespace")
    with ends_when_told(), EmbeddedServer.start() as own:
        if json:
            write_json({"server": hide_secret(own.url), "pid": own.pid, "version": own.version, "home": str(own.home)})
        else:
            say(hide_secret(own.url))
        note(f"nats-server {own.version} runs, its data is in {own.home}. Ctrl-C stops it.")
        while own.running:
            time.sleep(0.1)
        raise NoServer([hide_secret(own.url)], f"it has ended by itself; see {own.home / 'logs'}")
    return exits.DONE


@command(
    "corral pool processors.py",
    "corral pool shop.jobs:app -p 4 -c 200 --server nats://queue:4222",
    "corral pool processors.py --topics newsletter.mail  # this machine does only that",
)
def pool(
    app: App,
    *,
    processes: Workers = None,
    concurrency: Slots = 100,
    topics: Annotated[
        str | None, typer.Option("--topics", metavar="A,B", help="Only these topics. Default: all of the app's.")
    ] = None,
    drain_timeout: Annotated[
        float | None,
        typer.Option(
            "--drain-timeout",
            metavar="S",
            min=0,
            help="Seconds that running tasks get to finish at the end, before they are handed back. Default: 30.",
        ),
    ] = None,
    ready_fd: Annotated[int | None, typer.Option("--ready-fd", hidden=True)] = None,
    server: Server = None,
    namespace: Namespace = None,
) -> int:
    """Run workers for the processors of APP, until Ctrl-C.

    At Ctrl-C or SIGTERM they take nothing new, finish what they are at, and hand back what takes too long. A second
    time stops them at once; their tasks go to other workers.
    """
    settings = Settings.from_env(namespace=namespace, drain_timeout=drain_timeout)
    wanted = None if topics is None else [check_topic(topic.strip()) for topic in topics.split(",")]
    options = PoolOptions(
        app=app,
        access=find_server(server).access,
        settings=settings,
        workers=processes or os.cpu_count() or 1,
        slots=concurrency,
        topics=wanted,
    )
    log_to_stderr("pool")

    def on_ready() -> None:
        if ready_fd is None:
            note(f"{plural(options.workers, 'worker')} at work. Ctrl-C stops them.")
        else:
            os.write(ready_fd, b"\n")
            os.close(ready_fd)

    return asyncio.run(_run_pool(options, on_ready))


async def _run_pool(options: PoolOptions, on_ready: Callable[[], None]) -> int:
    stopping = Stopping()
    told: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        told.append(number)
        stopping.ask()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop, number)
    code = await run_pool(options, stopping, on_ready)
    return exits.CTRL_C if code == 0 and signal.SIGINT in told else code


@command(
    "corral up processors.py",
    "corral up shop.jobs:app -p 4 -c 200",
    "corral up processors.py --no-tui > /dev/null        # lines of progress instead of the dashboard",
)
def up(
    app: App,
    *,
    processes: Workers = None,
    concurrency: Slots = 100,
    no_tui: NoTui = False,
    server: Server = None,
    namespace: Namespace = None,
) -> int:
    """Run server, workers and dashboard, in one.

    A server that is given or runs already is joined; else one is started, and stopped at the end. Runs that have not
    ended by then go on with the next pool.
    """
    settings = Settings.from_env(namespace=namespace)
    show = None if no_tui else dashboard_if_possible()
    with (
        ends_when_told(),
        some_server(server) as url,
        pool_beside(app, url, settings, workers=processes, slots=concurrency) as beside,
    ):
        if show is None:
            return asyncio.run(_tell(url, settings, beside))
        return show_beside(show, url, settings, beside)
    return exits.DONE


def show_beside(show: Dashboard, url: str, settings: Settings, beside: PoolProcess, run_id: str | None = None) -> int:
    """The dashboard while a pool runs; what the pool had to say if it ended meanwhile."""
    failed = asyncio.run(beside.ready())
    if failed is None:
        code = show(url=url, namespace=settings.namespace, run_id=run_id)
        if beside.running:
            return code if code == exits.CTRL_C else exits.DONE
        failed = asyncio.run(beside.ended())
    beside.complain()
    return failed


async def _tell(url: str, settings: Settings, beside: PoolProcess) -> int:
    """Lines about the runs until the pool ends, or Ctrl-C; and how those stand then that have moved meanwhile."""
    seen = Moved(time.time())
    async with connected(url, settings.namespace) as client:
        if (failed := await beside.ready()) is None:
            note(f"The workers are ready; what they log is in {beside.log}. Ctrl-C stops everything.")
            telling = asyncio.create_task(_tell_runs(client, seen))
            try:
                failed = await beside.ended()
            finally:
                telling.cancel()
                await asyncio.wait({telling})
                _summarize(seen)
    beside.complain()
    return failed


def _summarize(seen: Moved) -> None:
    newest, sums = seen.newest(), seen.sums
    if newest:
        say_table(RUN_HEADINGS, [run_row(each) for each in newest])
        if sums.runs > len(newest):
            note(f"And {sums.runs - len(newest):,} older ones. {sums}.")


async def _tell_runs(client: Client, seen: Moved) -> None:
    """At most a line a second: about the run that has moved, or about all that have. Fills `seen` with these."""
    moved: dict[str, RunStatus] = {}
    news = asyncio.Event()

    async def take() -> None:
        async for each in runs_as_they_change(client, limit=0):
            if seen.take(each):
                moved[each.id] = each
                news.set()

    taking = asyncio.create_task(take())
    try:
        while not taking.done():
            await news.wait()
            news.clear()
            note(about(moved.values()))
            moved.clear()
            await asyncio.wait({taking}, timeout=EVERY)
        await taking
    finally:
        taking.cancel()
        await asyncio.wait({taking})
