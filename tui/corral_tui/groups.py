"""Errors of one run by what they have in common: type, message without what varies, and the frame that raised them.

What is counted of a group are the tasks that stand in error now, by the ledger: a retry that brings a task back takes
it out, and of two failures of one task the last round's is the one that counts. So the groups add up to the run's
errors, as far as its failures were read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from corral.bitmap import PAGE, Bitmap
from corral.events import Failed
from corral.messages import TaskId
from corral.tree import Tree
from corral_tui.describe import error_view
from corral_tui.timeline import Timeline
from corral_tui.values import ErrorView

MOST = 500
"""Groups that are kept apart: an error of another kind counts in the last one."""
OTHERS = "others"
_VARYING = re.compile(r"0x[0-9a-fA-F]+|[0-9a-fA-F]{8,}|\d+|'[^']*'|\"[^\"]*\"")
_FRAME = re.compile(r'^  File "([^"]*)", line (\d+), in (.*)$', re.MULTILINE)
_LIBRARIES = ("/site-packages/", "/dist-packages/", "/lib/python", "<frozen ")


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupView:
    """A group, now. Times are seconds since the epoch."""

    key: str
    type: str
    message: str
    """Of the last error; `normal` is the same without what varies."""
    normal: str
    place: str
    """File, line and function of the user's frame that raised it."""
    topic: str
    count: int
    """Tasks that stand in error."""
    seen: int
    """Failures that were read, those that were retried since included."""
    first_at: float
    last_at: float
    spark: tuple[float, ...]
    """Failures over the whole time of the run's errors."""
    sample: ErrorView


class Ordinals:
    """A set of tasks that grows and shrinks one by one."""

    __slots__ = ("_pages",)

    def __init__(self) -> None:
        self._pages: dict[int, dict[int, int]] = {}

    def __contains__(self, task: TaskId) -> bool:
        page, offset = divmod(task[1], PAGE)
        return bool(self._pages.get(task[0], {}).get(page, 0) >> offset & 1)

    def add(self, task: TaskId) -> None:
        """Put a task in."""
        page, offset = divmod(task[1], PAGE)
        pages = self._pages.setdefault(task[0], {})
        pages[page] = pages.get(page, 0) | 1 << offset

    def discard(self, task: TaskId) -> None:
        """Take a task out, if it is in."""
        page, offset = divmod(task[1], PAGE)
        pages = self._pages.get(task[0], {})
        bits = pages.get(page, 0)
        if bits >> offset & 1:
            bits ^= 1 << offset
            if bits:
                pages[page] = bits
            else:
                del pages[page]

    def standing(self, tree: Tree) -> Iterator[tuple[int, Bitmap]]:
        """(batch, ordinals) of those that count and have ended as error, by the ledger."""
        for batch_id, pages in self._pages.items():
            if (batch := tree.batches.get(batch_id)) is not None:
                yield batch_id, Bitmap(pages).both(batch.error).within(batch.cap)


class _Group:
    __slots__ = ("first_at", "key", "last_at", "sample", "seen", "tasks", "timeline")

    def __init__(self, key: str, sample: ErrorView) -> None:
        self.key = key
        self.sample = sample
        self.seen = 0
        self.first_at = self.last_at = sample.at
        self.tasks = Ordinals()
        self.timeline = Timeline()


class Groups:
    """The groups of one run's errors, the latest of each as its sample."""

    def __init__(self, most: int = MOST) -> None:
        self._groups: dict[str, _Group] = {}
        self._seen: dict[int, Ordinals] = {}
        """By round: what failed in it."""
        self._most = most
        self._views: tuple[tuple[int, int], list[GroupView]] = ((-1, -1), [])
        self._failures = 0

    def __len__(self) -> int:
        return len(self._groups)

    def apply(self, at: float, event: Failed) -> ErrorView | None:
        """A task has failed; None if its failure in this round is known (a worker was taken for dead)."""
        seen = self._seen.setdefault(event.round, Ordinals())
        if event.task in seen:
            return None
        seen.add(event.task)
        if len(self._seen) > 1:
            for group in self._groups.values():
                group.tasks.discard(event.task)
        key = event.fingerprint or fingerprint(event)
        if key not in self._groups and len(self._groups) >= self._most:
            key = OTHERS
        sample = error_view(at, event, group=key)
        group = self._groups.setdefault(key, _Group(key, sample))
        group.sample = sample
        group.seen += 1
        group.last_at = at
        group.tasks.add(event.task)
        group.timeline.add(at)
        self._failures += 1
        return sample

    def views(self, tree: Tree, sequence: int) -> list[GroupView]:
        """All groups, the largest first; `sequence` is the last event in the tree."""
        if self._views[0] != (sequence, self._failures):
            views = [_view(group, tree) for group in self._groups.values()]
            views.sort(key=lambda view: (-view.count, -view.seen, view.first_at, view.key))
            self._views = (sequence, self._failures), views
        return self._views[1]

    def standing(self, keys: Iterable[str], tree: Tree) -> list[TaskId]:
        """The tasks of some groups that stand in error."""
        groups = [self._groups[key] for key in keys if key in self._groups]
        return sorted(
            (batch, ordinal) for group in groups for batch, bits in group.tasks.standing(tree) for ordinal in bits
        )


def _view(group: _Group, tree: Tree) -> GroupView:
    sample, rest = group.sample, group.key == OTHERS
    return GroupView(
        key=group.key,
        type="other errors" if rest else sample.type,
        message=sample.message,
        normal=f"of more than {MOST:,} kinds" if rest else normal(sample.message),
        place=place(sample.traceback),
        topic=sample.topic,
        count=sum(bits.count() for _, bits in group.tasks.standing(tree)),
        seen=group.seen,
        first_at=group.first_at,
        last_at=group.last_at,
        spark=group.timeline.columns(),
        sample=sample,
    )


def fingerprint(event: Failed) -> str:
    """The same for errors of one kind, where the worker has not said it."""
    text = f"{event.error}\n{normal(event.message)}\n{place(event.traceback.splitlines())}"
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=6).hexdigest()


def normal(message: str) -> str:
    """The message without what varies: numbers, ids, what stands in quotes."""
    return _VARYING.sub("#", message)


def place(traceback: list[str] | tuple[str, ...]) -> str:
    """`file.py:41 in function`: the last frame that is not in a library, or else the last one."""
    frames = [found for text in traceback if (found := _FRAME.match(text))]
    mine = [frame for frame in frames if not any(part in frame[1] for part in _LIBRARIES)]
    if not frames:
        return ""
    file, line, function = (mine or frames)[-1].groups()
    return f"{file.rpartition('/')[2]}:{line} in {function}"
