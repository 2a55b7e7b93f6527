"""A command's connection to the server, and waiting on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

from corral.cli.exits import TimedOut
from corral.cli.login import forget_login
from corral.cli.output import note
from corral.client import Client
from corral.errors import BadName, NoServer, PermissionDenied, Unconfirmed
from corral.jetstream.connection import Connection
from corral.server import Located, locate
from corral.settings import Settings

T = TypeVar("T")

_LOOK = 0.5
"""Seconds between two looks at the connection."""


def run(work: Coroutine[Any, Any, int]) -> int:
    """Run a command's work; its exit code. Ctrl-C cancels it, and is then raised as KeyboardInterrupt."""
    return asyncio.run(work)


def find_server(server: str | None) -> Located:
    """Where the server is.

    Raises:
        NoServer: nothing was given, and none of this user runs.
        BadName: an address that is none.
    """
    if server is not None:
        _check_addresses("--server", server)
    located = locate(server)
    _check_addresses(located.source, located.url)
    if located.source == "embedded":
        forget_login()
    return located


def _check_addresses(source: str, urls: str) -> None:
    for url in urls.split(","):
        try:
            parts = urlsplit(url if "://" in url else f"nats://{url}")
            good = parts.scheme in ("nats", "tls", "ws", "wss") and parts.hostname and parts.port != 0
        except ValueError:
            good = False
        if not good or url != url.strip():
            rule = f"nats://HOST:PORT, several with commas between; it is from {source}"
            raise BadName("server address", hide_secret(url), rule)


def hide_secret(urls: str) -> str:
    """The addresses without passwords and tokens."""
    return ",".join(_hide(url) for url in urls.split(","))


def _hide(url: str) -> str:
    scheme, separator, rest = url.rpartition("://")
    login, at, host = rest.rpartition("@")
    if not at:
        return url
    user, colon, _ = login.partition(":")
    return f"{scheme}{separator}{user}:***@{host}" if colon else f"{scheme}{separator}***@{host}"


@asynccontextmanager
async def connected(server: str | None, namespace: str | None) -> AsyncIterator[Client]:
    """An open client, whose outages are told on standard error.

    Raises:
        NoServer, PermissionDenied, BadName
    """
    settings = Settings.from_env(namespace=namespace)
    located = find_server(server)
    client = Client(located.url, settings=settings, login=located.login.login)
    try:
        await client.__aenter__()
    except (NoServer, PermissionDenied) as error:
        error.add_note(f"That address is from {located.source}.")
        raise
    telling = asyncio.create_task(_tell_outages(client.connection))
    try:
        yield client
    finally:
        telling.cancel()
        await asyncio.wait({telling})
        await client.__aexit__(None, None, None)


async def _tell_outages(connection: Connection) -> None:
    told = False
    while True:
        lost = connection.lost_at is not None
        if lost != told:
            note("The connection to the server is lost; waiting for it ..." if lost else "The connection is back.")
            told = lost
        await asyncio.sleep(_LOOK)


@contextmanager
def in_doubt(step: str, advice: str) -> Iterator[None]:
    """Say of what is inside, if it is cut off, that it may have been done, and what to do then."""
    try:
        yield
    except Unconfirmed as error:
        error.add_note(advice)
        raise
    except NoServer as error:
        # The connection was there at first: some of it may have been done.
        unconfirmed = Unconfirmed(f"{step} ({error})")
        unconfirmed.add_note(advice)
        raise unconfirmed from error
    except asyncio.CancelledError:
        note(f"It is not known whether this happened: {step}. {advice}")
        raise


@asynccontextmanager
async def at_most(seconds: float | None, what: Callable[[], str]) -> AsyncIterator[None]:
    """Let what is inside take `seconds`; then TimedOut, with `what()` as the sentence. None is without limit."""
    try:
        async with asyncio.timeout(seconds) as scope:
            yield
    except TimeoutError:
        if not scope.expired() or seconds is None:
            raise
        raise TimedOut(seconds, what()) from None


async def thinned(source: AsyncIterator[T], key: Callable[[T], object], seconds: float) -> AsyncIterator[T]:
    """The newest of each key, looked for every `seconds` at most. The last one of each is never left out."""
    newest: dict[object, T] = {}
    news = asyncio.Event()

    async def take() -> None:
        try:
            async for item in source:
                newest[key(item)] = item
                news.set()
        finally:
            news.set()

    taking = asyncio.create_task(take())
    try:
        while not taking.done() or newest:
            await news.wait()
            news.clear()
            while newest:
                yield newest.pop(next(iter(newest)))
            await asyncio.wait({taking}, timeout=seconds)
        await taking
    finally:
        taking.cancel()
        await asyncio.wait({taking})
