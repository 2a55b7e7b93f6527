"""What users declare: topics, processors, apps. Importing an app touches no network.

REINDEX = Topic("reindex", Reindex)
app = App()

@app.processor(REINDEX, unique="{target_class}/{target_id}")
async def reindex(message: Reindex, ctx: Context) -> None: ...
"""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Concatenate, Generic, Literal, ParamSpec, overload

import msgspec
from typing_extensions import TypeVar

from corral.errors import BadApp, BadMessage
from corral.keys import check_template, render
from corral.retry import Backoff, default_backoff
from corral.subjects import check_key, check_topic

M = TypeVar("M")
S = TypeVar("S", default=Any)
P = ParamSpec("P")
R = TypeVar("R")
Key = str | Callable[[Any], str]
"""How a processor's unique key is made of its message: a template over its fields, or a function."""
Kind = Literal["async", "sync"]


class Topic(Generic[M]):
    """What messages are about, and their type. `type` is anything that msgspec decodes.

    Raises:
        BadName: the name is not a topic.
        BadApp: msgspec cannot decode the type.
    """

    __slots__ = ("_decode", "name", "type")

    def __init__(self, name: str, type: type[M]) -> None:
        self.name = check_topic(name)
        self.type = type
        try:
            self._decode = msgspec.json.Decoder(type).decode
        except TypeError as error:
            raise BadApp(f"topic {name!r}: {error}") from None

    def decode(self, body: bytes) -> M:
        """The message in `body`; msgspec.DecodeError if it is not one."""
        return self._decode(body)

    def __repr__(self) -> str:
        return f"Topic({self.name!r}, {getattr(self.type, '__name__', self.type)})"


class Processor(Generic[M, P, R]):
    """A function that processes the messages of one topic. Calling it calls the plain function."""

    def __init__(
        self,
        function: Callable[P, R],
        topic: Topic[M],
        *,
        unique: Key | None,
        attempts: int,
        backoff: Backoff,
        timeout: float | None,
        concurrency: int | None,
        isolate: bool,
    ) -> None:
        self.function = function
        self.topic = topic
        self.unique = unique
        self.attempts = attempts
        self.backoff = backoff
        self.timeout = timeout
        self.concurrency = concurrency
        self.isolate = isolate
        self.kind: Kind = "async" if inspect.iscoroutinefunction(function) else "sync"
        self.takes_context = len(_positional(function)) > 1
        self.__doc__ = function.__doc__
        self.__name__ = getattr(function, "__name__", "processor")
        self.__module__ = function.__module__
        self.__wrapped__ = function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:  # noqa: D102  # the function's own docstring says
        return self.function(*args, **kwargs)

    def key(self, message: M) -> str | None:
        """The unique key of a message; None if the processor declares none.

        Raises:
            BadName: what the template or the function makes is not a key.
            BadMessage: it lacks a field of the template.
        """
        if self.unique is None:
            return None
        if callable(self.unique):
            return check_key(self.unique(message))
        try:
            return check_key(render(self.unique, message))
        except KeyError as missing:
            raise BadMessage(self.topic.name, f"it has no field {missing}, of which its unique key is made") from None

    def __repr__(self) -> str:
        return f"<processor {self.__name__} of {self.topic.name!r}>"


Lifespan = Callable[[], AbstractAsyncContextManager[S]]


