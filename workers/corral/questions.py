"""What a worker asks before it runs a task that was delivered before, and what the bookkeeper answers.

A redelivered task may have ended: its worker died between storing the end and acknowledging the message. Only who
has folded every event can tell. Questions travel in lists, since a dead worker's tasks come back all at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Literal, NamedTuple

import msgspec

from corral.bitmap import EMPTY, Bitmap
from corral.decoding import decoder
from corral.errors import CorralError
from corral.jetstream.connection import Connection
from corral.messages import TaskId
from corral.resume import Before
from corral.subjects import Names

log = logging.getLogger(__name__)

ASK = "ask"
"""The control subject on which the bookkeeper answers."""
ROLL_CALL = "beat"
"""The control subject on which workers are asked to beat at once."""
PATIENCE = 2.0
"""Seconds to wait for the bookkeeper's answer."""

Verdict = Literal["run", "isolate", "ended", "over"]


class Question(msgspec.Struct, frozen=True, array_like=True):
    """May this task run?"""

    run: str
    task: TaskId
    round: int
    after: TaskId = (0, 0)
    """What is to be restored from here on: the rest of an answer that was too long for one message."""


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """`run` or `isolate` it as this attempt; it has `ended`; its run is `over`."""

    verdict: Verdict
    attempt: int = 1
    sent: list[tuple[int, int]] = []
    """What the ledger knows the task to have sent before the last retry."""
    restore: list[tuple[int, list[tuple[int, int]]]] = []
    """(batch, ranges) of what it sent that a retry has brought back, and that it must send again."""
    more: TaskId | None = None
    """There is more to restore, from here on: ask again."""


class Leave(NamedTuple):
    """An answer in full: all that is to be restored in it."""

    verdict: Verdict
    attempt: int
    before: Before


decode_questions: Callable[[bytes], list[Question]] = decoder(list[Question], "a list of questions")
_decode_answers: Callable[[bytes], list[Answer | None]] = decoder(list[Answer | None], "a list of answers")
encode = msgspec.json.Encoder().encode


class Asker:
    """Gathers questions while the previous ones are being answered."""

    def __init__(self, connection: Connection, names: Names) -> None:
        self._connection = connection
        self._subject = names.control(ASK)
        self._waiting: list[tuple[Question, asyncio.Future[Answer | None]]] = []
        self._asking: asyncio.Task[None] | None = None

    async def ask(self, run_id: str, task: TaskId, round: int) -> Leave | None:
        """Whether a task may run: the bookkeeper's answer; None if there is none."""
        restore: dict[int, Bitmap] = {}
        after = (0, 0)
        while True:
            answer = await self._ask(Question(run_id, task, round, after))
            if answer is None:
                return None
            for batch, spans in answer.restore:
                restore[batch] = restore.get(batch, EMPTY).plus(Bitmap.of_ranges(spans))
            if answer.more is None or answer.more <= after:
                return Leave(answer.verdict, answer.attempt, Before(answer.sent, restore))
            after = answer.more

    async def _ask(self, question: Question) -> Answer | None:
        future: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_all(), name="ask the bookkeeper")
        return await future

    async def _ask_all(self) -> None:
        while self._waiting:
            asked, self._waiting = self._waiting[:500], self._waiting[500:]
            answers: list[Answer | None] = []
            try:
                payload = encode([question for question, _ in asked])
                reply = await self._connection.request(self._subject, payload, timeout=PATIENCE)
                answers = _decode_answers(reply.data)
            except (CorralError, msgspec.DecodeError) as error:
                log.info("the bookkeeper does not answer", extra={"error": str(error)})
            if 0 < len(answers) < len(asked):
                self._waiting = asked[len(answers) :] + self._waiting  # as many answers as fit into a message
                asked = asked[: len(answers)]
            for index, (_, future) in enumerate(asked):
                if not future.done():
                    future.set_result(answers[index] if index < len(answers) else None)
