"""How those start runs who may not touch what is stored: they ask the bookkeeper, and it does it for them.

To start a run oneself one has to read and write records, and who may do that can read every root's message and end
every run. A producer of a secured server can do neither: it has these two questions, and sees no message but its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import Any, Literal, TypeVar

import msgspec

from corral import errors
from corral.decoding import decoder
from corral.errors import CorralError, NoResponder, NoServer, PermissionDenied, RunNotFound, StorageFull, Unconfirmed
from corral.jetstream.connection import Connection, Message
from corral.messages import body_limit, encode_body
from corral.operations import Operations, Run
from corral.processor import Processor, Topic, target_name
from corral.roles import START, STATUS
from corral.runs import Record, decode_record, encode
from corral.settings import Settings
from corral.starter import OnDuplicate, check_on_duplicate
from corral.subjects import check_topic

log = logging.getLogger(__name__)

M = TypeVar("M")

MOST = 1_000
"""Questions that wait at once; more are refused, so that a flood of them costs the bookkeeper no memory."""
AT_ONCE = 100
PAUSE = 0.25
"""Seconds between two looks at a run that is watched."""
PATIENCE = 5.0
"""Seconds to wait for an answer to a question that changes nothing."""


class _Start(msgspec.Struct, frozen=True, omit_defaults=True):
    topic: str
    body: msgspec.Raw
    unique: str | None = None
    on_duplicate: Literal["reject", "join"] = "reject"
    id: str | None = None


class _Status(msgspec.Struct, frozen=True):
    run: str


class _Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """A run's id, or its record without the message, or why there is none: the name of an error and its arguments."""

    id: str = ""
    record: msgspec.Raw = msgspec.Raw(b"null")
    error: str = ""
    arguments: list[Any] = []


_decode_answer: Callable[[bytes], _Answer] = decoder(_Answer, "the bookkeeper's answer")
_decode_start: Callable[[bytes], _Start] = decoder(_Start, "a start")
_decode_status: Callable[[bytes], _Status] = decoder(_Status, "a question")
_ERRORS: dict[str, type[CorralError]] = {
    each.__name__: each
    for each in (
        errors.BadName,
        errors.BadMessage,
        errors.DuplicateRun,
        errors.RunExists,
        errors.RunNotFound,
        errors.StorageFull,
        errors.TooLarge,
        errors.Unconfirmed,
    )
}
"""What may be the answer; of everything else the producer learns that it is not known what happened."""


