"""What a retry brings back, and which of it gets a message. Pure.

What ended as error or interrupted is pending again. The body of an error was stored with it; everything else comes
back by running the task again that sent it, which sends just what is open of its messages, under their old identity.
So such a dispatcher is brought back as well, even if it had ended well, and whoever sent it, up to one whose body is
known: the root's is in the record of the run.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping

from corral.bitmap import EMPTY, Bitmap
from corral.ledger import Ledger
from corral.messages import ROOT
from corral.tree import Tree

Back = Mapping[int, Bitmap]
"""What is brought back: batch -> ordinals."""


def plan(tree: Tree, bodies: Mapping[int, Bitmap]) -> dict[int, Bitmap]:
    """What is pending again of a run that is over. `bodies` are the tasks whose bodies were stored."""
    back: dict[int, Bitmap] = {}
    for _, batch, bits in tree.badly_ended():
        back[batch] = back.get(batch, EMPTY).plus(bits)
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
