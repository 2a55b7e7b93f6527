"""What is blocking has the names, arguments and types of what is asynchronous."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest

from corral import Client, Context, CorralError, Run, SyncClient, SyncContext
from corral.sync import SyncRun

PAIRS: list[tuple[type[Any], type[Any]]] = [(SyncClient, Client), (SyncRun, Run), (SyncContext, Context)]
ASYNC_ONLY = {"operations", "connection", "read_records", "read_events", "on_beat"}
"""What monitors use, which live in a loop."""


def public(kind: type[Any]) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")}


def signature(function: Any) -> tuple[list[inspect.Parameter], str]:
    """Parameters with defaults and annotations, and what is returned, without the difference that there must be."""
    shape = inspect.signature(function)
    returned = re.sub(r"\bAsync(Iterator|Generator)\b", "Iterator", str(shape.return_annotation))
    return list(shape.parameters.values()), re.sub(r"\bSyncRun\b", "Run", returned)


def differences(sync: type[Any], other: type[Any]) -> Iterator[str]:
    """What the blocking class has otherwise than the asynchronous one."""
    names = public(other) - ASYNC_ONLY
    yield from sorted(public(sync) ^ names)
    for name in sorted(public(sync) & names):
        ours, theirs = vars(sync)[name], vars(other)[name]
        if callable(ours) != callable(theirs):
            yield f"{name} is a method of one of them"
        elif callable(ours):
            if signature(ours) != signature(theirs):
                yield f"{name}{inspect.signature(ours)} beside {inspect.signature(theirs)}"
            if inspect.iscoroutinefunction(ours) or inspect.isasyncgenfunction(ours):
                yield f"{name} does not block"


@pytest.mark.parametrize(("sync", "other"), PAIRS)
def test_both_are_the_same_but_for_blocking(sync: type[Any], other: type[Any]) -> None:
    assert list(differences(sync, other)) == []


def test_both_clients_are_made_alike() -> None:
    assert signature(SyncClient.__init__) == signature(Client.__init__)


def test_both_contexts_know_the_same_facts() -> None:
    assert SyncContext.__bases__ == Context.__bases__


class Grown(Context[Any]):
    async def send(self, target: Any, message: Any, *, delay: float = 0.0) -> None: ...

    async def start(self, target: Any, message: Any, **options: Any) -> str:
        raise NotImplementedError

    async def broadcast(self, message: Any) -> None: ...


def test_a_context_that_grows_alone_is_noticed() -> None:
    assert [said.partition("(")[0] for said in differences(SyncContext, Grown)] == ["broadcast", "send", "start"]


def test_a_client_that_is_not_open_says_how_to_open_it() -> None:
    with pytest.raises(CorralError, match="with SyncClient"):
        SyncClient("nats://127.0.0.1:1").runs()
