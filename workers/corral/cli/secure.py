"""`corral server --secure` and `corral bookkeeper`: a server that others may reach, and who keeps its books."""

from __future__ import annotations

import asyncio
import shlex
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from corral.cli import exits
from corral.cli.commands import command
from corral.cli.hosting import ends_when_told
from corral.cli.options import Namespace, Server
from corral.cli.output import note, say, write_json
from corral.cli.session import find_server
from corral.credentials import Access, Login, resolve
from corral.errors import NoServer
from corral.keeper import keep_books
from corral.logs import log_to_stderr
from corral.roles import BOOKKEEPER
from corral.secured import PORT, Settled, settle
from corral.server import EmbeddedServer, config_file
from corral.settings import Settings
from corral.subjects import Names

LOOK = 0.2
"""Seconds between two looks at whether the server still runs."""


def serve_secured(folder: Path, *, hosts: Sequence[str], port: int | None, namespace: str | None, json: bool) -> int:
    """Run a secured server and the bookkeeper, until told to stop."""
    settings = Settings.from_env(namespace=namespace)
    folder = folder.expanduser().absolute()
    settled = settle(folder, Names(settings.namespace), config_file(), hosts=hosts, port=PORT if port is None else port)
    with ends_when_told(), EmbeddedServer.start_in(folder, "server.conf", settled.url) as own:
        log_to_stderr("bookkeeper")
        login = resolve(Login(context=str(settled.context(BOOKKEEPER)))).login
        # Over loopback, whatever the machine is called elsewhere; another certificate may be good for that name only.
        access = Access(urls=[f"tls://localhost:{own.port}", own.url], login=login)

        def on_ready() -> None:
            if json:
                files = {path.stem: str(path) for path in sorted(folder.glob("*.json"))}
                write_json({"server": own.url, "pid": own.pid, "version": own.version, "home": str(folder)} | files)
            else:
                say(own.url)
            _tell(settled, own)

        return asyncio.run(_serve(own, access, settings, on_ready))
    return exits.DONE


async def _serve(own: EmbeddedServer, access: Access, settings: Settings, on_ready: Callable[[], None]) -> int:
    told = _told()
    keeping = asyncio.create_task(keep_books(access, settings, on_ready))
    try:
        while own.running and not keeping.done():
            await asyncio.wait({keeping, told}, timeout=LOOK, return_when=asyncio.FIRST_COMPLETED)
            if told.done():
                return exits.DONE
        if keeping.done():
            keeping.result()
        raise NoServer([own.url], f"it has ended by itself; see {own.home / 'logs'}")
    finally:
        keeping.cancel()
        await asyncio.wait({keeping})


def _told() -> asyncio.Future[None]:
    """Done at SIGTERM or SIGHUP. An exception in their handler could end any asyncio task that just runs."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[None] = loop.create_future()
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, lambda: None if told.done() else told.set_result(None))
    return told


def _tell(settled: Settled, own: EmbeddedServer) -> None:
    """What was made, and what comes next."""
    if settled.made:
        made = ", ".join(str(path.relative_to(settled.folder)) for path in settled.made)
        note(f"Made in {settled.folder}: {made}.")
    note(f"nats-server {own.version} runs with TLS. Ctrl-C stops it. What to do next:")
    for line, role in (
        ("corral pool APP --context {}", "worker"),
        ("corral start TOPIC --context {}", "producer"),
        ("corral tui --context {}", "viewer"),
        ("corral interrupt RUN --context {}", "operator"),
    ):
        note(f"  {line.format(shlex.quote(str(settled.context(role))))}")
    note("On another machine: copy that one file and ca.pem, side by side. They hold the passwords: send them safely.")


@command("corral bookkeeper --context /srv/queue/bookkeeper.json")
def bookkeeper(server: Server = None, namespace: Namespace = None) -> int:
    """Keep the books of pools that may not, until Ctrl-C.

    On a secured server pools have no right to. `corral server --secure` does it by itself; this is for a server, or a
    cluster, that is started otherwise. There may be several: one keeps the books, the others stand by.
    """
    settings = Settings.from_env(namespace=namespace)
    located = find_server(server)
    log_to_stderr("bookkeeper")
    return asyncio.run(_keep(located.access, settings))


async def _keep(access: Access, settings: Settings) -> int:
    told = _told()
    keeping = asyncio.create_task(keep_books(access, settings, lambda: note("Ready. Ctrl-C stops it.")))
    try:
        await asyncio.wait({keeping, told}, return_when=asyncio.FIRST_COMPLETED)
        if keeping.done():
            keeping.result()
    finally:
        keeping.cancel()
        await asyncio.wait({keeping})
    return exits.DONE
