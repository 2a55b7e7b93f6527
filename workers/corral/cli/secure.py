"""`corral server --secure` and `corral bookkeeper`: a server that others may reach, and who keeps its books."""

from __future__ import annotations

import asyncio
import shlex
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
        # Over loopback, whatever the machine is called elsewhere: the certificate is good for both.
        login = resolve(Login(context=str(settled.context(BOOKKEEPER)))).login
        access = Access(urls=[f"tls://localhost:{own.port}"], login=login)

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
    keeping = asyncio.create_task(keep_books(access, settings, on_ready))
    try:
        while own.running and not keeping.done():
            await asyncio.wait({keeping}, timeout=LOOK)
        if keeping.done():
            keeping.result()
        raise NoServer([own.url], f"it has ended by itself; see {own.home / 'logs'}")
    finally:
        keeping.cancel()
        await asyncio.wait({keeping})


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
    with ends_when_told():
        asyncio.run(keep_books(located.access, settings, lambda: note("Ready. Ctrl-C stops it.")))
    return exits.DONE
