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

    A topic that is known to be busy shares what is free with the other busy ones; each quiet one asks for a single
    message, so that a message that comes is noticed at once. Those single messages are all that a worker may get
    beyond its slots.
    """
    if len(demands) == 1:
        only = demands[0]
        return [max(0, min(only.room, free - only.asked))]
    left = free - sum(demand.asked for demand in demands if demand.asked > 1)
    asks = [0] * len(demands)
    busy = []
    for index, demand in enumerate(demands):
        wanted = max(demand.backlog, 2 * demand.recent)
        if demand.room > 0 and wanted > demand.asked:
            busy.append((min(wanted - demand.asked, demand.room), index))
        elif demand.room > 0 and demand.asked == 0 and free > 0:
            asks[index] = 1
    busy.sort()
    for place, (wanted, index) in enumerate(busy):
        fair = max(left, 0) // (len(busy) - place)
        asks[index] = min(wanted, fair)
        if asks[index] == 0 and demands[index].asked == 0 and free > 0:
            asks[index] = 1
        left -= asks[index]
    return asks
