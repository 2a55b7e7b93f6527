"""Runs a processor on one message, and says how it went. Knows no queue: what it returns is a value.

    body -> message -> processor, with a time limit -> Success | Failure | Again | Stopped

Cancellation is not an outcome: it goes up to the worker, which knows why it cancelled.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import re
import traceback
from bisect import bisect_right
from collections.abc import Callable, Iterator
from concurrent.futures import Executor as Threads
from types import CodeType, TracebackType
from typing import Any, TypeVar

import msgspec

from corral.context import Context, Stop, SyncContext, Wiring
from corral.errors import Interrupted, Reject, Requeue, Superseded
from corral.messages import check_body
from corral.processor import Processor
from corral.retry import delay

S = TypeVar("S")
LONGEST_TRACEBACK = 16 * 1024
LONGEST_NAME = 200
LONGEST_MESSAGE = 4 * 1024
"""Bytes as JSON: with them and the whole body an event stays below what the server takes."""
DEEP = 100
"""Steps of a traceback above which Python puts repeated ones together."""
REMEMBERED = 1024
"""Steps of tracebacks whose text is remembered."""


class Success(msgspec.Struct, frozen=True, tag="success"):
    """The processor returned."""


class Failure(msgspec.Struct, frozen=True, tag="failure"):
    """The task ends as error."""

    error: str
    message: str
    traceback: str = ""
    fingerprint: str = ""


class Again(msgspec.Struct, frozen=True, tag="again"):
    """The task is executed again after `delay` seconds."""

    delay: float
    failure: Failure | None
    """What the attempt failed with; None for a `Requeue`, which spends no attempt."""


class Stopped(msgspec.Struct, frozen=True, tag="stopped"):
    """The task was interrupted."""

    killed: bool = False


class Silent(msgspec.Struct, frozen=True, tag="silent"):
    """Another execution has taken over: nothing is said of this one."""


Outcome = Success | Failure | Again | Stopped | Silent
SUCCESS = Success()


async def execute(  # noqa: PLR0911  # one for each way in which a processor can end
    processor: Processor[Any, ..., Any], body: bytes, wiring: Wiring[S], threads: Threads | None = None
) -> Outcome:
    """Decode `body`, run the processor on it, and classify how that ended.

    A sync processor runs in one of `threads`, and is waited for even when this is cancelled: a thread cannot be
    stopped.
    """
    try:
        # Clients refuse such a body; other programs may have stored it.
        message = processor.topic.decode(check_body(processor.topic.name, body, wiring.limit))
    except Exception as error:  # noqa: BLE001  # a message's own __post_init__ may raise anything
        return failure(error)
    try:
        if processor.kind == "async":
            await _run_async(processor, message, wiring)
        else:
            await _run_sync(processor, message, wiring, threads)
    except Reject as reject:
        return failure(reject)
    except Requeue as again:
        return Again(again.delay, None)
    except Interrupted:
        return Stopped()
    except Superseded:
        return Silent()
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001  # sys.exit in a task is its failure
        return failed_attempt(processor, wiring.attempt, failure(error))
    return SUCCESS


def failed_attempt(processor: Processor[Any, ..., Any], attempt: int, failure: Failure) -> Outcome:
    """What follows from a failed attempt: another one, or the task's end as error."""
    if attempt >= processor.attempts:
        return failure
    try:
        return Again(delay(processor.backoff, attempt), failure)
    except Exception as error:  # noqa: BLE001  # a function of the user's
        why = f"{failure.message} (and its back-off failed: {_name(type(error))}: {_safe_text(error)})"
        return msgspec.structs.replace(failure, message=_cut(why, LONGEST_MESSAGE))


async def _run_async(processor: Processor[Any, ..., Any], message: Any, wiring: Wiring[S]) -> None:
    arguments = (message, Context(wiring)) if processor.takes_context else (message,)
    if processor.timeout is None:
        await processor.function(*arguments)
        return
    try:
        async with asyncio.timeout(processor.timeout) as limit:
            await processor.function(*arguments)
    except TimeoutError:
        if limit.expired():
            raise TimeoutError(f"took longer than {processor.timeout:g} s") from None
        raise


async def _run_sync(
    processor: Processor[Any, ..., Any], message: Any, wiring: Wiring[S], threads: Threads | None
) -> None:
    loop = asyncio.get_running_loop()
    arguments = (message, SyncContext(wiring, loop)) if processor.takes_context else (message,)
    context = contextvars.copy_context()
    running = loop.run_in_executor(threads, context.run, processor.function, *arguments)
    timer = loop.call_later(processor.timeout, wiring.stop.set) if processor.timeout is not None else None
    try:
        await _wait_for_thread(running, wiring.stop)
    except Interrupted:
        if timer is not None and timer.when() <= loop.time():
            raise TimeoutError(f"took longer than {processor.timeout:g} s") from None
        raise
    finally:
        if timer is not None:
            timer.cancel()


