"""How the client of nats-py is let in: its login, TLS, and what it says when it is not."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import ssl
from typing import Any
from urllib.parse import urlsplit

import nats.errors
from nats.aio.client import Client as NatsClient
from nats.aio.transport import TcpTransport

from corral.credentials import Access
from corral.errors import BadName


def login_options(access: Access) -> dict[str, Any]:
    """What nats-py is told of who we are; BadName where that cannot be used."""
    login = access.login
    options: dict[str, Any] = {}
    if access.needs_tls:
        try:
            options["tls"] = context = ssl.create_default_context(cafile=login.ca)
            if login.cert is not None:
                context.load_cert_chain(login.cert, login.key)
        except (OSError, ValueError) as error:  # an SSLError is an OSError
            raise BadName("certificate", login.cert or str(login.ca), reason_of(error)) from None
    if any(urlsplit(url).username for url in access.urls):
        return options  # what stands in the address goes first
    if (login.creds or login.nkey) and importlib.util.find_spec("nkeys") is None:
        raise BadName("login", str(login.creds or login.nkey), "it needs `pip install 'corral[secure]'`")
    options["user_credentials"] = login.creds
    options["nkeys_seed"] = login.nkey
    if login.user is not None:
        options["user"], options["password"] = login.user, login.password or ""
    options["token"] = login.token
    return options


def prepare(client: NatsClient, *, tls: bool) -> None:
    """Make up for what nats-py lets through. With `tls` nothing is sent to a server that does not encrypt."""
    connect_command, connect_to_server = client._connect_command, client._connect_to_server  # noqa: SLF001

    def checked_command() -> bytes:
        # nats-py would send the password in the clear.
        if tls and not client._server_info.get("tls_required"):  # noqa: SLF001
            raise nats.errors.Error("nats: it offers no TLS, and TLS was asked for")
        return connect_command()

    async def checked_transport(s: Any) -> None:
        await connect_to_server(s)
        if type(client._transport) is TcpTransport:  # noqa: SLF001
            client._transport.__class__ = _Transport  # noqa: SLF001

    client._connect_command = checked_command  # type: ignore[method-assign]  # noqa: SLF001
    client._connect_to_server = checked_transport  # type: ignore[method-assign]  # noqa: SLF001


class _Transport(TcpTransport):
    """What is written to a lost connection is dropped. With TLS asyncio raises an AttributeError then.

    That would end the asyncio task in which nats-py connects again, and so the connection for good.
    """

    def write(self, payload: bytes) -> None:
        with contextlib.suppress(AttributeError):
            super().write(payload)  # type: ignore[no-untyped-call]

    def writelines(self, payload: list[bytes]) -> None:
        with contextlib.suppress(AttributeError):
            super().writelines(payload)  # type: ignore[no-untyped-call]


def reason_of(error: BaseException) -> str:
    """What went wrong, in words for people."""
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}".lower().replace("tls", "TLS", 1).replace("_", " ")
    if isinstance(error, OSError):
        return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    return str(error).removeprefix("nats: ").strip("'")
