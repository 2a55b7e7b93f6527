"""How a run is started: a row of steps, each of which may be done again.

    record `starting` -> unique key -> record `queued` -> root message        (with a key)
    record `queued` -> root message                                           (without)

Each step is a compare-and-set. A refused one is a success if the record has moved past it, since the bookkeeper
finishes what a dead producer left; it is a failure only if the record was aborted.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal, get_args

import msgspec

from corral.errors import BadName, Conflict, DuplicateRun, RunExists, StorageFull, Unconfirmed
from corral.headroom import Headroom
from corral.jetstream.connection import Connection
from corral.jetstream.publisher import Publisher
from corral.jetstream.records import Records
from corral.keys import decode_topic, render_json
from corral.messages import ROOT, TaskId, body_limit, check_body, check_json, encode_body, encode_task
from corral.processor import Processor, Topic, target_name
from corral.runs import Record, decode_record, encode
from corral.settings import Settings
from corral.subjects import Names, check_key, check_run_id, check_topic, holder_of, run_key, topic_key, unique_key
from corral.system import new_run_id, short_id

log = logging.getLogger(__name__)

OnDuplicate = Literal["reject", "join", "replace"]
"""What to do while another run holds the key. `queue` is reserved."""
ABORTED_TTL = 3600.0
"""Seconds for which the record of a refused start is kept."""
TRIES = 50
"""Compare-and-sets that are lost in a row before a start gives up."""


class Starter:
    """Starts runs. `by` is written into what it stores, for people to read."""

    def __init__(
        self, connection: Connection, records: Records, publisher: Publisher, names: Names, settings: Settings
    ) -> None:
        self._connection = connection
        self._records = records
        self._publisher = publisher
        self._names = names
        self._settings = settings
        self._headroom = Headroom(connection, names)

    async def start(
        self,
        target: Topic[Any] | Processor[Any, ..., Any] | str,
        message: Any,
        *,
        unique: str | None = None,
        on_duplicate: OnDuplicate = "reject",
        id: str | None = None,
        replace: Callable[[str], Awaitable[object]] | None = None,
    ) -> str:
        """Encode the message and start a run; see `Client.start`."""
        topic = target_name(target)
        body = encode_body(topic, message, body_limit(self._connection.max_payload))
        if unique is None and isinstance(target, Processor):
            # The processor is here, so what it declares is known, be it a function or nothing at all.
            unique, ask = _declared_key(target, body), False
        else:
            ask = unique is None
        return await self._start(topic, body, unique, ask=ask, on_duplicate=on_duplicate, id=id, replace=replace)

    async def start_raw(
        self,
        topic: str,
        body: bytes,
        *,
        unique: str | None = None,
        on_duplicate: OnDuplicate = "reject",
        id: str | None = None,
        replace: Callable[[str], Awaitable[object]] | None = None,
    ) -> str:
        """Start a run of a topic with a body that is JSON already; returns its id, or with `join` the holder's.

        `replace(holder)` is awaited to end the holder of the key, where `on_duplicate` is "replace".
        """
        check_json(check_topic(topic), check_body(topic, body, body_limit(self._connection.max_payload)))
        return await self._start(
            topic, body, unique, ask=unique is None, on_duplicate=on_duplicate, id=id, replace=replace
        )

    async def _start(
        self,
        topic: str,
        body: bytes,
        unique: str | None,
        *,
        ask: bool,
        on_duplicate: OnDuplicate,
        id: str | None,
        replace: Callable[[str], Awaitable[object]] | None,
    ) -> str:
        check_on_duplicate(on_duplicate)
        if ask:
            unique = await self._published_key(topic, body)
        key = check_key(unique) if unique is not None else None
        run_id = check_run_id(id) if id is not None else new_run_id()
        known = id is not None and await self._is_known(run_id)
        holder = await self.holder(key) if key is not None and not known else None
        others = holder is not None and holder != run_id
        if others and (on_duplicate != "replace" or replace is None):
            # Most refusals end here, before anything is written.
            return self._refused(str(key), str(holder), on_duplicate)
        async with contextlib.nullcontext() if known else self._headroom.taken(len(body)):
            if others and replace is not None:
                await replace(str(holder))
            return await self._store(run_id, topic, body, key, on_duplicate, replace)

    async def _store(  # noqa: PLR0917
        self,
        run_id: str,
        topic: str,
        body: bytes,
        key: str | None,
        on_duplicate: OnDuplicate,
        replace: Callable[[str], Awaitable[object]] | None,
    ) -> str:
        record = Record(
            id=run_id,
            topic=topic,
            body=msgspec.Raw(body),
            state="queued" if key is None else "starting",
            created_at=time.time(),
            unique=key,
        )
        try:
            revision = await self._records.create(run_key(run_id), encode(record))
        except Conflict:
            fresh = record
            record, revision = await self._same_run(fresh)
            known = record is not fresh
        else:
            known = False
        while record.state == "starting" and key is not None:
            held_by = await self.take_key(key, run_id)
            if held_by is None:
                record, revision = await self._move(record, revision, "queued")
            elif on_duplicate == "replace" and replace is not None:
                await replace(held_by)
            else:
                await self._move(record, revision, "aborted")
                return self._refused(key, held_by, on_duplicate)
        if record.state == "aborted":
            await self.free_key(record)  # it may have been taken after the start was undone
            raise Unconfirmed(f"the start of run {run_id} took so long that it was undone; start it again")
        if record.state == "queued" and record.round == 0:
            await self._publish_root(record, revision, undo=not known)
        return run_id

    async def holder(self, key: str) -> str | None:
        """The id of the live run that holds a key; None if it is free."""
        entry = await self._records.get(unique_key(key), leader=True)
        if entry is None:
            return None
        run_id = holder_of(entry.value)
        held = await self._records.get(run_key(run_id), leader=True)
        return run_id if held is not None and decode_record(held.value).live else None

    async def _published_key(self, topic: str, body: bytes) -> str | None:
        """The key that pools say the topic's processor declares, as far as a template can tell it.

        Else, as where a function makes it, the worker takes the key before the root runs.
        """
        entry = await self._records.get(topic_key(topic))
        if entry is None:
            return None
        published = decode_topic(entry.value)
        if published.unique is None:
            return None
        key = render_json(published.unique, published.fields, body)
        try:
            return None if key is None else check_key(key)
        except BadName:
            return None  # which the worker finds too: the run ends as error

    # --- the steps ---------------------------------------------------------------------------------

    def _refused(self, key: str, holder: str, on_duplicate: OnDuplicate) -> str:
        if on_duplicate == "join":
            return holder
        raise DuplicateRun(key, holder)

    async def _is_known(self, run_id: str) -> bool:
        """Whether a run of this id was started before, and not undone."""
        entry = await self._records.get(run_key(run_id), leader=True)
        return entry is not None and decode_record(entry.value, run_id).state != "aborted"

    async def _same_run(self, fresh: Record) -> tuple[Record, int]:
        """The record that exists under this id already: if it is of the same message, the start goes on with it.

        In the place of one that was refused or undone, of which nothing is left, stands the fresh one.
        """
        while True:
            entry = await self._records.get(run_key(fresh.id), leader=True)
            if entry is None:
                # Refused because of a write that is not stored, and may never be: of a cluster's leader that lost
                # its others, or of one that has just gone.
                raise Unconfirmed(f"the record of run {fresh.id}")
            record = decode_record(entry.value, fresh.id)
            if record.topic != fresh.topic or bytes(record.body) != bytes(fresh.body):
                raise RunExists(fresh.id)
            if record.state != "aborted":
                return record, entry.revision
            try:
                return fresh, await self._records.update(entry.key, encode(fresh), entry.revision)
            except Conflict:
                continue  # somebody else has started it again

    async def take_key(self, key: str, run_id: str) -> str | None:
        """Make the run the holder of the key. The other holder's id if it is held by a live run; None when it is ours.

        A key whose holder is dead is taken over, and one that names this run is written anew, so that who is about
        to free it by its old revision misses.
        """
        name = unique_key(key)
        for _ in range(TRIES):
            entry = await self._records.get(name, leader=True)
            try:
                if entry is None:
                    await self._records.create(name, run_id.encode())
                    return None
                holder = holder_of(entry.value)
                if holder != run_id:
                    held = await self._records.get(run_key(holder), leader=True)
                    if held is not None and decode_record(held.value).live:
                        return holder
                await self._records.update(name, run_id.encode(), entry.revision)
            except Conflict:
                continue
            else:
                return None
        raise Unconfirmed(f"taking the unique key {key!r}: too many others want it")

    async def _move(self, record: Record, revision: int, state: Literal["queued", "aborted"]) -> tuple[Record, int]:
        """The next step of a starting record, or what somebody else made of it."""
        moved = msgspec.structs.replace(record, state=state)
        ttl = ABORTED_TTL if state == "aborted" else None
        try:
            return moved, await self._records.update(run_key(record.id), encode(moved), revision, ttl=ttl)
        except Conflict:
            entry = await self._records.get(run_key(record.id), leader=True)
            if entry is None:
                return msgspec.structs.replace(record, state="aborted"), revision
            return decode_record(entry.value, record.id), entry.revision

    async def _publish_root(self, record: Record, revision: int, *, undo: bool) -> None:
        """With `undo` a start that the server has no room for did not happen; else it was accepted before."""
        message = encode_task(ROOT, 0, bytes(record.body))
        try:
            await self._publisher.store(self._names.task(record.id, record.topic), message)
        except StorageFull:
            if not undo:
                raise
            # Refused for certain: the run does not exist. Unless somebody else has published its root meanwhile.
            undone, _ = await self._move(record, revision, "aborted")
            if undone.state == "aborted":
                await self.free_key(record)
                raise

    async def free_key(self, record: Record) -> None:
        """Let go of the key of a run that is aborted, if it still names that run.

        Who starts the run again takes the key after its record: then either the record is seen to be live here, or the
        key has another revision.
        """
        if record.unique is None:
            return
        entry = await self._records.get(unique_key(record.unique), leader=True)
        if entry is None or holder_of(entry.value) != record.id or await self._is_known(record.id):
            return
        try:
            await self._records.delete(entry.key, entry.revision)
        except Conflict:
            log.info("the key was taken over already", extra={"run": record.id})


def check_on_duplicate(policy: OnDuplicate) -> None:
    """ValueError if it is none: one that is misspelt is not to be taken for `reject`."""
    known = get_args(OnDuplicate)
    if policy not in known:
        raise ValueError(f"on_duplicate is {', '.join(known[:-1])} or {known[-1]}, not {policy!r}")


def _declared_key(processor: Processor[Any, ..., Any], body: bytes) -> str | None:
    """The key of the message as the worker will decode it: a caller may have put a 7 where the type says float."""
    if processor.unique is None:
        return None
    try:
        message = processor.topic.decode(body)
    except Exception:  # noqa: BLE001  # a message's own __post_init__ may raise anything
        return None  # the task will end as error by itself
    return processor.key(message)


def child_id(run_id: str, task: TaskId, number: int) -> str:
    """The id of the run that a task starts with its call of that number: the same in every execution of the task."""
    text = f"{run_id} {task[0]} {task[1]} {number}"
    return short_id(hashlib.blake2b(text.encode(), digest_size=16).digest())
