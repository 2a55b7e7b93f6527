"""The order to leave, which an operator gives to workers and pools: what is said, and to whom a name refers.

    drain   take nothing new, let end what is executed, hand back what takes longer than the pool's drain time-out
    stop    hand back everything at once

Nobody takes the place of a worker that was told to leave; a pool ends with its last worker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import msgspec

from corral.decoding import decoder
from corral.errors import WorkerNotFound
from corral.runs import Beat

How = Literal["drain", "stop"]


class Leave(msgspec.Struct, frozen=True):
    """The order. It may be said again: to who leaves already it is none, unless `stop` follows `drain`."""

    how: How
    workers: list[str]
    pools: list[str]
    """All workers of these, and none are started any more."""
    by: str = ""
    """Who gives it, for the log."""


class Departure(msgspec.Struct, frozen=True, kw_only=True):
    """What has come of the order to one worker."""

    id: str
    pool: str
    host: str
    running: int
    """Tasks that it executed when it was told."""
    confirmed: float
    """Seconds after which the worker itself said that it leaves."""
    gone: bool
    """Whether it has left by now."""


decode_leave: Callable[[bytes], Leave] = decoder(Leave, "an order to leave")
encode_leave: Callable[[Leave], bytes] = msgspec.json.Encoder().encode


def chosen(names: Sequence[str], heard: Iterable[Beat]) -> tuple[list[Beat], list[str]]:
    """The workers that `names` mean, and which of them are meant as pools.

    A name is the id of a worker or of a pool, or the first characters of one alone.

    Raises:
        WorkerNotFound: a name means none of them, or several.
    """
    beats = {beat.id: beat for beat in heard}
    pools = {beat.pool for beat in beats.values()}
    found: dict[str, Beat] = {}
    whole: list[str] = []
    for name in names:
        fitting = _fitting(name, pools) or _fitting(name, beats)
        if len(fitting) != 1:
            raise WorkerNotFound(name, fitting)
        (only,) = fitting
        if only in pools:
            whole.append(only)
            found.update({beat.id: beat for beat in beats.values() if beat.pool == only})
        else:
            found[only] = beats[only]
    return list(found.values()), list(dict.fromkeys(whole))


def _fitting(name: str, known: Iterable[str]) -> list[str]:
    """The one of that name, or all that begin so."""
    names = sorted(known)
    return [name] if name in names else [each for each in names if name and each.startswith(name)]
