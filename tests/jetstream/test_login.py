"""Every way to be let in, at a real server."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nkeys
import pytest

from corral.certificates import Authority
from corral.credentials import Access, Login
from corral.errors import BadName, NoServer, PermissionDenied
from corral.jetstream.connection import Connection
from tests.servers import ServerProcess
from tests.system.stage import within

Servers = Callable[..., ServerProcess]


async def enter(url: str, **login: Any) -> None:
    """Connect, ask something, and leave."""
    connection = await Connection.open(Access(urls=[url], login=Login(**login)), name="test")
    try:
        assert await connection.flush()
    finally:
        await connection.close()


def new_key(kind: int) -> tuple[str, nkeys.KeyPair]:
    seed = nkeys.encode_seed(os.urandom(32), kind)
    return seed.decode(), nkeys.from_seed(bytearray(seed))


async def test_a_user_and_password_and_a_wrong_one(server_process: Servers) -> None:
    server = server_process(extra='authorization { user: "ann", password: "secret" }')
    await enter(server.url, user="ann", password="secret")
    with pytest.raises(PermissionDenied, match="log in at 127"):
        await enter(server.url, user="ann", password="wrong")
    with pytest.raises(PermissionDenied):
        await enter(server.url)


async def test_the_address_goes_before_the_rest(server_process: Servers) -> None:
    server = server_process(extra='authorization { user: "ann", password: "secret" }')
    await enter(server.url.replace("//", "//ann:secret@"), user="bob", password="wrong")


async def test_a_token(server_process: Servers) -> None:
    server = server_process(extra='authorization { token: "t0k" }')
    await enter(server.url, token="t0k")
    with pytest.raises(PermissionDenied):
        await enter(server.url, token="other")


async def test_an_nkey_seed(server_process: Servers, tmp_path: Path) -> None:
    seed, pair = new_key(nkeys.PREFIX_BYTE_USER)
    server = server_process(extra=f"authorization {{ users: [{{ nkey: {pair.public_key.decode()} }}] }}")
    (tmp_path / "user.nk").write_text(f"{seed}\n")
    await enter(server.url, nkey=str(tmp_path / "user.nk"))
    (tmp_path / "other.nk").write_text(new_key(nkeys.PREFIX_BYTE_USER)[0])
    with pytest.raises(PermissionDenied):
        await enter(server.url, nkey=str(tmp_path / "other.nk"))


def jwt(issuer: nkeys.KeyPair, subject: nkeys.KeyPair, name: str, claims: dict[str, Any]) -> str:
    """A signed claim, as `nsc` makes them."""

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    body = {
        "jti": hashlib.sha256(name.encode()).hexdigest(),
        "iat": 1_700_000_000,
        "iss": issuer.public_key.decode(),
        "name": name,
        "sub": subject.public_key.decode(),
        "nats": {"version": 2, **claims},
    }
    signed = f"{part({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{part(body)}"
    signature = base64.urlsafe_b64encode(issuer.sign(signed.encode())).decode().rstrip("=")
    return f"{signed}.{signature}"


async def test_a_credentials_file(server_process: Servers, tmp_path: Path) -> None:
    (_, operator), (_, account) = new_key(nkeys.PREFIX_BYTE_OPERATOR), new_key(nkeys.PREFIX_BYTE_ACCOUNT)
    seed, user = new_key(nkeys.PREFIX_BYTE_USER)
    none = {"subs": -1, "conn": -1, "leaf": -1, "imports": -1, "exports": -1, "data": -1, "payload": -1}
    accepted = jwt(operator, account, "shop", {"type": "account", "limits": none})
    (tmp_path / "operator.jwt").write_text(jwt(operator, operator, "op", {"type": "operator"}))
    _, system = new_key(nkeys.PREFIX_BYTE_ACCOUNT)
    system_jwt = jwt(operator, system, "SYS", {"type": "account", "limits": none})
    server = server_process(
        extra=f"""
        operator: "{tmp_path / "operator.jwt"}"
        system_account: {system.public_key.decode()}
        resolver: MEMORY
        resolver_preload {{
            {account.public_key.decode()}: "{accepted}"
            {system.public_key.decode()}: "{system_jwt}"
        }}
        """
    )
    limits = {"subs": -1, "data": -1, "payload": -1}
    mine = jwt(account, user, "ann", {"type": "user", **limits})
    path = tmp_path / "ann.creds"
    path.write_text(
        f"-----BEGIN NATS USER JWT-----\n{mine}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
    await enter(server.url, creds=str(path))
    with pytest.raises(PermissionDenied):
        await enter(server.url)


async def test_tls_with_an_authority_of_ones_own(server_process: Servers, tmp_path: Path) -> None:
    authority = Authority.new()
    files = authority.write(tmp_path, ["127.0.0.1"])
    server = server_process(extra=f'tls {{ cert_file: "{files.cert}", key_file: "{files.key}" }}')
    await enter(server.url, ca=str(files.ca))
    with pytest.raises(NoServer, match="its certificate is not trusted"):
        await enter(server.url)
    other = Authority.new().write(tmp_path / "other", ["127.0.0.1"])
    with pytest.raises(NoServer, match="its certificate is not trusted"):
        await enter(server.url, ca=str(other.ca))


async def test_an_outage_with_tls_is_only_time_that_passes(server_process: Servers, tmp_path: Path) -> None:
    files = Authority.new().write(tmp_path, ["127.0.0.1"])
    server = server_process(extra=f'tls {{ cert_file: "{files.cert}", key_file: "{files.key}" }}')
    access = Access(urls=[server.url], login=Login(ca=str(files.ca)))
    connection = await Connection.open(access, name="test")
    received: asyncio.Queue[bytes] = asyncio.Queue()
    await connection.subscribe("some.>", lambda message: received.put_nowait(message.data))
    back = asyncio.Event()
    connection.on_reconnect(back.set)

    async def talk() -> None:
        """Something is always being written when the server goes."""
        while True:
            await connection.publish("other", b"x" * 1000)
            await connection.flush(1.0)

    talking = asyncio.create_task(talk())
    for stop in (server.stop, server.kill):
        back.clear()
        stop()
        server.start()
        await within(back.wait(), "the connection")
        await connection.publish("some.thing", b"hello")
        assert await within(received.get(), "a message") == b"hello"
    server.kill()
    assert not talking.done()
    talking.cancel()
    await asyncio.wait({talking})
    await connection.close()  # with the server gone


async def test_a_certificate_of_another_host_is_refused(server_process: Servers, tmp_path: Path) -> None:
    files = Authority.new().write(tmp_path, ["elsewhere.example"])
    server = server_process(extra=f'tls {{ cert_file: "{files.cert}", key_file: "{files.key}" }}')
    with pytest.raises(NoServer, match="IP address mismatch"):
        await enter(server.url, ca=str(files.ca))


async def test_a_client_certificate(server_process: Servers, tmp_path: Path) -> None:
    authority = Authority.new()
    files = authority.write(tmp_path, ["127.0.0.1"])
    mine = authority.write(tmp_path / "mine", ["ann"])
    server = server_process(
        extra=f'tls {{ cert_file: "{files.cert}", key_file: "{files.key}", ca_file: "{files.ca}", verify: true }}'
    )
    await enter(server.url, ca=str(files.ca), cert=str(mine.cert), key=str(mine.key))
    with pytest.raises(NoServer):
        await enter(server.url, ca=str(files.ca))


async def test_no_password_is_sent_to_a_server_without_tls_where_tls_was_asked_for(
    server_process: Servers, tmp_path: Path
) -> None:
    server = server_process(extra='authorization { user: "ann", password: "secret" }')
    files = Authority.new().write(tmp_path, ["127.0.0.1"])
    with pytest.raises(NoServer, match="it offers no TLS, and TLS was asked for"):
        await enter(server.url, user="ann", password="secret", ca=str(files.ca))
    with pytest.raises(NoServer, match="it offers no TLS, and TLS was asked for"):
        await enter(server.url.replace("nats://", "tls://"), user="ann", password="secret")


async def test_a_certificate_that_is_none_is_said_at_once(nats_url: str, tmp_path: Path) -> None:
    path = tmp_path / "no.pem"
    path.write_text("hello")
    with pytest.raises(BadName, match="is not a certificate"):
        await enter(nats_url, ca=str(path))
