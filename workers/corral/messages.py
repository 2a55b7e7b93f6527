"""A task's identity, and the message that carries it through the queue.

The body of a task's message is JSON: `{"task": [batch, ordinal], "round": 0, "body": ...}`. Run and topic are in
its subject. There are no headers: the client library parses them at a third of the speed of the rest.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from corral.decoding import DEEPEST, cut_levels, decoder, too_deep
from corral.errors import BadMessage, Unreadable
from corral.subjects import is_run_id

TaskId = tuple[int, int]
"""(batch, ordinal): the sequence of the `Opened` event of the batch, and the place in it."""

ROOT: TaskId = (0, 0)

RESERVE = 64 * 1024
"""Bytes of a message that are kept free beside the body, for the envelope, an error's traceback and headers."""


def task_text(task: TaskId) -> str:
    """A task's identity as text: `batch-ordinal`."""
    return f"{task[0]}-{task[1]}"


def parse_task(text: str) -> TaskId:
    """The reverse of `task_text`; ValueError for anything else."""
    batch, dash, ordinal = text.partition("-")
    if not (dash and batch.isdecimal() and ordinal.isdecimal()):
        raise ValueError(f"{text!r} is not a task: batch-ordinal")
    return int(batch), int(ordinal)


_Natural = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class TaskMessage(msgspec.Struct, frozen=True, gc=False):
    """What lies in the queue for one task."""

    task: tuple[_Natural, _Natural]
    body: msgspec.Raw
    round: _Natural = 0
    """0, and one more each time that a retry brings the task back; what a task sends has its sender's round."""
    again: bool = False
    """Stored a second time, for a message that the server has forgotten: the task may have been executed before."""


_decode = decoder(TaskMessage, "a task")
_decode_any = decoder(Any, "a body")
_encode = msgspec.json.Encoder().encode


def encode_task(task: TaskId, round: int, body: bytes) -> bytes:
    """The message of a task; `body` is JSON."""
    return b'{"task":[%d,%d],"round":%d,"body":%b}' % (task[0], task[1], round, body)


def encode_again(message: TaskMessage) -> bytes:
    """The same message, to be stored a second time."""
    return _encode(msgspec.structs.replace(message, again=True))


def decode_task(data: bytes, run_id: str | None = None) -> TaskMessage:
    """The message in `data`; Unreadable if there is none, or if `run_id` cannot be a run.

    Of a body that is nested so deeply that not everybody could read it, one level too many is kept, for `check_body`.
    """
    if run_id is not None and not is_run_id(run_id):
        raise Unreadable("a task", f"it is of {run_id!r}, which cannot be a run")
    message: TaskMessage = _decode(cut_levels(data, DEEPEST + 2))
    return message


def encode_body(topic: str, message: object, limit: int) -> bytes:
    """`message` as JSON, checked against `limit` bytes.

    Raises:
        BadMessage: msgspec cannot encode it, or it is too big.
    """
    try:
        body = _encode(message)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BadMessage(topic, str(error) or type(error).__name__) from error
    return check_body(topic, body, limit)


def check_body(topic: str, body: bytes, limit: int) -> bytes:
    """`body`, which is JSON, itself; BadMessage if it has more than `limit` bytes, or too many levels."""
    if len(body) > limit:
        raise BadMessage(topic, f"{len(body):,} bytes are more than the limit of {limit:,}")
    if too_deep(body):
        raise BadMessage(topic, f"it has more than {DEEPEST} levels of arrays and objects")
    return body


TOO_LARGE = b"[" * (DEEPEST + 1) + b'"too large to be kept"' + b"]" * (DEEPEST + 1)
"""What is kept of a body that does not fit into an event. Nothing is executed with it: `check_body` refuses it."""


def check_json(topic: str, body: bytes) -> bytes:
    """`body` itself; BadMessage if it is not JSON."""
    try:
        _decode_any(body)
    except Unreadable as error:
        raise BadMessage(topic, f"not JSON: {error.reason}") from None
    return body


def body_limit(max_payload: int) -> int:
    """Bytes that a body may have on a server that takes `max_payload` bytes a message."""
    return max(max_payload - RESERVE, max_payload // 2)
