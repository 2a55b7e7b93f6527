"""How a client is let in: what it shows to the server, and where that is found.

Resolved once, at the edge: from then on an `Access` is passed on, to workers as well. What is in it is secret.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from corral.decoding import decoder
from corral.errors import BadName

INBOX_PREFIX = "_INBOX"
API_PREFIX = "$JS.API"


class Login(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What to show to the server. Files are paths; None leaves a thing out.

    One of `creds`, `nkey`, `user` with `password`, and `token`. What stands in the server's URL goes before all four.
    """

    context: str | None = None
    """The name of a context of the `nats` command, or the path of such a file: the server's URL and all below."""
    creds: str | None = None
    """A credentials file, with a JWT and an NKEY seed. Needs the extra `secure`."""
    nkey: str | None = None
    """A file with an NKEY seed. Needs the extra `secure`."""
    user: str | None = None
    password: str | None = None
    token: str | None = None
    ca: str | None = None
    """Certificates of those who may sign the server's. Default: the system's."""
    cert: str | None = None
    """The client's own certificate."""
    key: str | None = None
    """The private key of `cert`. Default: it is in the same file."""
    inbox_prefix: str | None = None
    """Where this user may receive replies. Default: `_INBOX`."""
    api_prefix: str | None = None
    """Where this user reaches JetStream. Default: `$JS.API`."""

    def __repr__(self) -> str:
        shown = {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}
        return f"Login({', '.join(f'{name}={hidden(name, value)!r}' for name, value in shown.items())})"


def hidden(name: str, value: str) -> str:
    """The value of a field of a login, unless it is a secret."""
    return "***" if name in ("password", "token") else value


_IDENTITY = ("creds", "nkey", "user", "password", "token")
_FILES = ("creds", "nkey", "ca", "cert", "key")
VARIABLES: Mapping[str, str] = {
    "context": "NATS_CONTEXT",
    "creds": "NATS_CREDS",
    "nkey": "NATS_NKEY",
    "user": "NATS_USER",
    "password": "NATS_PASSWORD",
    "token": "NATS_TOKEN",
    "ca": "NATS_CA",
    "cert": "NATS_CERT",
    "key": "NATS_KEY",
    "inbox_prefix": "NATS_INBOX_PREFIX",
}
"""The variables of the environment, by the field of a login."""


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is needed to connect. `login` has no context any more, and whole paths."""

    urls: list[str]
    login: Login = Login()

    def __repr__(self) -> str:
        return f"Access({len(self.urls)} URLs, {self.login!r})"  # URLs may hold passwords

    @property
    def needs_tls(self) -> bool:
        """Whether anything says that this connection is not to be readable on its way."""
        return any(getattr(self.login, name) for name in ("ca", "cert")) or any(
            urlsplit(url).scheme in ("tls", "wss") for url in self.urls
        )

    @classmethod
    def of(cls, servers: Access | Sequence[str]) -> Access:
        """URLs alone are an access, too."""
        return servers if isinstance(servers, Access) else cls(urls=list(servers))


class Found(NamedTuple):
    """What a login comes to, and what it was taken from."""

    login: Login
    url: str | None
    """That of the context, if there is one."""
    sources: tuple[str, ...]
    """Such as `NATS_CREDS` and `NATS_CA`; the contents are named by their context."""


def from_environment(environ: Mapping[str, str] | None = None) -> Login:
    """What the variables say that the `nats` command knows: NATS_CREDS, NATS_USER, NATS_CONTEXT and so on.

    As there, NATS_USER without NATS_PASSWORD is a token.
    """
    environ = os.environ if environ is None else environ
    values = {name: environ.get(variable) or None for name, variable in VARIABLES.items()}
    if values["user"] and not values["password"]:
        values["token"], values["user"] = values["token"] or values["user"], None
    return Login(**values)


def resolve(login: Login | None = None, environ: Mapping[str, str] | None = None) -> Found:
    """A login with its context read in; without one, that of the environment.

    What a login says goes before what its context says; the four ways to say who one is count as one.

    Raises:
        BadName: a context or a file that cannot be read, or more than one way to say who one is.
    """
    given = from_environment(environ) if login is None else login
    own = {name: value for name in given.__struct_fields__ if (value := getattr(given, name)) and name != "context"}
    sources = [VARIABLES[name] if login is None else "login" for name in own if name in VARIABLES]
    if login is None and "token" in own and not (environ or os.environ).get("NATS_TOKEN"):
        sources = ["NATS_USER" if source == "NATS_TOKEN" else source for source in sources]
    own = {name: _whole(value, Path.cwd()) if name in _FILES else value for name, value in own.items()}
    url = None
    if given.context:
        path = context_file(given.context, environ)
        url, theirs = _read_context(path)
        if any(name in own for name in _IDENTITY):
            theirs = {name: value for name, value in theirs.items() if name not in _IDENTITY}
        own = {**theirs, **own}
        sources.insert(0, f"context {path}")
    merged = Login(**own)
    _check(merged)
    return Found(merged, url, tuple(dict.fromkeys(sources)))


def context_file(context: str, environ: Mapping[str, str] | None = None) -> Path:
    """The file of a context: `context` itself if it is a path, else where the `nats` command keeps it."""
    environ = os.environ if environ is None else environ
    if "/" in context or context.endswith(".json"):
        return Path(context).expanduser().absolute()
    parent = environ.get("XDG_CONFIG_HOME")
    folder = Path(parent) if parent else Path.home() / ".config"
    return folder / "nats" / "context" / f"{context}.json"


class _Context(msgspec.Struct):
    """The part of a context file that matters here. The `nats` command writes all fields, many of them empty."""

    url: str = ""
    token: str = ""
    user: str = ""
    password: str = ""
    creds: str = ""
    nkey: str = ""
    cert: str = ""
    key: str = ""
    ca: str = ""
    inbox_prefix: str = ""
    jetstream_api_prefix: str = ""


_decode_context: Callable[[bytes], _Context] = decoder(_Context, "the context")


def _read_context(path: Path) -> tuple[str | None, dict[str, str]]:
    try:
        found = _decode_context(path.read_bytes())
    except OSError as error:
        raise BadName("NATS context", str(path), (error.strerror or str(error)).lower()) from None
    except msgspec.DecodeError as error:
        raise BadName("NATS context", str(path), str(error)) from None
    values = {name: value for name in found.__struct_fields__ if (value := getattr(found, name)) and name != "url"}
    if prefix := values.pop("jetstream_api_prefix", None):
        values["api_prefix"] = prefix
    if values.get("user") and not values.get("password"):
        values["token"] = values.pop("user")
    whole = {name: _whole(value, path.parent) if name in _FILES else value for name, value in values.items()}
    return found.url or None, whole


def _whole(path: str, folder: Path) -> str:
    return str(folder / os.path.expanduser(os.path.expandvars(path)))  # noqa: PTH111  # a user that is none stays


def _check(login: Login) -> None:
    ways = [name for name in ("creds", "nkey", "user", "token") if getattr(login, name)]
    if len(ways) > 1:
        raise BadName("login", " and ".join(ways), "one of creds, nkey, user with password, token")
    if login.key and not login.cert:
        raise BadName("login", "key", "with a certificate, to which the key belongs")
    for name in _FILES:
        path = getattr(login, name)
        if path is None:
            continue
        try:
            with open(path, "rb"):  # noqa: PTH123  # only whether it can be
                pass
        except (OSError, ValueError) as error:
            raise BadName(f"file for {name}", path, (getattr(error, "strerror", "") or str(error)).lower()) from None
