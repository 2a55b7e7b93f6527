"""A ledger as bytes, and back: what a bookkeeper stores, so that the next one need not fold from the beginning. Pure.

The bytes say all that the ledger knows, up to the sequence of the last event that it was given. They are binary
(MessagePack, compressed): a run of a million tasks is some 100 kB, one of a few tasks some 200 bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import msgspec

from corral import bitmap
from corral.batch import Batch, Cap
from corral.bitmap import Bitmap
from corral.decoding import packed_decoder
from corral.events import Interrupted, Receipt, Reopened
from corral.ledger import Ledger
from corral.messages import TaskId
from corral.parts import Parts
from corral.tree import Tree

_VERSION = 1
_LARGEST = 1 << 30
"""Bytes that a snapshot may have: one that claims more is none."""

Bits = dict[int, bytes]
"""A bitmap: page number -> its bits, lowest first."""


class _Batch(msgspec.Struct, array_like=True):
    """See `Batch`, whose fields these are."""

    id: int
    parent: TaskId
    sent: int
    cap: Cap
    topics: dict[str, Bits]
    ended: Bits
    error: Bits
    interrupted: Bits
    waiting: Bits
    attempts: dict[int, int]
    dispatchers: Bits
    late: Bits
    killed: Bits
    removed: Bits
    reopened: dict[int, Bits]


class _Ledger(msgspec.Struct, array_like=True):
    """See `Ledger` and `Tree`, whose fields these are."""

    version: int
    page: int
    topic: str
    sequence: int
    stored_at: float
    round: int
    over: bool
    status: str
    receipt: Receipt | None
    interrupt: Interrupted | None
    interrupted_at: float | None
    first_at: float | None
    last_at: float | None
    durations: dict[int, int]
    waits: dict[int, int]
    numbers: dict[str, int]
    crashes: list[tuple[TaskId, int]]
    crashed: list[str]
    parts: list[Reopened]
    batches: list[_Batch]
    chains: list[tuple[TaskId, dict[int, Cap]]]


_encode = msgspec.msgpack.Encoder().encode
_decode: Callable[[bytes], _Ledger] = packed_decoder(_Ledger, "a snapshot")


def freeze(ledger: Ledger) -> bytes:
    """All that `ledger` knows."""
    tree = ledger.tree
    state = _Ledger(
        version=_VERSION,
        page=bitmap.PAGE,
        topic=tree.topic,
        sequence=ledger.sequence,
        stored_at=ledger.stored_at,
        round=ledger.round,
        over=ledger.over,
        status=ledger.status,
        receipt=ledger.receipt,
        interrupt=ledger.interrupt,
        interrupted_at=ledger.interrupted_at,
        first_at=ledger.first_at,
        last_at=ledger.last_at,
        durations=ledger.durations,
        waits=ledger.waits,
        numbers=ledger.numbers,
        crashes=list(ledger.crash_counts.items()),
        crashed=sorted(ledger.crashed),
        parts=list(ledger.parts),
        batches=[_freeze_batch(batch) for batch in tree.batches.values()],
        chains=list(tree.chains.items()),
    )
    return zlib.compress(_encode(state), level=1)


def thaw(data: bytes) -> Ledger:
    """The ledger that was frozen.

    Raises:
        ValueError: it was not, or by another version; msgspec.DecodeError is one.
    """
    state = _decode(_unpack(data))
    if (state.version, state.page) != (_VERSION, bitmap.PAGE):
        raise ValueError(f"a snapshot of version {state.version} with pages of {state.page}")
    ledger = Ledger(state.topic)
    ledger.tree = _thaw_tree(state)
    ledger.sequence = state.sequence
    ledger.stored_at = state.stored_at
    ledger.round = state.round
    ledger.over = state.over
    ledger.status = state.status
    ledger.receipt = state.receipt
    ledger.interrupt = state.interrupt
    ledger.interrupted_at = state.interrupted_at
    ledger.first_at = state.first_at
    ledger.last_at = state.last_at
    ledger.durations = state.durations
    ledger.waits = state.waits
    ledger.numbers = state.numbers
    ledger.crash_counts = dict(state.crashes)
    ledger.crashed = set(state.crashed)
    ledger.parts = Parts(state.parts)
    return ledger


def _unpack(data: bytes) -> bytes:
    inflate = zlib.decompressobj()
    try:
        plain = inflate.decompress(data, _LARGEST)
    except zlib.error as error:
        raise ValueError(f"no snapshot: {error}") from None
    if not inflate.eof:
        raise ValueError("a snapshot that is cut short, or too large")
    return plain


def _thaw_tree(state: _Ledger) -> Tree:
    tree = Tree(state.topic)
    tree.batches = {each.id: _thaw_batch(each) for each in state.batches}
    if 0 not in tree.batches:
        raise ValueError("a snapshot without its root")
    tree.root = tree.batches[0]
    tree.chains = dict(state.chains)
    tree.weigh_all()
    return tree


def _freeze_batch(batch: Batch) -> _Batch:
    return _Batch(
        id=batch.id,
        parent=batch.parent,
        sent=batch.sent,
        cap=batch.cap,
        topics={topic: bits.packed() for topic, bits in batch.topics.items()},
        ended=batch.ended.packed(),
        error=batch.error.packed(),
        interrupted=batch.interrupted.packed(),
        waiting=batch.waiting.packed(),
        attempts=batch.attempts,
        dispatchers=batch.dispatchers.packed(),
        late=batch.late.packed(),
        killed=batch.killed.packed(),
        removed=batch.removed.packed(),
        reopened={round: bits.packed() for round, bits in batch.reopened.items()},
    )


def _thaw_batch(state: _Batch) -> Batch:
    batch = Batch(state.id, state.parent)
    batch.sent = state.sent
    batch.cap = state.cap
    batch.topics = {topic: Bitmap.of_packed(bits) for topic, bits in state.topics.items()}
    batch.ended = Bitmap.of_packed(state.ended)
    batch.error = Bitmap.of_packed(state.error)
    batch.interrupted = Bitmap.of_packed(state.interrupted)
    batch.waiting = Bitmap.of_packed(state.waiting)
    batch.attempts = state.attempts
    batch.dispatchers = Bitmap.of_packed(state.dispatchers)
    batch.late = Bitmap.of_packed(state.late)
    batch.killed = Bitmap.of_packed(state.killed)
    batch.removed = Bitmap.of_packed(state.removed)
    batch.reopened = {round: Bitmap.of_packed(bits) for round, bits in state.reopened.items()}
    return batch
