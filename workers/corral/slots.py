"""How a worker's free slots are shared between the topics that it serves. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Demand:
    """What one topic could use."""

    room: int
    """Tasks that it may still run, beside those that it runs and those that were asked for."""
    asked: int
    """Asked for and not yet delivered."""
    backlog: int
    """Messages that wait, as far as known; None of them is known to be there when it is 0."""
    recent: int
    """Delivered since the last request: where some came, more may come."""


def share(free: int, demands: Sequence[Demand]) -> list[int]:
    """How many more messages to ask for, by topic.

    What is free goes first to the topics that are known to have messages, in fair parts; then to those where some came
    lately. Every other one asks for a single message, so that a message that comes is noticed at once. Those single
    messages are all that a worker may get beyond its slots.
    """
    if len(demands) == 1:
        only = demands[0]
        return [max(0, min(only.room, free - only.asked))]
    left = free - sum(demand.asked for demand in demands if demand.asked > 1)
    asks = [0] * len(demands)
    for wants in (
        [min(demand.backlog - demand.asked, demand.room) for demand in demands],
        [min(2 * demand.recent - demand.asked, demand.room) if not demand.backlog else 0 for demand in demands],
    ):
        left -= _deal(left, wants, asks)
    for index, demand in enumerate(demands):
        if asks[index] == 0 and demand.asked == 0 and demand.room > 0 and free > 0:
            asks[index] = 1
    return asks


def _deal(left: int, wants: Sequence[int], asks: list[int]) -> int:
    """Deal `left` in fair parts to those who want some; how many were dealt."""
    eager = sorted((want, index) for index, want in enumerate(wants) if want > 0)
    dealt = 0
    for place, (want, index) in enumerate(eager):
        part = min(want, max(0, left - dealt) // (len(eager) - place))
        asks[index] += part
        dealt += part
    return dealt
