"""The bookkeeper's checkpoint, for those who only watch: nothing is changed.

How its keys fit together stands at the top of `checkpoints`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from corral.checkpoints import Anchor, decode_anchor, decode_head
from corral.client import Client
from corral.jetstream import direct
from corral.jetstream.records import Entry
from corral.jetstream.topology import last_sequence
from corral.ledger import Ledger
from corral.runs import Record
from corral.snapshot import thaw
from corral.subjects import LEDGER_ANCHOR_KEY, LEDGER_KEYS, ledger_key, ledger_part_key

log = logging.getLogger(__name__)


class Checkpoint(NamedTuple):
    """What was folded up to an event; a live run that is neither here nor doubtful had no event before it."""

    sequence: int
    """The event behind which to read on."""
    time: float
    """When it was stored, in seconds since the epoch."""
    ledgers: dict[str, Ledger]
    doubtful: frozenset[str]
    """Live runs whose ledger could not be read."""


async def read_checkpoint(client: Client, live: Mapping[str, Record]) -> Checkpoint | None:
    """The ledgers of the runs that are live, by their records; None if there is no checkpoint that can be trusted.

    Raises:
        CorralError: it cannot be read; PermissionDenied at once where this user may not.
    """
    operations = client.operations
    entries = {entry.key: entry for entry in await operations.records.entries(LEDGER_KEYS)}
    anchor = await _sure_anchor(client, entries.get(LEDGER_ANCHOR_KEY))
    if anchor is None:
        return None
    ledgers: dict[str, Ledger] = {}
    doubtful: set[str] = set()
    for run_id, record in live.items():
        head = entries.get(ledger_key(run_id))
        if head is None:
            continue
        try:
            ledgers[run_id] = _ledger(record, head, entries)
        except (ValueError, KeyError) as error:
            # It was written anew meanwhile, or is of a round that is over.
            log.debug("a ledger is not used", extra={"run": run_id, "error": str(error)})
            doubtful.add(run_id)
    return Checkpoint(anchor.sequence, anchor.time, ledgers, frozenset(doubtful))


async def _sure_anchor(client: Client, entry: Entry | None) -> Anchor | None:
    """The anchor, if its event is still there, or was removed on purpose."""
    if entry is None:
        return None
    try:
        anchor = decode_anchor(entry.value)
    except msgspec.DecodeError:
        return None
    connection, stream = client.connection, client.operations.names.events_stream
    stored = await direct.at(connection, stream, anchor.sequence)
    if stored is None:
        return anchor if await last_sequence(connection, stream) >= anchor.sequence else None
    return anchor if anchor.holds(stored) else None


def _ledger(record: Record, entry: Entry, entries: Mapping[str, Entry]) -> Ledger:
    head = decode_head(entry.value)
    if head.round != record.round:
        raise ValueError("of another round")
    keys = [ledger_part_key(record.id, head.token, number) for number in range(head.parts)]
    return thaw(b"".join([entries[key].value for key in keys]) if keys else head.data)