class App(Generic[S]):
    """The processors that a pool runs. `lifespan` is entered once per worker process, and its value is `ctx.state`."""

    def __init__(self, *, lifespan: Lifespan[S] | None = None) -> None:
        self.lifespan: Lifespan[Any] = lifespan or _nothing
        self._processors: dict[str, Processor[Any, ..., Any]] = {}

    @property
    def processors(self) -> Mapping[str, Processor[Any, ..., Any]]:
        """Processors by topic."""
        return self._processors

    @overload
    def processor(
        self,
        topic: Topic[M],
        *,
        unique: Key | None = None,
        attempts: int = 1,
        backoff: float | Callable[[int], float] = default_backoff,
        timeout: float | None = None,
        concurrency: int | None = None,
        isolate: bool = False,
    ) -> Callable[[Callable[Concatenate[M, P], R]], Processor[M, Concatenate[M, P], R]]: ...
    @overload
    def processor(
        self,
        topic: str,
        *,
        unique: Key | None = None,
        attempts: int = 1,
        backoff: float | Callable[[int], float] = default_backoff,
        timeout: float | None = None,
        concurrency: int | None = None,
        isolate: bool = False,
    ) -> Callable[[Callable[P, R]], Processor[Any, P, R]]: ...
    def processor(
        self,
        topic: Topic[Any] | str,
        *,
        unique: Key | None = None,
        attempts: int = 1,
        backoff: float | Callable[[int], float] = default_backoff,
        timeout: float | None = None,
        concurrency: int | None = None,
        isolate: bool = False,
    ) -> Callable[[Callable[P, R]], Processor[Any, P, R]]:
        """Register a function as the processor of a topic.

        Args:
            topic: a Topic, or a name; with a name the message's type is the annotation of the first parameter.
            unique: at most one run of this topic for each key: a template over the message's fields, or a function.
            attempts: how often a task is tried before it ends as error.
            backoff: seconds before the next attempt; or a function of the attempt that failed (the first is 1).
            timeout: seconds that an attempt may take; None is without limit.
            concurrency: tasks of this topic that one worker runs at once; None: as many as it has slots (async) or
                threads (sync).
            isolate: run each task in a process of its own that can be killed.

        Raises:
            BadApp: a second processor of the topic, a template over fields that do not exist, or no sense in the
            numbers.
        """

        def register(function: Callable[P, R]) -> Processor[Any, P, R]:
            resolved = topic if isinstance(topic, Topic) else Topic(topic, _message_type(function, topic))
            _check(function, resolved, unique)
            _check_numbers(resolved, attempts=attempts, backoff=backoff, timeout=timeout, concurrency=concurrency)
            processor: Processor[Any, P, R] = Processor(
                function,
                resolved,
                unique=unique,
                attempts=attempts,
                backoff=backoff,
                timeout=timeout,
                concurrency=concurrency,
                isolate=isolate,
            )
            self._add(processor)
            return processor

        return register

    def include(self, other: App[Any]) -> None:
        """Take over the processors of another app, which has no lifespan of its own.

        Raises:
            BadApp: both have a processor of the same topic, or the other one has a lifespan.
        """
        if other.lifespan is not _nothing:
            raise BadApp("an app with a lifespan of its own cannot be included: give the lifespan to the including app")
        for processor in other._processors.values():
            self._add(processor)

    def _add(self, processor: Processor[Any, ..., Any]) -> None:
        before = self._processors.setdefault(processor.topic.name, processor)
        if before is not processor:
            raise BadApp(
                f"topic {processor.topic.name!r} has two processors: {before.__name__} and {processor.__name__}"
            )


def target_name(target: Topic[Any] | Processor[Any, ..., Any] | str) -> str:
    """The topic that a send or a start is for."""
    match target:
        case Topic():
            return target.name
        case Processor():
            return target.topic.name
        case str():
            return check_topic(target)
        case _:
            raise TypeError(f"{target!r} is no topic: a Topic, a processor of an app, or the name of a topic")


# --- checks at import -------------------------------------------------------------------------------


def _check(function: Callable[..., Any], topic: Topic[Any], unique: Key | None) -> None:
    where = f"processor of {topic.name!r}"
    if not 1 <= len(_positional(function)) <= 2:
        raise BadApp(f"{where}: it takes the message, and a context if it wants one")
    if isinstance(unique, str):
        try:
            check_template(unique, topic.type)
        except ValueError as error:
            raise BadApp(f"{where}: unique={unique!r}: {error}") from None


def _check_numbers(
    topic: Topic[Any], *, attempts: int, backoff: Backoff, timeout: float | None, concurrency: int | None
) -> None:
    where = f"processor of {topic.name!r}"
    for name, count in (("attempts", attempts), ("concurrency", concurrency)):
        if count is not None and not count >= 1:
            raise BadApp(f"{where}: {name} is at least 1, not {count}")
    if timeout is not None and not timeout > 0:
        raise BadApp(f"{where}: timeout is more than 0 seconds, not {timeout}")
    if not callable(backoff) and not 0 <= backoff < math.inf:
        raise BadApp(f"{where}: backoff is a number of seconds that is not negative, not {backoff}")


def _positional(function: Callable[..., Any]) -> list[inspect.Parameter]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p for p in inspect.signature(function).parameters.values() if p.kind in kinds]


def _message_type(function: Callable[..., Any], topic: str) -> Any:
    parameters = _positional(function)
    hints = typing.get_type_hints(function)
    if not parameters or parameters[0].name not in hints:
        raise BadApp(f"processor of {topic!r}: the first parameter needs an annotation, it is the message's type")
    return hints[parameters[0].name]


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield None