async def _wait_for_thread(running: asyncio.Future[Any], stop: Stop) -> None:
    """Wait for the thread's end. Being cancelled only raises the flag that the thread may look at.

    The cancellation is not raised again: what counts is how the thread ended, and it may well have succeeded.
    """
    while not running.done():
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            stop.set()
        except BaseException:  # noqa: BLE001  # it is the thread's, and raised below
            break
    running.result()


# --- what is kept of an error ------------------------------------------------------------------------


def failure(error: BaseException) -> Failure:
    """What is kept of an error: type, message, the traceback from the first frame that is not ours, fingerprint."""
    try:
        return _failure(error)
    except (Exception, SystemExit, KeyboardInterrupt) as broken:  # noqa: BLE001  # a user's error may do anything
        name = _name(type(error))
        message = f"<it cannot be described: {_name(type(broken))}>"
        return Failure(name, message, "", fingerprint(name, message, ""))


def _failure(error: BaseException) -> Failure:
    tail = error.__traceback__
    while tail is not None and tail.tb_frame.f_code.co_filename in _OURS:
        tail = tail.tb_next
    steps = list(_steps(tail))
    place = ""
    if steps:
        code = steps[-1].tb_frame.f_code
        place = f"{code.co_filename.rpartition('/')[2]}:{code.co_name}"
    message = _cut(_safe_text(error), LONGEST_MESSAGE)
    name = _name(type(error))
    text = _trace(error, tail, steps) if steps else ""
    return Failure(name, message, _cut_middle(text, LONGEST_TRACEBACK), fingerprint(name, message, place))


def _steps(tail: TracebackType | None) -> Iterator[TracebackType]:
    while tail is not None:
        yield tail
        tail = tail.tb_next


def _trace(error: BaseException, tail: TracebackType | None, steps: list[TracebackType]) -> str:
    """The traceback as Python prints it.

    When a million tasks fail, they fail in the same places: what these look like is found out once.
    """
    chained = error.__cause__ or (error.__context__ and not error.__suppress_context__)
    if chained or isinstance(error, BaseExceptionGroup | SyntaxError) or len(steps) > DEEP:
        return "".join(traceback.format_exception(type(error), error, tail))
    frames = [_frame(step) for step in steps]
    return "".join(["Traceback (most recent call last):\n", *frames, *traceback.format_exception_only(error)])


def _frame(step: TracebackType) -> str:
    """One step as text. Only the code is remembered: frames would keep the user's variables alive."""
    key = (step.tb_frame.f_code, step.tb_lasti)
    text = _frames.get(key)
    if text is None:
        if len(_frames) >= REMEMBERED:
            _frames.clear()
        text = _frames[key] = "".join(traceback.format_tb(step, limit=1))
    return text


_frames: dict[tuple[CodeType, int], str] = {}


def fingerprint(error: str, message: str, place: str) -> str:
    """The same for errors of one kind: the type, the message without what varies, the frame that raised it."""
    normal = _VARYING.sub("#", message)
    return hashlib.blake2b(f"{error}\n{normal}\n{place}".encode(errors="replace"), digest_size=6).hexdigest()


_VARYING = re.compile(r"0x[0-9a-fA-F]+|[0-9a-fA-F]{8,}|\d+|'[^']*'|\"[^\"]*\"")
_OURS = {__file__, asyncio.timeouts.__file__}


def _name(kind: type[BaseException]) -> str:
    ours = kind.__module__ in ("builtins", "corral.errors", "msgspec")
    name = kind.__qualname__ if ours else f"{kind.__module__}.{kind.__qualname__}"
    return name if name.isascii() and len(name) <= LONGEST_NAME else _cut(name, LONGEST_NAME)


def _safe_text(error: BaseException) -> str:
    try:
        return str(error)
    except (Exception, SystemExit, KeyboardInterrupt) as broken:  # noqa: BLE001  # a user's __str__ may do anything
        return f"<its __str__ raised {_name(type(broken))}>"


def _cut(text: str, limit: int) -> str:
    """`text`, or its beginning: at most `limit` bytes as JSON, where a control character takes six."""
    clean = text.encode("utf-8", "replace").decode()
    fits = _fitting(limit, lambda length: clean[:length])
    return clean if len(fits) == len(clean) else f"{fits}... ({len(clean):,} characters)"


def _cut_middle(text: str, limit: int) -> str:
    clean = text.encode("utf-8", "replace").decode()
    if len(clean) <= len(_fitting(limit, lambda length: clean[:length])):
        return clean
    head = _fitting(limit // 3, lambda length: clean[:length])
    tail = _fitting(limit * 2 // 3, lambda length: clean[-length:] if length else "")
    return f"{head}\n... {len(clean) - len(head) - len(tail):,} characters left out ...\n{tail}"


def _fitting(limit: int, part: Callable[[int], str]) -> str:
    """The longest `part` that takes at most `limit` bytes as JSON."""
    length = bisect_right(range(limit + 1), limit, key=lambda length: len(msgspec.json.encode(part(length))) - 2) - 1
    return part(length)
