"""All tasks of a run in one row, batch after batch, and what has become of them: the model of the task map.

A cell stands for so many neighbours and shows the worst of them. Tasks are kept as planes of bits, so that a million of
them cost some hundred kilobytes and a map of them some milliseconds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import accumulate

from corral.batch import Batch
from corral.bitmap import PAGE, Bitmap
from corral.ledger import Ledger
from corral.messages import ROOT, TaskId

NOTHING, PENDING, PARTLY, MOSTLY, NEARLY, SUCCESS, RUNNING, RETRYING, INTERRUPTED, ERROR = range(10)
"""What a cell shows. Between `PENDING` and `SUCCESS`: the share that has ended; `RUNNING` is what was overtaken, or is
named by a worker."""
_PLANES = ("known", "ended", "error", "interrupted", "retrying", "running")
_FULL = (1 << PAGE) - 1


@dataclass(frozen=True, slots=True)
class Tally:
    """What has become of some neighbours."""

    total: int = 0
    pending: int = 0
    running: int = 0
    """Open, and named by a worker, or overtaken by some that were sent later: in some worker's hands."""
    retrying: int = 0
    success: int = 0
    error: int = 0
    interrupted: int = 0


class Plane:
    """A set of places in the row."""

    __slots__ = ("pages",)

    def __init__(self) -> None:
        self.pages: dict[int, int] = {}

    def put(self, ordinals: Bitmap, offset: int) -> None:
        """Add a batch's ordinals, which begin at `offset`."""
        into = self.pages
        for page, packed in ordinals.packed().items():
            first, shift = divmod(offset + page * PAGE, PAGE)
            bits = int.from_bytes(packed, "little") << shift
            if low := bits & _FULL:
                into[first] = into.get(first, 0) | low
            if high := bits >> PAGE:
                into[first + 1] = into.get(first + 1, 0) | high

    def part(self, first: int, last: int) -> int:
        """The bits from `first` up to and without `last`, the lowest for `first`."""
        page, shift = divmod(first, PAGE)
        width = last - first
        found = self.pages.get(page, 0) >> shift
        at = PAGE - shift
        while at < width:
            page += 1
            found |= self.pages.get(page, 0) << at
            at += PAGE
        return found & ((1 << width) - 1)

    def next(self, place: int) -> int | None:
        """The first place from this one on that is in it."""
        edge, shift = divmod(place, PAGE)
        for page in sorted(page for page in self.pages if page >= edge):
            bits = self.pages[page] >> shift << shift if page == edge else self.pages[page]
            if bits:
                return page * PAGE + (bits & -bits).bit_length() - 1
        return None


class TaskMap:
    """The row of tasks as of the last `update`."""

    def __init__(self) -> None:
        self.total = 0
        self._planes = {name: Plane() for name in _PLANES}
        self._batches: list[int] = []
        self._starts: list[int] = []
        """Where each batch begins."""

    def update(
        self, ledger: Ledger, tops: Mapping[tuple[int, str], int], at_work: Collection[TaskId] = frozenset()
    ) -> None:
        """Take over what the ledger says; `tops` is how far each batch and topic is, `at_work` what workers name."""
        batches = [batch for batch in ledger.tree.counting() if batch.id or ledger.root_counts]
        lengths = [batch.known().within(batch.cap).top() for batch in batches]
        self._batches = [batch.id for batch in batches]
        self._starts = [0, *accumulate(lengths)][:-1] if batches else []
        self.total = sum(lengths)
        planes = {name: Plane() for name in _PLANES}
        for batch, start in zip(batches, self._starts, strict=True):
            _fill(planes, batch, start, tops)
            for task in at_work:
                if task[0] == batch.id and task[1] in batch.known().within(batch.cap):
                    one = Bitmap.of_one(task[1]).minus(batch.ended).minus(batch.waiting)
                    planes["running"].put(one, start)
        self._planes = planes

    # --- places and tasks --------------------------------------------------------------------------

    def task(self, place: int) -> TaskId | None:
        """The task at a place in the row."""
        if not 0 <= place < self.total:
            return None
        index = bisect_right(self._starts, place) - 1
        return self._batches[index], place - self._starts[index]

    def place(self, task: TaskId) -> int | None:
        """Where a task stands; None if it does not count."""
        try:
            place = self._starts[self._batches.index(task[0])] + task[1]
        except ValueError:
            return None
        return place if self.task(place) == task else None

    def state(self, place: int) -> int:
        """What has become of one task."""
        return self.cells(place, 1, 1)[0]

    def next_bad(self, place: int) -> int | None:
        """The next error or interrupted task from this place on, or else from the beginning; None if there is none."""
        planes = [self._planes["error"], self._planes["interrupted"]]
        for start in (place, 0):
            found = [at for plane in planes if (at := plane.next(start)) is not None]
            if found:
                return min(found)
        return None

    def worst_in(self, first: int, last: int) -> int:
        """The place of the worst among these, the first of its kind."""
        for name in ("error", "interrupted", "retrying", "running"):
            if bits := self._planes[name].part(first, min(last, self.total)):
                return first + (bits & -bits).bit_length() - 1
        return first

    # --- what is drawn -----------------------------------------------------------------------------

    def cells(self, first: int, count: int, per: int) -> bytes:
        """What `count` cells show, of `per` tasks each, from the task at `first` on."""
        known, ended, error, interrupted, retrying, running = (self._planes[name] for name in _PLANES)
        out = bytearray(count)
        for index in range(count):
            start = first + index * per
            if start >= self.total:
                break
            end = min(start + per, self.total)
            if error.part(start, end):
                out[index] = ERROR
            elif interrupted.part(start, end):
                out[index] = INTERRUPTED
            elif retrying.part(start, end):
                out[index] = RETRYING
            elif per == 1 and running.part(start, end):
                out[index] = RUNNING
            else:
                done, all_of_it = ended.part(start, end).bit_count(), known.part(start, end).bit_count()
                if not done:
                    out[index] = PENDING if all_of_it else NOTHING
                else:
                    out[index] = SUCCESS if done == all_of_it else PARTLY + min(2, 3 * done // all_of_it)
        return bytes(out)

    def tally(self, first: int, last: int) -> Tally:
        """What has become of the tasks from `first` up to and without `last`."""
        last = min(last, self.total)
        known, ended, error, interrupted, retrying, running = (
            self._planes[name].part(first, last).bit_count() for name in _PLANES
        )
        return Tally(
            total=known,
            pending=known - ended - running - retrying,
            running=running,
            retrying=retrying,
            success=ended - error - interrupted,
            error=error,
            interrupted=interrupted,
        )


def _fill(planes: Mapping[str, Plane], batch: Batch, start: int, tops: Mapping[tuple[int, str], int]) -> None:
    for name, bits in (
        ("known", batch.known()),
        ("ended", batch.ended),
        ("error", batch.error),
        ("interrupted", batch.interrupted),
        ("retrying", batch.waiting),
    ):
        planes[name].put(bits.within(batch.cap), start)
    if batch.id == ROOT[0]:
        return
    for topic, known in batch.topics.items():
        if top := tops.get((batch.id, topic), 0):
            overtaken = known.within(top).within(batch.cap).minus(batch.ended).minus(batch.waiting)
            planes["running"].put(overtaken, start)
