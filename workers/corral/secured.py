"""A server that others may reach: its folder with keys, passwords and rights, and starting it.

    server.conf     address, TLS, where the data is; includes the two below; may be edited
    nats.conf       a copy of what came with Corral
    roles.conf      accounts, users and their rights
    <role>.json     what a client of that role takes: a context of the `nats` command
    ca.pem          who signed the server's certificate; clients need it beside their context
    tls/            the keys of that authority and of the server, and the server's certificate

What is there is kept, always: what is deleted is made anew.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from corral.decoding import decoder
from corral.errors import BadName, ServerStartFailed
from corral.private import write_new
from corral.roles import BOOKKEEPER, ROLE_API, configuration, inbox
from corral.subjects import Names

PORT = 4222
_USERS = ("producer", "worker", "operator", "viewer", BOOKKEEPER)


class _Context(msgspec.Struct, omit_defaults=True):
    description: str = ""
    url: str = ""
    user: str = ""
    password: str = ""
    ca: str = ""
    inbox_prefix: str = ""
    jetstream_api_prefix: str = ""


class Settled(NamedTuple):
    """The folder, ready to start a server in."""

    folder: Path
    url: str
    made: tuple[Path, ...]
    """What was not there before."""

    def context(self, role: str) -> Path:
        """What a client of this role takes."""
        return self.folder / f"{role}.json"


def settle(folder: Path, names: Names, packaged: Path, *, hosts: Sequence[str] = (), port: int = PORT) -> Settled:
    """Make what is missing in the folder.

    `hosts` are names and addresses by which clients know this machine; the first goes into their contexts. Without
    them the server listens on the loopback address only. `port` 0 is one that is free now, for always.

    Raises:
        ServerStartFailed: a folder or files that cannot be used.
        BadName: a host that is none.
    """
    hosts = [_check_host(host) for host in hosts]
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        for name in ("logs", "ports", "tls"):
            (folder / name).mkdir(mode=0o700, exist_ok=True)
        before = _files(folder)
        _certificates(folder, hosts)
        url = _contexts(folder, hosts, port)
        passwords = {role: _password(folder / f"{role}.json") for role in _USERS}
        if not (folder / "nats.conf").exists():
            shutil.copyfile(packaged, folder / "nats.conf")
        if not (folder / "roles.conf").exists():
            write_new(folder / "roles.conf", configuration(names, passwords).encode())
        if not (folder / "server.conf").exists():
            listen = f"{'0.0.0.0' if hosts else '127.0.0.1'}:{url.rpartition(':')[2]}"  # noqa: S104  # asked for by --host
            write_new(folder / "server.conf", _server(listen).encode())
    except OSError as error:
        raise ServerStartFailed(f"cannot use {error.filename or folder}: {error.strerror or error}") from error
    except (ValueError, msgspec.DecodeError) as error:
        raise ServerStartFailed(f"a file of {folder} cannot be read: {error}") from error
    return Settled(folder, url, tuple(sorted(_files(folder) - before)))


def _files(folder: Path) -> set[Path]:
    return {path for path in (*folder.glob("*.*"), *folder.glob("tls/*")) if path.is_file()}


def _certificates(folder: Path, hosts: Sequence[str]) -> None:
    ca = folder / "ca.pem"
    ca_key, cert, key = (folder / "tls" / name for name in ("ca.key", "server.pem", "server.key"))
    if cert.exists() and key.exists() and ca.exists():
        return
    try:
        from corral.certificates import Authority  # noqa: PLC0415  # an extra, which only this needs
    except ModuleNotFoundError:
        raise ServerStartFailed("certificates are made with the extra 'secure': pip install 'corral[secure]'") from None
    if ca.exists():
        authority = Authority.load(ca, ca_key)
    else:
        authority = Authority.new()
        authority.save(ca, ca_key)
    for half in (cert, key):
        half.unlink(missing_ok=True)
    local = ["localhost", "127.0.0.1", "::1", socket.gethostname()]
    authority.issue(list(dict.fromkeys([*hosts, *local])), cert, key)


def _contexts(folder: Path, hosts: Sequence[str], port: int) -> str:
    """Make the contexts that are missing; the URL that they name."""
    known = [_read(path).url for role in _USERS if (path := folder / f"{role}.json").exists()]
    url = known[0] if known else f"tls://{_in_url(hosts[0]) if hosts else '127.0.0.1'}:{port or _free_port()}"
    for role in _USERS:
        path = folder / f"{role}.json"
        if path.exists():
            continue
        limited = role != BOOKKEEPER
        context = _Context(
            description=f"Corral's {role}",
            url=url,
            user=role,
            password=secrets.token_urlsafe(32),
            ca="ca.pem",  # beside it, wherever the two are copied to
            inbox_prefix=inbox(role) if limited else "",
            jetstream_api_prefix=ROLE_API if limited else "",
        )
        write_new(path, msgspec.json.format(msgspec.json.encode(context), indent=2) + b"\n")
    return url


def _read(path: Path) -> _Context:
    context: _Context = _decode_context(path.read_bytes())
    return context


_decode_context = decoder(_Context, "a context")


def _password(path: Path) -> str:
    """The password in a context, which has to fit between quotes in the server's configuration."""
    password = _read(path).password
    if not re.fullmatch(r"[A-Za-z0-9._~+/=-]{16,}", password):
        raise ValueError(f"the password in {path.name} has less than 16 letters and digits, or anything else in it")
    return password


def _check_host(host: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", host):
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise BadName("host", host, "a name or an address, without a port") from None
    return host


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _server(listen: str) -> str:
    return f"""\
# Made by `corral server --secure`, which keeps it as it is from then on: it is yours to edit. Paths count from here.
# `nats-server -t -c server.conf` checks it, and `nats-server --signal reload` takes most changes up.
include "nats.conf"
include "roles.conf"
listen: "{listen}"
tls {{
  cert_file: "tls/server.pem"
  key_file: "tls/server.key"
  min_version: "1.3"
}}
ports_file_dir: "ports"
log_file: "logs/nats-server.log"
logfile_size_limit: 10MB
logfile_max_num: 3
"""
