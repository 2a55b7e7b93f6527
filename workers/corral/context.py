"""What a processor sees of the task that it executes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic

import msgspec
from typing_extensions import TypeVar

from corral.errors import BadMessage, Interrupted
from corral.messages import TaskId, encode_body, task_text
from corral.processor import Processor, Topic, target_name

M = TypeVar("M")
S = TypeVar("S", default=Any)


class Stop:
    """A flag that is raised once, from any thread: the order to stop.

    Lighter than a threading.Event, since nobody waits for it.
    """

    __slots__ = ("_raised",)

    def __init__(self) -> None:
        self._raised = False

    def set(self) -> None:
        """Raise it."""
        self._raised = True

    def is_set(self) -> bool:
        """Whether it is raised."""
        return self._raised


StartRun = Callable[..., Awaitable[Any]]
"""Starts a run on behalf of a task: `Operations.start` with an id that derives from the task."""


class Wiring(msgspec.Struct, Generic[S], eq=False):
    """What a context does its work with; made by the worker for each execution."""

    run_id: str
    task: TaskId
    topic: str
    attempt: int
    state: S
    stop: Stop
    processors: Mapping[str, Processor[Any, ..., Any]]
    limit: int
    send: Callable[[str, bytes], Awaitable[None]]
    start: StartRun


class _Facts(Generic[S]):
    """What both kinds of context know."""

    __slots__ = ("_log", "_wiring")

    def __init__(self, wiring: Wiring[S]) -> None:
        self._wiring = wiring
        self._log: logging.LoggerAdapter[logging.Logger] | None = None

    @property
    def run_id(self) -> str:
        """The run that this task belongs to."""
        return self._wiring.run_id

    @property
    def task(self) -> str:
        """The task's identity within its run, `batch-ordinal`; the same in every attempt."""
        return task_text(self._wiring.task)

    @property
    def topic(self) -> str:
        """The topic of the message."""
        return self._wiring.topic

    @property
    def attempt(self) -> int:
        """Which attempt this is; the first is 1."""
        return self._wiring.attempt

    @property
    def state(self) -> S:
        """The value of the app's lifespan; None without one."""
        return self._wiring.state

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose records carry `run`, `task` and `topic`."""
        if self._log is None:
            facts = {"run": self.run_id, "task": self.task, "topic": self.topic}
            self._log = logging.LoggerAdapter(logging.getLogger(f"corral.task.{self.topic}"), facts)
        return self._log

    @property
    def interrupted(self) -> bool:
        """Whether the run is ordered to stop."""
        return self._wiring.stop.is_set()

    def check(self) -> None:
        """Raise `Interrupted` (a BaseException) if the run is ordered to stop; cheap enough for an inner loop."""
        if self._wiring.stop.is_set():
            raise Interrupted

    def _encode(self, target: Topic[Any] | Processor[Any, ..., Any] | str, message: Any) -> tuple[str, bytes]:
        topic = target_name(target)
        processor = target if isinstance(target, Processor) else self._wiring.processors.get(topic)
        if processor is not None and processor.unique is not None:
            raise BadMessage(
                topic, "its processor has a unique key, which only a run of its own can hold: use ctx.start"
            )
        return topic, encode_body(topic, message, self._wiring.limit)


class Context(_Facts[S]):
    """The task that an async processor executes. `S` is the type of the app's state."""

    __slots__ = ()

    async def send(self, target: Topic[M] | Processor[M, ..., Any] | str, message: M) -> None:
        """Send `message` as one task of this run.

        Waits while the queue has no room. When the processor returns, it ends only after all that it sent is stored.

        Raises:
            BadMessage: it cannot be encoded or is too big, or the target has a unique key.
            Interrupted: the run is ordered to stop.
        """
        self.check()
        topic, body = self._encode(target, message)
        await self._wiring.send(topic, body)

    async def start(self, target: Topic[M] | Processor[M, ..., Any] | str, message: M, **options: Any) -> Any:
        """Start a run of its own, and return its handle; options as in `Client.start`, but without `id`.

        Its id derives from this task and the number of the call, so a second execution of this task starts no second
        run. Waits while the server cannot be reached.

        Raises:
            DuplicateRun: its unique key is held.
        """
        self.check()
        return await self._wiring.start(target, message, **options)


class SyncContext(_Facts[S]):
    """The task that a sync processor executes in a thread: the names of `Context`, blocking."""

    __slots__ = ("_loop",)

    def __init__(self, wiring: Wiring[S], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(wiring)
        self._loop = loop

    def send(self, target: Topic[M] | Processor[M, ..., Any] | str, message: M) -> None:
        """As `Context.send`."""
        self.check()
        topic, body = self._encode(target, message)
        asyncio.run_coroutine_threadsafe(_awaited(self._wiring.send(topic, body)), self._loop).result()

    def start(self, target: Topic[M] | Processor[M, ..., Any] | str, message: M, **options: Any) -> Any:
        """As `Context.start`."""
        self.check()
        return asyncio.run_coroutine_threadsafe(
            _awaited(self._wiring.start(target, message, **options)), self._loop
        ).result()


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value
