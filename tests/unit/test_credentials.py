"""Who a client says it is: from a login, from the variables of the nats command, from its contexts."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from corral.credentials import Access, Login, from_environment, resolve
from corral.errors import BadName


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that can be read."""
    path = tmp_path / "some.file"
    path.write_text("")
    return path


def context(tmp_path: Path, name: str, **fields: Any) -> Path:
    """A context as the nats command writes it: all fields, most of them empty."""
    folder = tmp_path / "nats" / "context"
    folder.mkdir(parents=True, exist_ok=True)
    empty = dict.fromkeys(("description", "url", "token", "user", "password", "creds", "nkey", "cert", "key", "ca"), "")
    path = folder / f"{name}.json"
    path.write_text(json.dumps({**empty, "color_scheme": "", "tls_first": False, **fields}))
    return path


def test_nothing_is_shown_where_nothing_is_given() -> None:
    assert resolve(environ={}) == (Login(), None, ())


@pytest.mark.parametrize(
    ("environ", "login"),
    [
        ({"NATS_USER": "u", "NATS_PASSWORD": "p"}, Login(user="u", password="p")),
        ({"NATS_USER": "t"}, Login(token="t")),
        ({"NATS_TOKEN": "t"}, Login(token="t")),
        ({"NATS_CREDS": "/a", "NATS_CA": "/b"}, Login(creds="/a", ca="/b")),
        ({"NATS_NKEY": "/a", "NATS_CERT": "/c", "NATS_KEY": "/k"}, Login(nkey="/a", cert="/c", key="/k")),
        ({"NATS_CONTEXT": "shop", "NATS_CREDS": ""}, Login(context="shop")),
    ],
)
def test_the_variables_are_those_of_the_nats_command(environ: Mapping[str, str], login: Login) -> None:
    assert from_environment(environ) == login


def test_a_login_makes_the_environment_count_for_nothing(file: Path) -> None:
    found = resolve(Login(creds=str(file)), {"NATS_USER": "u", "NATS_PASSWORD": "p"})
    assert found.login == Login(creds=str(file))


def test_a_context_is_found_by_its_name(tmp_path: Path, file: Path) -> None:
    path = context(tmp_path, "shop", url="tls://queue:4222", creds=str(file), inbox_prefix="_MINE")
    found = resolve(environ={"NATS_CONTEXT": "shop", "XDG_CONFIG_HOME": str(tmp_path)})
    assert found == (Login(creds=str(file), inbox_prefix="_MINE"), "tls://queue:4222", (f"context {path}",))


def test_a_context_is_found_by_its_path_and_its_files_beside_it(tmp_path: Path) -> None:
    path = context(tmp_path, "shop", user="u", password="p", ca="ca.pem", jetstream_api_prefix="HERE.API")
    (path.parent / "ca.pem").write_text("")
    found = resolve(Login(context=str(path)))
    assert found.login == Login(user="u", password="p", ca=str(path.parent / "ca.pem"), api_prefix="HERE.API")


def test_what_is_said_goes_before_the_context_and_one_way_to_say_who_one_is_replaces_the_other(
    tmp_path: Path, file: Path
) -> None:
    path = context(tmp_path, "shop", user="u", password="p", inbox_prefix="_MINE")
    assert resolve(Login(context=str(path), creds=str(file))).login == Login(creds=str(file), inbox_prefix="_MINE")


@pytest.mark.parametrize(
    ("login", "said"),
    [
        (Login(context="/nowhere/x.json"), "'/nowhere/x.json' is not a NATS context: no such file"),
        (Login(context="../x"), "is not a NATS context"),
        (Login(creds="/nowhere"), "'/nowhere' is not a file for creds: no such file"),
        (Login(ca="/nowhere"), "'/nowhere' is not a file for ca"),
        (Login(user="u", password="p", token="t"), "one of creds, nkey, user with password, token"),
        (Login(key="/nowhere"), "to which the key belongs"),
    ],
)
def test_what_cannot_be_used_is_said_at_once(login: Login, said: str) -> None:
    with pytest.raises(BadName, match=said):
        resolve(login)


def test_a_context_that_is_no_json_is_said_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text('{"url": 7}')
    with pytest.raises(BadName, match=r"is not a NATS context: .*Expected `str`, got `int`"):
        resolve(Login(context=str(path)))


def test_no_secret_is_shown_by_accident() -> None:
    access = Access(urls=["nats://u:secret@a"], login=Login(user="u", password="secret", token="secret"))
    assert "secret" not in f"{access!r} {access}"
    assert "user='u', password='***'" in repr(access)


def test_tls_is_insisted_on_where_anything_says_so() -> None:
    assert not Access(urls=["nats://a"]).needs_tls
    assert Access(urls=["nats://a", "tls://b"]).needs_tls
    assert Access(urls=["nats://a"], login=Login(ca="ca.pem")).needs_tls
