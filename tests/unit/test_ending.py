"""When a bookkeeper begins to end a run."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from corral.book import Book, Books
from corral.ending import Ending
from corral.events import Interrupted
from corral.ledger import Ledger
from corral.runs import Record, State


class Group:
    """Takes note of what is begun."""

    def __init__(self) -> None:
        self.begun: list[str] = []

    def create_task(self, work: Any, *, name: str) -> None:
        work.close()
        self.begun.append(name)


def begun(state: State) -> list[str]:
    """What is begun when a bookkeeper looks at an interrupted run whose record is in this state."""
    group: Any = Group()
    nothing: Any = None
    ending = Ending(
        connection=nothing,
        records=nothing,
        publisher=nothing,
        names=nothing,
        settings=nothing,
        roster=nothing,
        books=Books(),
        fold_to=lambda _: asyncio.sleep(0),
        group=group,
    )
    book = Book("r")
    book.record = Record(id="r", topic="t", body=msgspec.Raw(b"1"), state=state, created_at=0.0)
    book.open(Ledger("t"))
    book.take(Interrupted(round=0, by="somebody"), 1, 1.0)
    ending.look_at(book)
    found: list[str] = group.begun
    return found


def test_what_is_ordered_to_stop_is_ended() -> None:
    assert begun("running") == begun("interrupting") == ["end r"]


def test_what_another_bookkeeper_has_ended_is_not_ended_again() -> None:
    assert begun("final") == begun("aborted") == []
