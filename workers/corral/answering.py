"""The bookkeeper's answers to workers that ask whether a task may run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Literal

from corral.bitmap import Bitmap
from corral.book import Books
from corral.errors import CorralError, Unreadable
from corral.events import Range
from corral.jetstream.connection import Connection, Message
from corral.jetstream.records import Records
from corral.ledger import Ledger
from corral.messages import TaskId
from corral.oddities import Oddities
from corral.questions import Answer, Question, decode_questions, encode
from corral.runs import decode_record
from corral.subjects import run_key

log = logging.getLogger(__name__)

MOST = 1_000
"""Questions of a list that are answered: twice as many as a worker asks."""
MARGIN = 4096
"""Bytes of a message that answers leave free."""
RANGE = 64
"""Bytes that a range takes in an answer, at most, if every batch has but one."""


class Answering:
    """Answers when everything that was stored before the question is folded: `fold_to` sees to that."""

    def __init__(
        self,
        connection: Connection,
        records: Records,
        books: Books,
        fold_to: Callable[[], Awaitable[None]],
        group: asyncio.TaskGroup,
    ) -> None:
        self._connection = connection
        self._records = records
        self._books = books
        self._fold_to = fold_to
        self._group = group
        self._oddities = Oddities(log)

    def on_ask(self, message: Message) -> None:
        """A list of questions has come."""
        if message.reply:
            self._group.create_task(self._answer(message))

    async def _answer(self, message: Message) -> None:
        try:
            questions = decode_questions(message.data)
            await self._fold_to()
            await self._connection.publish(message.reply, await self._answers(questions))
        except Unreadable as error:
            self._oddities.note("what should be questions is left without an answer", error=str(error))
        except CorralError as error:
            log.warning("a question is left without an answer", extra={"error": str(error)})
        except Exception:
            log.exception("a question is left without an answer")  # and everybody else's is answered

    async def _answers(self, questions: list[Question]) -> bytes:
        """As many answers as fit into a message, in the order of the questions; the others are asked again."""
        room = self._connection.max_payload - MARGIN
        answers: list[bytes] = []
        for question in questions[:MOST]:
            answer = encode(await self._verdict(question))
            room -= len(answer) + 1
            if room < 0 and answers:
                break
            answers.append(answer)
        return b"[%b]" % b",".join(answers)

    async def _verdict(self, question: Question) -> Answer | None:
        """None where it cannot be told yet."""
        book = self._books.get(question.run)
        if book is None and self._books.has_ended(question.run) and question.round == 0:
            return Answer("over")
        if book is None or book.record is None or question.round > book.record.round:
            # Its record may be on its way here. Who says "over" for a run that has just begun would lose its task.
            entry = await self._records.get(run_key(question.run), leader=True)
            try:
                live = entry is not None and decode_record(entry.value, question.run).live
            except Unreadable:
                return None  # what is asked beside it can be told
            return None if live else Answer("over")
        if book.held is not None or question.round > book.ledger.round:
            return None
        return answer_to(question, book.ledger, self._connection.max_payload - MARGIN)


def answer_to(question: Question, ledger: Ledger, room: int) -> Answer:
    """What the ledger says to a question, in at most about so many bytes."""
    task, tree = question.task, ledger.tree
    if ledger.over:
        return Answer("over")
    if tree.outcome(task) is not None or tree.stale(task, question.round):
        return Answer("ended")
    verdict: Literal["isolate", "run"] = "isolate" if ledger.suspect(task) else "run"
    if question.round == 0:
        return Answer(verdict, tree.attempt(task))
    sent = tree.sent_by(task)
    most = max(1, room // RANGE - len(sent))
    restore, more = _page(tree.to_restore(task, ledger.round), question.after, most)
    return Answer(verdict, tree.attempt(task), sent, restore, more)


def _page(
    restore: list[tuple[int, Bitmap]], after: TaskId, most: int
) -> tuple[list[tuple[int, list[Range]]], TaskId | None]:
    """At most so many ranges from a task on, and with which task the next page begins."""
    page: list[tuple[int, list[Range]]] = []
    for batch, bits in restore:
        if batch < after[0]:
            continue
        spans: list[Range] = []
        for first, last in (bits.beyond(after[1]) if batch == after[0] else bits).ranges():
            if most <= 0:
                return ([*page, (batch, spans)] if spans else page), (batch, first)
            spans.append((first, last))
            most -= 1
        if spans:
            page.append((batch, spans))
    return page, None
