"""The client for code that knows no asyncio: scripts, Flask, Django. The names of `Client` and `Run`, blocking.

    with SyncClient() as client:
        print(client.start("newsletter", {"number": 7}).wait())

The asynchronous client works in a thread of its own, so that this one can be used from any thread, and from several
at once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from corral.client import Client, StoredEvent
from corral.credentials import Login
from corral.errors import CorralError
from corral.events import Receipt
from corral.leaving import Departure
from corral.operations import Run
from corral.processor import Processor, Topic
from corral.runs import RunStatus, TaskError, TopicStatus, WorkerStatus
from corral.settings import Settings
from corral.starter import OnDuplicate

M = TypeVar("M")
T = TypeVar("T")


class SyncRun:
    """A handle on a run; see `Run`."""

    __slots__ = ("_loop", "_run", "id")

    def __init__(self, run: Run, loop: _Loop) -> None:
        self.id = run.id
        self._run = run
        self._loop = loop

    def status(self) -> RunStatus:
        """See `Run.status`."""
        return self._loop.call(self._run.status())

    def watch(self) -> Iterator[RunStatus]:
        """See `Run.watch`."""
        return self._loop.iterate(self._run.watch())

    def wait(self) -> RunStatus:
        """See `Run.wait`."""
        return self._loop.call(self._run.wait())

    def interrupt(
        self,
        reason: str | None = None,
        wait: bool = False,  # noqa: FBT001, FBT002
        *,
        kill_after: float | None = None,
    ) -> Receipt | None:
        """See `Run.interrupt`."""
        return self._loop.call(self._run.interrupt(reason, wait, kill_after=kill_after))

    def retry(self, *, tasks: Iterable[str] | None = None, topics: Iterable[str] | None = None) -> int:
        """See `Run.retry`."""
        return self._loop.call(self._run.retry(tasks=tasks, topics=topics))

    def __repr__(self) -> str:
        return repr(self._run)


class SyncClient:
    """See `Client`."""

    def __init__(
        self,
        url: str | None = None,
        namespace: str | None = None,
        *,
        settings: Settings | None = None,
        login: Login | None = None,
    ) -> None:
        self._client = Client(url, namespace, settings=settings, login=login)
        self._loop = _Loop()

    def __enter__(self) -> Self:
        self._loop.start()
        try:
            self._loop.call(self._client.__aenter__())
        except BaseException:
            self._loop.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._loop.call(self._client.__aexit__(kind, error, trace))
        finally:
            self._loop.stop()

    def start(
        self,
        target: Topic[M] | Processor[M, ..., Any] | str,
        message: M,
        *,
        unique: str | None = None,
        on_duplicate: OnDuplicate = "reject",
        id: str | None = None,
    ) -> SyncRun:
        """See `Client.start`."""
        starting = self._client.start(target, message, unique=unique, on_duplicate=on_duplicate, id=id)
        return SyncRun(self._loop.call(starting), self._loop)

    def start_raw(
        self,
        topic: str,
        body: bytes,
        *,
        unique: str | None = None,
        on_duplicate: OnDuplicate = "reject",
        id: str | None = None,
    ) -> SyncRun:
        """See `Client.start_raw`."""
        starting = self._client.start_raw(topic, body, unique=unique, on_duplicate=on_duplicate, id=id)
        return SyncRun(self._loop.call(starting), self._loop)

    def run(self, id: str) -> SyncRun:
        """See `Client.run`."""
        return SyncRun(self._client.run(id), self._loop)

    def find(self, text: str) -> SyncRun:
        """See `Client.find`."""
        return SyncRun(self._loop.call(self._client.find(text)), self._loop)

    def runs(self, *, status: str | None = None, topic: str | None = None, limit: int | None = None) -> list[RunStatus]:
        """See `Client.runs`."""
        return self._loop.call(self._client.runs(status=status, topic=topic, limit=limit))

    def watch_runs(self) -> Iterator[RunStatus]:
        """See `Client.watch_runs`."""
        return self._loop.iterate(self._client.watch_runs())

    def holder(self, key: str) -> str | None:
        """See `Client.holder`."""
        return self._loop.call(self._client.holder(key))

    def receipt(self, run_id: str) -> Receipt | None:
        """See `Client.receipt`."""
        return self._loop.call(self._client.receipt(run_id))

    def errors(self, run_id: str) -> Iterator[TaskError]:
        """See `Client.errors`."""
        return self._loop.iterate(self._client.errors(run_id))

    def events(self, run_id: str, *, follow: bool = False) -> Iterator[StoredEvent]:
        """See `Client.events`."""
        return self._loop.iterate(self._client.events(run_id, follow=follow))

    def topics(self) -> list[TopicStatus]:
        """See `Client.topics`."""
        return self._loop.call(self._client.topics())

    def queued(self, run_id: str) -> int:
        """See `Client.queued`."""
        return self._loop.call(self._client.queued(run_id))

    def workers(self) -> list[WorkerStatus]:
        """See `Client.workers`."""
        return self._loop.call(self._client.workers())

    def interrupt(
        self, run_id: str, *, reason: str | None = None, wait: bool = False, kill_after: float | None = None
    ) -> Receipt | None:
        """See `Client.interrupt`."""
        return self._loop.call(self._client.interrupt(run_id, reason=reason, wait=wait, kill_after=kill_after))

    def retry(self, run_id: str, *, tasks: Iterable[str] | None = None, topics: Iterable[str] | None = None) -> int:
        """See `Client.retry`."""
        return self._loop.call(self._client.retry(run_id, tasks=tasks, topics=topics))

    def drain(self, *names: str, wait: bool = False) -> list[Departure]:
        """See `Client.drain`."""
        return self._loop.call(self._client.drain(*names, wait=wait))

    def stop(self, *names: str, wait: bool = False) -> list[Departure]:
        """See `Client.stop`."""
        return self._loop.call(self._client.stop(*names, wait=wait))

    def may_act(self) -> bool:
        """See `Client.may_act`."""
        return self._loop.call(self._client.may_act())


class _Loop:
    """An asyncio loop in a thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="corral client")
        self._thread.start()

    def stop(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None and self._thread is not None:
            asyncio.run_coroutine_threadsafe(loop.shutdown_asyncgens(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join()
            loop.close()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run to the end in the loop; interrupted here (Ctrl-C), it is cancelled there."""
        if self._loop is None:
            work.close()
            raise CorralError("the client is not open: use `with SyncClient() as client`")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """Item after item, each when it is asked for."""
        end: Any = object()

        async def advance() -> Any:
            return await anext(items, end)

        try:
            while (item := self.call(advance())) is not end:
                yield item
        finally:
            if isinstance(items, AsyncGenerator):
                self.call(items.aclose())
