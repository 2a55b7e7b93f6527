"""What a retry brings back, and which of it gets a message. Pure.

What ended as error or interrupted is pending again. The body of an error was stored with it; everything else comes
back by running the task again that sent it, which sends just what is open of its messages, under their old identity.
So such a dispatcher is brought back as well, even if it had ended well, and whoever sent it, up to one whose body is
known: the root's is in the record of the run.

A retry may be limited to a selection of what ended badly. Who has to come back for the sake of that follows in the same
way; the rest stays as it ended.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping

from corral.bitmap import EMPTY, Bitmap
from corral.errors import TaskNotFound
from corral.events import ranges
from corral.ledger import Ledger
from corral.messages import ROOT, TaskId, task_text
from corral.selection import Selection, selection_of
from corral.tree import Tree

Back = Mapping[int, Bitmap]
"""What is brought back: batch -> ordinals."""


def ended_badly(tree: Tree) -> dict[int, Bitmap]:
    """What a retry of everything is for."""
    bad: dict[int, Bitmap] = {}
    for _, batch, bits in tree.badly_ended():
        bad[batch] = bad.get(batch, EMPTY).plus(bits)
    return bad


def select(run_id: str, tree: Tree, tasks: Iterable[TaskId], topics: Iterable[str]) -> Selection | None:
    """The part of what ended badly that is one of these tasks or of one of these topics; None if it is all of that.

    Raises:
        TaskNotFound: the run has no such task, or none of such a topic.
    """
    ordinals: dict[int, list[int]] = {}
    for batch, ordinal in tasks:
        ordinals.setdefault(batch, []).append(ordinal)
    wanted = {batch: Bitmap.of_ranges(ranges(numbers)) for batch, numbers in ordinals.items()}
    for batch, bits in wanted.items():
        known = tree.batches[batch].known() if batch in tree.batches else EMPTY
        for ordinal in bits.minus(known):
            raise TaskNotFound(run_id, f"task {task_text((batch, ordinal))}")
    for topic in topics:
        found = {batch.id: batch.topics[topic] for batch in tree.counting() if topic in batch.topics}
        if not found:
            raise TaskNotFound(run_id, f"task of topic {topic!r}")
        for batch, bits in found.items():
            wanted[batch] = wanted.get(batch, EMPTY).plus(bits)
    bad = ended_badly(tree)
    selected = {batch: these for batch, bits in wanted.items() if (these := bits.both(bad.get(batch, EMPTY)))}
    return None if selected == bad else selection_of(selected)


def plan(tree: Tree, bodies: Mapping[int, Bitmap], selection: Selection | None = None) -> dict[int, Bitmap]:
    """What is pending again of a run that is over. `bodies` are the tasks whose bodies were stored."""
    back = ended_badly(tree) if selection is None else selection.within(ended_badly(tree))
    # A batch is younger than its sender's: so from the youngest on, everything is known of one when it is looked at.
    agenda = [-batch for batch in back]
    heapq.heapify(agenda)
    while agenda:
        batch = -heapq.heappop(agenda)
        if batch == ROOT[0] or not back[batch].minus(bodies.get(batch, EMPTY)):
            continue
        above, ordinal = tree.parent(batch)
        if above not in back:
            heapq.heappush(agenda, -above)
        back[above] = back.get(above, EMPTY).plus(Bitmap.of_one(ordinal))
    return back


def brought_back(ledger: Ledger) -> dict[int, Bitmap]:
    """What the retry of the current round has brought back, whether it has ended since or not."""
    batches = ledger.tree.batches.values()
    return {batch.id: batch.reopened[ledger.round] for batch in batches if ledger.round in batch.reopened}


def by_topic(tree: Tree, back: Back) -> Iterator[tuple[str, int, Bitmap]]:
    """(topic, batch, ordinals) of it."""
    for batch, bits in back.items():
        left = bits
        for topic, known in tree.batches[batch].topics.items():
            if these := left.both(known):
                yield topic, batch, these
                left = left.minus(these)
        if left:
            yield tree.topic, batch, left


def with_messages(tree: Tree, back: Back) -> dict[int, Bitmap]:
    """The part of it whose messages are published: these see to the others."""
    return {
        batch: bits for batch, bits in back.items() if batch == ROOT[0] or not _has(back, *tree.batches[batch].parent)
    }


def _has(back: Back, batch: int, ordinal: int) -> bool:
    return batch in back and ordinal in back[batch]
