"""The log of one dispatcher: what its executions have said that they sent, each behind what was said before.

It belongs to this task alone, and an event is stored in it only if nobody else has stored one since. So an execution
that was taken for dead and goes on finds its next event refused, and stops.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from corral.errors import CorralError, PermissionDenied, Superseded, TooLarge, WrongLastSequence
from corral.events import AnyEvent, Opened, Sent, encode_event

log = logging.getLogger(__name__)

PAUSE = 1.0
"""Seconds between two tries to read the log, or to store what was refused or not confirmed."""


class Storage(Protocol):
    """Where it is stored: the JetStream publisher."""

    async def store(self, subject: str, payload: bytes, *, expect: int | None = None) -> int:
        """Store a message behind the expected one; its sequence."""
        ...


class ReadLog(Protocol):
    """Reads a dispatcher's log."""

    async def __call__(self, subject: str) -> list[tuple[int, AnyEvent]]:
        """Its events with their sequences, oldest first."""
        ...


class DispatchLog:
    """What one execution reads of the log, and appends to it. An outage is waited out."""

    def __init__(self, subject: str, run_id: str, storage: Storage, read_log: ReadLog) -> None:
        self._subject = subject
        self._run_id = run_id
        self._storage = storage
        self._read_log = read_log
        self._last = 0

    async def read(self) -> list[tuple[int, AnyEvent]]:
        """What was said before, oldest first; what is appended from now on goes behind it.

        Raises:
            PermissionDenied: this user may not read it.
        """
        said = await self._surely_read()
        self._last = said[-1][0] if said else 0
        return said

    async def append(self, event: Opened | Sent) -> int:
        """Store an event behind the last one that is known here; its sequence.

        Raises:
            Superseded: another execution of this task has appended meanwhile.
            TooLarge, PermissionDenied: it can never be stored.
        """
        data = encode_event(event)
        while True:
            try:
                self._last = await self._storage.store(self._subject, data, expect=self._last)
            except WrongLastSequence:
                # Perhaps by our own first try, the answer to which was lost.
                said = await self._surely_read()
                if not said or said[-1][0] <= self._last or _nonce_of(said[-1][1]) != event.nonce:
                    raise Superseded from None
                self._last = said[-1][0]
            except (TooLarge, PermissionDenied):
                raise
            except CorralError as error:
                log.warning("an event of a fan-out is not stored yet", extra={"run": self._run_id, "error": str(error)})
                await asyncio.sleep(PAUSE)
                continue
            return self._last

    async def _surely_read(self) -> list[tuple[int, AnyEvent]]:
        while True:
            try:
                return await self._read_log(self._subject)
            except PermissionDenied:
                raise
            except CorralError as error:
                log.warning("a fan-out's log is not read yet", extra={"run": self._run_id, "error": str(error)})
                await asyncio.sleep(PAUSE)


def _nonce_of(event: AnyEvent) -> str:
    return event.nonce if isinstance(event, Opened | Sent) else ""
