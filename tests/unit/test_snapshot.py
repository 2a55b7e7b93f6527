"""A ledger survives as bytes; what is not such bytes is refused by name."""

from __future__ import annotations

import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral import bitmap
from corral.events import Ended, Ends, Interrupted, Opened, Outcome, Retrying, Sent
from corral.ledger import Ledger
from corral.messages import ROOT
from corral.snapshot import freeze, thaw

MILLION = 1_000_000


def a_run_of(count: int) -> Ledger:
    """Every third task has ended, every seventh of these as error, and one waits for its third attempt."""
    ledger = Ledger("spread")
    ledger.apply(Opened(parent=ROOT, nonce="n"), 1, 10.0)
    ledger.apply(Sent(batch=1, first=0, count=count, topics=["leaf"]), 2, 11.0)
    outcomes: list[tuple[int, Outcome]] = [(21, "error"), (3, "success")]
    for sequence, (step, outcome) in enumerate(outcomes, start=3):
        spans = [(ordinal, ordinal + 1) for ordinal in range(0, count, step)]
        ends = Ends(batch=1, topic="leaf", round=0, outcome=outcome, ranges=spans)
        ledger.apply(Ended(worker="w", number=sequence, tasks=[ends], durations=[(3, 4)]), sequence, 12.0)
    ledger.apply(Retrying(task=(1, 1), topic="leaf", attempt=3, delay=1.0), 6, 13.0)
    ledger.apply(Interrupted(by="me", reason="enough"), 7, 14.0)
    return ledger


def test_a_run_of_a_million_scattered_tasks_fits_in_half_a_megabyte() -> None:
    ledger = a_run_of(MILLION)
    frozen = freeze(ledger)
    assert len(frozen) < 500_000
    again = thaw(frozen)
    assert again.counts() == ledger.counts()
    assert again.tree.attempt((1, 1)) == 3
    assert again.interrupt == Interrupted(by="me", reason="enough")
    assert (again.sequence, again.stored_at, again.first_at, again.durations) == (7, 14.0, 10.0, {3: 8})


def test_what_it_says_is_what_it_said_when_it_was_frozen() -> None:
    ledger = a_run_of(100)
    frozen, before = freeze(ledger), ledger.counts()
    everything = Ends(batch=1, topic="leaf", round=0, outcome="success", ranges=[(0, 100)])
    ledger.apply(Ended(worker="w", number=9, tasks=[everything]), 9)
    assert thaw(frozen).counts() == before != ledger.counts()


@given(st.binary(max_size=200) | st.binary(max_size=200).map(zlib.compress))
def test_other_bytes_are_no_snapshot(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # whatever it says: there is no text to rely on
        thaw(data)


def test_a_snapshot_that_is_cut_short_is_refused() -> None:
    frozen = freeze(a_run_of(100))
    with pytest.raises(ValueError, match="cut short"):
        thaw(frozen[:-5])


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = freeze(a_run_of(100))
    state = msgspec.msgpack.decode(zlib.decompress(frozen))
    state[0] += 1
    with pytest.raises(ValueError, match="version 2"):
        thaw(zlib.compress(msgspec.msgpack.encode(state)))
    monkeypatch.setattr(bitmap, "PAGE", 64)
    with pytest.raises(ValueError, match="pages of 4096"):
        thaw(frozen)
