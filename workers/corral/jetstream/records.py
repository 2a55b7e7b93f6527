"""The key-value bucket of a namespace: values under keys, written by compare-and-set, some with a time to live.

The bucket is an ordinary JetStream key-value bucket, which `nats kv` reads too. The client's own
implementation is not used: its update drops the time to live, and its create fails on the marker
that an expired key leaves.
"""

from __future__ import annotations

from dataclasses import dataclass

from corral.errors import Conflict, WrongLastSequence
from corral.jetstream import direct
from corral.jetstream.connection import Connection
from corral.jetstream.publisher import Publisher
from corral.jetstream.reader import LAST_PER_SUBJECT, Reader
from corral.subjects import Names, is_key

# Seconds for which a deleted key leaves a tombstone. Whoever watches has long seen it by then.
_TOMBSTONE_TTL = 3600.0
# A second attempt writes over a tombstone; more are needed only while others write and delete the key.
_CREATE_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Entry:
    """A value of the bucket."""

    key: str
    value: bytes
    revision: int
    """The stream sequence of this value; what `update` and `delete` compare with."""
    time: float
    """When it was written, in seconds since 1970."""


class Records:
    """Reads and writes the bucket of one namespace. No call retries a lost compare-and-set."""

    def __init__(self, connection: Connection, publisher: Publisher, names: Names) -> None:
        self._connection = connection
        self._publisher = publisher
        self._names = names

    async def get(self, key: str, *, leader: bool = False) -> Entry | None:
        """The value of `key`; None if there is none, or no longer, or if it is no key but a pattern of some.

        Without `leader` a replica answers, which may be behind: for display, or before a compare-and-set.
        """
        stored = await self._last(key, leader=leader)
        return self._entry(stored) if stored is not None and stored.operation is None else None

    async def is_blank(self, key: str) -> bool:
        """Whether nothing is known of a key, not even that it was deleted or has expired."""
        return await self._last(key, leader=True) is None

    async def create(self, key: str, value: bytes, *, ttl: float | None = None) -> int:
        """Write a key that has no value, and return its revision. `ttl` is in seconds, rounded up to whole ones.

        Raises:
            Conflict: the key has a value.
            Unconfirmed: no answer; it may be written or not.
            StorageFull: no room; nothing was written.
        """
        expect = 0
        for _ in range(_CREATE_ATTEMPTS):
            try:
                return await self._publisher.store(self._names.key(key), value, expect=expect, ttl=ttl)
            except WrongLastSequence:
                stored = await self._last(key, leader=True)
                if stored is not None and stored.operation is None:
                    raise Conflict(key) from None
                # A tombstone, or one that has just gone: the key is free.
                expect = stored.sequence if stored is not None else 0
        raise Conflict(key)

    async def update(self, key: str, value: bytes, revision: int, *, ttl: float | None = None) -> int:
        """Write over exactly `revision`, and return the new one. Without `ttl` the value lasts for ever.

        Raises:
            Conflict: the key has another revision, or no value.
            Unconfirmed, StorageFull: as `create`.
        """
        try:
            return await self._publisher.store(self._names.key(key), value, expect=revision, ttl=ttl)
        except WrongLastSequence:
            raise Conflict(key) from None

    async def delete(self, key: str, revision: int) -> None:
        """Remove exactly `revision` of `key`.

        Raises:
            Conflict: the key has another revision, or no value.
            Unconfirmed, StorageFull: as `create`.
        """
        headers = {"KV-Operation": "DEL"}
        try:
            await self._publisher.store(self._names.key(key), b"", expect=revision, ttl=_TOMBSTONE_TTL, headers=headers)
        except WrongLastSequence:
            raise Conflict(key) from None

    async def entries(self, prefix: str) -> list[Entry]:
        """All values whose key starts with the tokens `prefix` ("run" or "run."; "" for all), oldest write first."""
        reader = self.watch(f"{prefix.rstrip('.')}.>" if prefix else ">")
        try:
            stored = await reader.read_all()
        finally:
            await reader.close()
        latest = {each.subject: each for each in stored}
        return [self._entry(each) for each in latest.values() if each.operation is None]

    def watch(self, pattern: str) -> Reader:
        """The last value of each key that fits `pattern` (`run.*`, `>`), then every change, tombstones included."""
        return Reader(self._connection, self._names.bucket_stream, [self._names.key(pattern)], start=LAST_PER_SUBJECT)

    async def _last(self, key: str, *, leader: bool) -> direct.Stored | None:
        if not is_key(key):
            return None  # the server would answer with some other key
        ask = direct.leader_last if leader else direct.last
        return await ask(self._connection, self._names.bucket_stream, self._names.key(key))

    def _entry(self, stored: direct.Stored) -> Entry:
        return Entry(self._names.key_of(stored.subject), stored.data, stored.sequence, stored.time)
