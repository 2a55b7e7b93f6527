"""Reading a stream by asking again and again, for those who may make no consumer.

A consumer delivers under any subject that its maker names, so that who may make one can have messages copied into other
streams until they are full. Who may only look reads in this way.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence

from corral.errors import ApiError, CorralError, NoResponder, NoServer, PermissionDenied, Unconfirmed
from corral.jetstream import direct
from corral.jetstream.connection import Connection
from corral.jetstream.direct import Stored

INTERVAL = 0.2
"""Seconds between two questions while nothing new is there."""
_NS = 1_000_000_000


class Polling:
    """What an `Ephemeral` is, without a consumer. A replica answers, and may be behind for a moment."""

    def __init__(self, connection: Connection, stream: str, wake: asyncio.Event) -> None:
        self.batch: list[Stored] = []
        self.time = 0
        self.pending = 0
        self.start = 0
        self.broken = ""
        self.error: CorralError | None = None
        self.heard = True
        self._connection = connection
        self._stream = stream
        self._wake = wake
        self._filters: list[list[str]] = []  # if there are several, as tokens
        self._subject = ">"
        self._next: Mapping[str, object] = {}
        self._ahead: list[Stored] = []  # of several filters: what comes next, so that it is known whether there is any
        self._asked = asyncio.Event()
        self._asking: asyncio.Task[None] | None = None

    async def create(self, filters: Sequence[str], deliver: Mapping[str, object]) -> None:
        """Ask for the first time; `deliver` as for a consumer. Errors as `Connection.api`."""
        self._subject = _common(filters)
        if len(filters) > 1:
            self._filters = [each.split(".") for each in filters]
        match deliver:
            case {"opt_start_time": moment}:
                self._next = {"start_time": moment}
            case {"opt_start_seq": int(sequence)}:
                self._begin_at(sequence)
            case {"deliver_policy": "new"}:
                info = await self._connection.api(f"STREAM.INFO.{self._stream}")
                self._begin_at(info["state"]["last_seq"] + 1)
            case _:  # all, or the last of each subject: the bucket, of which that is read, keeps no other
                self._begin_at(1)
        await self._ask()
        self._asking = asyncio.create_task(self._ask_again(), name=f"reading {self._stream}")

    async def ask(self) -> None:
        """Ask for more, once what has come is taken."""
        self._asked.set()

    def breaks(self, reason: str) -> None:
        """What comes from now on does not count; what has come does."""
        self.broken = self.broken or reason
        self._wake.set()

    async def close(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking})

    def _begin_at(self, sequence: int) -> None:
        self._next = {"seq": sequence}
        self.start = sequence - 1

    async def _ask_again(self) -> None:
        while not self.broken:
            await self._asked.wait()
            try:
                if await self._ask():
                    self._asked.clear()
                else:
                    await asyncio.sleep(INTERVAL)
            except (NoServer, Unconfirmed, NoResponder) as error:
                self.breaks(str(error))
            except (PermissionDenied, ApiError) as error:
                self.error = error
                self.breaks(str(error))

    async def _ask(self) -> bool:
        """Whether something has come."""
        found: list[Stored] = []
        with contextlib.suppress(direct.Outage):  # whoever reads hears of it, too
            found = self._ahead or await self._more()
            self._ahead = []
            if self._filters and self.pending:
                self._ahead = await self._more()
                self.pending = len(self._ahead)
        if found:
            self.time = round(found[-1].time * _NS)
            self.batch += found
            self._wake.set()
        return bool(found)

    async def _more(self) -> list[Stored]:
        """The next messages that fit; none if all that follow do not."""
        while True:
            found, self.pending = await direct.batch(self._connection, self._stream, self._subject, self._next)
            self.heard = True
            if not found:
                self.pending = 0
                return []
            self._next = {"seq": found[-1].sequence + 1}
            if fitting := [each for each in found if self._fits(each.subject)]:
                return fitting
            if not self.pending:
                return []

    def _fits(self, subject: str) -> bool:
        return not self._filters or any(_fits(subject.split("."), each) for each in self._filters)


def _common(filters: Sequence[str]) -> str:
    """A filter that lets everything through that one of these does."""
    if len(filters) == 1:
        return filters[0]
    shared = []
    for tokens in zip(*(each.split(".")[:-1] for each in filters), strict=False):
        if len(set(tokens)) > 1 or tokens[0] == ">":
            break
        shared.append(tokens[0])
    return ".".join([*shared, ">"])


def _fits(subject: Sequence[str], wanted: Sequence[str]) -> bool:
    """As the server compares them: `*` is any part, `>` at the end one or more."""
    for index, part in enumerate(wanted):
        if part == ">":
            return len(subject) > index
        if index >= len(subject) or part not in ("*", subject[index]):
            return False
    return len(subject) == len(wanted)
