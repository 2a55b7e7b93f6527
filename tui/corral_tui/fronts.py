"""Stragglers: tasks that were overtaken long ago and have not ended.

Nobody reports when a task begins. But messages are handed out in the order in which they were sent: when a task has
ended, those of the same batch and topic that were sent before it are in some worker's hands. So what lies behind the
front as it was a while ago, is still open and waits for no further attempt, has been in work for at least that while.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from corral.bitmap import Bitmap
from corral.events import Ended, quantile
from corral.tree import Tree

STEP = 1.0
"""Seconds between two noted fronts."""
KEPT = 90
PATIENCE = 5.0
"""Seconds that a task may be overtaken by at least before it is called a straggler."""
TIMES = 4.0
"""And so many times what nearly all tasks take."""


@dataclass(frozen=True, slots=True)
class Stragglers:
    """Some tasks of a run: batch -> ordinals."""

    tasks: Mapping[int, Bitmap]
    after: float
    """Seconds for which they have been in work at least."""

    @property
    def count(self) -> int:
        return sum(bits.count() for bits in self.tasks.values())


NONE = Stragglers({}, 0.0)


class Fronts:
    """How far each batch has got, and when."""

    def __init__(self) -> None:
        self._fronts: dict[tuple[int, str], list[tuple[float, int]]] = {}
        self._since = 0

    def begin(self, batch: int) -> None:
        """A retry has brought tasks back, in any order: of batches before this one nothing is known any more."""
        self._fronts.clear()
        self._since = batch

    def note(self, event: Ended, at: float) -> None:
        """Tasks have ended."""
        for ends in event.tasks:
            if not ends.ranges or ends.batch < self._since:
                continue
            top = ends.ranges[-1][1]
            noted = self._fronts.setdefault((ends.batch, ends.topic), [(at, top)])
            if top <= noted[-1][1]:
                continue
            if at - noted[-1][0] < STEP and len(noted) > 1:
                noted[-1] = (noted[-1][0], top)
            else:
                noted.append((at, top))
                del noted[:-KEPT]

    def tops(self) -> dict[tuple[int, str], int]:
        """(batch, topic) -> one past the last ordinal that has ended."""
        return {place: noted[-1][1] for place, noted in self._fronts.items()}

    def stragglers(self, tree: Tree, durations: dict[int, int], now: float) -> Stragglers:
        """What is one at `now`, by the server's clock."""
        after = max(PATIENCE, TIMES * (quantile(durations, 0.99) or 0.0))
        found: dict[int, Bitmap] = {}
        for (batch_id, topic), noted in list(self._fronts.items()):
            batch = tree.batches.get(batch_id)
            if batch is None or batch.cap == 0:
                continue
            passed = max((top for at, top in noted if at + STEP <= now - after), default=0)
            if not passed:
                continue
            still = batch.topics.get(topic, Bitmap()).within(passed).minus(batch.ended)
            late = still.within(batch.cap).minus(batch.waiting)
            if late:
                found[batch_id] = found.get(batch_id, Bitmap()).plus(late)
        return Stragglers(found, after) if found else NONE
