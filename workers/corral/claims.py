"""The first step of a run: one message becomes its root, and the run takes the key that its processor declares."""

from __future__ import annotations

import logging
import time
from typing import Any

import msgspec

from corral.errors import Conflict, DuplicateRun
from corral.executor import Failure, failure
from corral.jetstream.records import Records
from corral.job import Job
from corral.processor import Processor
from corral.runs import Record, decode_record, encode
from corral.starter import Starter
from corral.subjects import run_key

log = logging.getLogger(__name__)


class Claims:
    """Claims runs for their root messages."""

    def __init__(self, records: Records, starter: Starter) -> None:
        self._records = records
        self._starter = starter

    async def claim(self, job: Job, processor: Processor[Any, ..., Any]) -> bool | Failure:
        """Make this message the root of its run.

        False if the run has, or can have, no use for it: it is a copy, or of an earlier round. A Failure if the run
        cannot begin: its unique key is held by another run, or cannot be told.
        """
        mine = (job.round, job.delivery.sequence)
        key = _declared(processor, job)
        while True:
            entry = await self._records.get(run_key(job.run_id), leader=True)
            if entry is None:
                log.warning("a root without a record is dropped", extra={"run": job.run_id})
                return False
            record = decode_record(entry.value, job.run_id)
            if record.claim == mine:
                if not record.live:
                    return False
                break
            if record.state != "queued" or record.round != job.round:
                return False
            # Who started the run with a key has taken it already.
            held = record.unique is not None
            claimed = _claimed(record, mine, key if isinstance(key, str) else None)
            try:
                await self._records.update(entry.key, encode(claimed), entry.revision)
            except Conflict:
                continue  # the bookkeeper writes records too: look again
            if held:
                return True
            record = claimed
            break
        if isinstance(key, Failure):
            return key if record.unique is None else True
        return await self._take_key(record)

    async def _take_key(self, record: Record) -> bool | Failure:
        """Take the key that the record names; again, if this message was delivered before."""
        if record.unique is None:
            return True
        holder = await self._starter.take_key(record.unique, record.id)
        return True if holder is None else failure(DuplicateRun(record.unique, holder))


def _claimed(record: Record, mine: tuple[int, int], key: str | None) -> Record:
    return msgspec.structs.replace(
        record,
        state="running",
        claim=mine,
        unique=record.unique or key,
        started_at=record.started_at or time.time(),
        root="running",
    )


def _declared(processor: Processor[Any, ..., Any], job: Job) -> str | Failure | None:
    """The key that the processor declares for this message; a Failure if making it fails."""
    if processor.unique is None:
        return None
    try:
        message = processor.topic.decode(job.message.body)
    except Exception:  # noqa: BLE001  # a message's own __post_init__ may raise anything
        return None  # the task will end as error by itself
    try:
        return processor.key(message)
    except Exception as error:  # noqa: BLE001  # a function of the user's
        return failure(error)
