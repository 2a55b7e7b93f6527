"""What a retry brings back, and how each task gets its message again. Pure.

What ended as error or interrupted is pending again. The body of an error was stored with it; everything else comes
back by running the task again that sent it, which sends just what is open of its messages, under their old identity.
So such a dispatcher is brought back as well, even if it had ended well, and whoever sent it, up to one whose body is
known: the root's is in the record of the run.
"""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

from corral.bitmap import EMPTY, Bitmap
from corral.events import Range
from corral.ledger import Ledger
from corral.messages import ROOT, TaskId


class Plan(NamedTuple):
    """What is to be done."""

    tasks: list[tuple[str, int, list[Range]]]
    """What is pending again, as `Reopened` lists it: (topic, batch, ranges)."""
    messages: list[tuple[str, TaskId]]
    """The tasks whose messages are published: their bodies are known. They see to the others."""

    @property
    def size(self) -> int:
        """How many tasks are pending again."""
        return sum(last - first for _, _, spans in self.tasks for first, last in spans)


def plan(ledger: Ledger, bodies: Container[TaskId]) -> Plan:
    """How to bring back what ended badly in a run that is over. `bodies` are the tasks whose bodies were stored."""
    back: dict[tuple[str, int], Bitmap] = {}
    for topic, batch, bits in ledger.tree.badly_ended():
        back[topic, batch] = bits
    agenda = list(back)
    while agenda:
        topic, batch = agenda.pop()
        if batch == ROOT[0] or all((batch, ordinal) in bodies for ordinal in back[topic, batch]):
            continue
        parent = ledger.tree.parent(batch)
        key = (ledger.tree.topic_of(parent), parent[0])
        before = back.get(key, EMPTY)
        if parent[1] not in before:
            back[key] = before.plus(Bitmap.of_one(parent[1]))
            agenda.append(key)
    return Plan(
        [(topic, batch, list(bits.ranges())) for (topic, batch), bits in back.items()],
        [
            (topic, (batch, ordinal))
            for (topic, batch), bits in back.items()
            if batch == ROOT[0] or not _is_back(ledger.tree.parent(batch), back)
            for ordinal in bits
        ],
    )


def messages_of(reopened: list[tuple[str, int, list[Range]]], ledger: Ledger) -> list[tuple[str, TaskId]]:
    """The messages of a plan that is stored already, as far as their tasks have not ended since."""
    back = {(topic, batch): Bitmap.of_ranges(spans) for topic, batch, spans in reopened}
    return [
        (topic, (batch, ordinal))
        for (topic, batch), bits in back.items()
        if batch == ROOT[0] or not _is_back(ledger.tree.parent(batch), back)
        for ordinal in bits
        if ledger.tree.outcome((batch, ordinal)) is None
    ]


def _is_back(task: TaskId, back: dict[tuple[str, int], Bitmap]) -> bool:
    return any(batch == task[0] and task[1] in bits for (_, batch), bits in back.items())