class Gate:
    """The bookkeeper's side."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._connection = connection
        self._operations = Operations(connection, settings, by="producer")
        self._names = self._operations.names
        self._waiting = 0
        self._room = asyncio.Semaphore(AT_ONCE)

    async def serve(self) -> None:
        """Answer until cancelled."""
        async with asyncio.TaskGroup() as group:
            asked = [
                await self._connection.subscribe(self._names.control(what), partial(self._on_question, group, answer))
                for what, answer in ((START, self._start), (STATUS, self._status))
            ]
            try:
                await asyncio.Future()
            finally:
                for subscription in asked:
                    await subscription.close()
                await self._operations.close()

    def _on_question(
        self, group: asyncio.TaskGroup, answer: Callable[[bytes], Awaitable[_Answer]], message: Message
    ) -> None:
        # The server delivers under any subject that a consumer names; then the message keeps its own.
        if not message.reply or message.subject not in (self._names.control(START), self._names.control(STATUS)):
            return
        if self._waiting >= MOST:
            full = _refusal(StorageFull("the bookkeeper's queue", "too many starts at once"))
            group.create_task(self._reply(message, full))
            return
        self._waiting += 1
        group.create_task(self._answer(answer, message))

    async def _answer(self, answer: Callable[[bytes], Awaitable[_Answer]], message: Message) -> None:
        try:
            async with self._room:
                try:
                    said = await answer(message.data)
                except errors.Unreadable as error:
                    said = _refusal(errors.BadMessage("", str(error)))
                except CorralError as error:
                    said = _refusal(error)
                except Exception:
                    log.exception("a producer's question could not be answered")
                    return
                await self._reply(message, said)
        finally:
            self._waiting -= 1

    async def _reply(self, message: Message, answer: _Answer) -> None:
        try:
            await self._connection.publish(message.reply, msgspec.json.encode(answer))
        except CorralError as error:
            log.warning("an answer was not sent", extra={"error": str(error)})

    async def _start(self, data: bytes) -> _Answer:
        asked = _decode_start(data)
        run_id = await self._operations.starter.start_raw(
            check_topic(asked.topic),
            bytes(asked.body),
            unique=asked.unique,
            on_duplicate=asked.on_duplicate,
            id=asked.id,
        )
        return _Answer(id=run_id)

    async def _status(self, data: bytes) -> _Answer:
        record = await self._operations.record(_decode_status(data).run, leader=True)
        shown = msgspec.structs.replace(record, body=msgspec.Raw(b"null"), selection=None)
        return _Answer(record=msgspec.Raw(encode(shown)))


def _refusal(error: CorralError) -> _Answer:
    if type(error).__name__ in _ERRORS:
        return _Answer(error=type(error).__name__, arguments=list(error.args))
    return _Answer(error="Unconfirmed", arguments=[f"the bookkeeper says: {error}"])


def _error(answer: _Answer) -> CorralError:
    try:
        return _ERRORS.get(answer.error, Unconfirmed)(*answer.arguments)
    except TypeError:  # of a bookkeeper of another version
        return Unconfirmed(f"the bookkeeper says: {answer.error} {answer.arguments}")


class Gated(Operations):
    """The operations of those who have to ask."""

    async def known(self) -> bool:
        """Whether this user may ask at all; whoever answers may come later."""
        try:
            await self._ask(STATUS, _Status(""))
        except PermissionDenied:
            return False
        except (CorralError, msgspec.DecodeError):
            return True
        return True

    async def start(
        self,
        target: Topic[M] | Processor[M, ..., Any] | str,
        message: M,
        *,
        unique: str | None = None,
        on_duplicate: OnDuplicate = "reject",
        id: str | None = None,
    ) -> Run:
        """See `Client.start`."""
        topic = target_name(target)
        body = encode_body(topic, message, body_limit(self.connection.max_payload))
        if unique is None and isinstance(target, Processor):
            unique = target.key(message)
        return await self.start_raw(topic, body, unique=unique, on_duplicate=on_duplicate, id=id)

    async def start_raw(
        self,
        topic: str,
        body: bytes,
        *,
        unique: str | None = None,
        on_duplicate: OnDuplicate = "reject",
        id: str | None = None,
    ) -> Run:
        """See `Client.start_raw`."""
        check_on_duplicate(on_duplicate)
        if on_duplicate == "replace":
            raise PermissionDenied("interrupt the run that holds the key, as on_duplicate='replace' would", "")
        asked = _Start(topic, msgspec.Raw(body), unique, on_duplicate, id)
        answer = await self._ask(START, asked, timeout=self.settings.publish_timeout)
        return Run(answer.id, self)

    async def record(self, run_id: str, *, leader: bool = False) -> Record:
        """The run's record, without its message; RunNotFound if there is none."""
        del leader  # it always is the newest
        answer = await self._ask(STATUS, _Status(run_id))
        return decode_record(bytes(answer.record))

    async def watch_record(self, run_id: str) -> AsyncGenerator[Record, None]:
        """See `Operations.watch_record`; asked for again and again."""
        last: Record | None = None
        while True:
            try:
                record = await self.record(run_id)
            except RunNotFound:
                if last is None:
                    raise
                return  # it expired
            except (NoServer, NoResponder, Unconfirmed):
                if last is None:
                    raise
            else:
                if record != last:
                    last = record
                    yield record
                if record.state == "final":
                    return
            await asyncio.sleep(PAUSE)

    async def _ask(self, what: str, question: msgspec.Struct, *, timeout: float = PATIENCE) -> _Answer:
        subject = self.names.control(what)
        reply = await self.connection.request(subject, msgspec.json.encode(question), timeout=timeout)
        answer = _decode_answer(reply.data)
        if answer.error:
            raise _error(answer)
        return answer
