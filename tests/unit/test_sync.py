"""The blocking client is the asynchronous one under the same names."""

import inspect
from typing import Any

import pytest

from corral import Client, CorralError, Run, SyncClient
from corral.sync import SyncRun

ASYNC_ONLY = {"operations", "connection", "read_records", "read_events", "on_beat"}
"""What monitors use, which live in a loop."""


def public(kind: type[Any]) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")}


@pytest.mark.parametrize(("sync", "other"), [(SyncClient, Client), (SyncRun, Run)])
def test_both_have_the_same_names(sync: type[Any], other: type[Any]) -> None:
    assert public(sync) == public(other) - ASYNC_ONLY


@pytest.mark.parametrize(
    ("sync", "other"),
    [
        (vars(sync)[name], vars(other)[name])
        for sync, other in ((SyncClient, Client), (SyncRun, Run))
        for name in sorted(public(sync) | {"__init__"})
        if (sync, name) != (SyncRun, "__init__") and callable(vars(sync)[name])
    ],
)
def test_both_take_the_same_arguments(sync: Any, other: Any) -> None:
    assert list(inspect.signature(sync).parameters.values()) == list(inspect.signature(other).parameters.values())


def test_a_client_that_is_not_open_says_how_to_open_it() -> None:
    with pytest.raises(CorralError, match="with SyncClient"):
        SyncClient("nats://127.0.0.1:1").runs()
