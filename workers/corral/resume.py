"""What a dispatcher that runs again need not send again. Pure.

The log of a dispatcher says, window by window, what earlier executions sent: how many messages, and a digest of
them. While the new execution sends the same, window after window, nothing is sent; from the first window that
differs on, everything is.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from corral.bitmap import EMPTY, Bitmap
from corral.errors import ContentChanged
from corral.events import AnyEvent, Opened, Sent, SentList
from corral.messages import TaskId


class Message(NamedTuple):
    """One message of a fan-out; the body is JSON."""

    topic: str
    body: bytes
    task: TaskId | None = None
    """The identity under which it is sent again; None for a new one."""


class Before(NamedTuple):
    """What a task sent before the last retry of its run, and what of it the retry has brought back."""

    sent: SentList = []  # noqa: RUF012  # never changed, like the tuple around it
    restore: Mapping[int, Bitmap] = {}
    """Batch -> ordinals."""


class Digest:
    """The digest of a window."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, topic: str, body: bytes) -> None:
        """Take the next message in."""
        self._hash.update(b"%d %b %b" % (len(body), topic.encode(), body))

    def text(self) -> str:
        """The digest so far."""
        return self._hash.hexdigest()


class _Window(NamedTuple):
    batch: int
    size: int
    end: int
    """Messages of the batch up to the end of this window."""
    digest: str


class Resume:
    """Compares what is sent now with what was sent before.

    `log` is what earlier executions appended, in order.
    """

    def __init__(self, log: Sequence[tuple[int, AnyEvent]], round: int, before: Before) -> None:
        self._windows = deque(_windows(log, round, before.sent))
        self._restore = before.restore
        self._held: list[Message] = []
        self._digest = Digest()
        self._kept: dict[int, int] = {}
        self.over = False
        """From here on everything is sent, and this object is of no more use."""

    @property
    def keep(self) -> SentList:
        """Batches that stay, each up to a count."""
        return list(self._kept.items())

    def offer(self, topic: str, body: bytes) -> list[Message]:
        """Take the next message in; the messages that must be sent now.

        None while it may be one that was sent before. At the end of a window that is the same, those of its messages
        that are brought back. From the first window on that differs, all that were held back; then this is `over`.

        Raises:
            ContentChanged: a window differs of which messages are to be brought back.
        """
        self._held.append(Message(topic, body))
        if not self._windows:
            return self.rest()
        self._digest.add(topic, body)
        window = self._windows[0]
        if len(self._held) < window.size:
            return []
        if self._digest.text() != window.digest:
            return self.rest()
        self._windows.popleft()
        self._kept[window.batch] = window.end
        held, self._held, self._digest = self._held, [], Digest()
        return self._brought_back(held, window)

    def rest(self) -> list[Message]:
        """What was held back, and must be sent after all.

        Raises:
            ContentChanged: messages are to be brought back that do not come any more.
        """
        left = [
            window
            for window in self._windows
            if self._restore.get(window.batch, EMPTY).within(window.end).beyond(window.end - window.size)
        ]
        if left:
            self._held = []
            raise ContentChanged
        self.over = True
        held, self._held = self._held, []
        return held

    def forget(self) -> None:
        """What was held back is left to another execution."""
        self._held = []
        self.over = True

    def _brought_back(self, held: list[Message], window: _Window) -> list[Message]:
        restore = self._restore.get(window.batch, EMPTY)
        first = window.end - window.size
        return [
            message._replace(task=(window.batch, first + place))
            for place, message in enumerate(held)
            if first + place in restore
        ]


def _windows(log: Sequence[tuple[int, AnyEvent]], round: int, base: SentList) -> list[_Window]:
    """The windows that count, as far as the log goes, in the order in which they were sent."""
    chain: list[tuple[int, int | None]] = list(base)
    for sequence, event in log:
        if isinstance(event, Opened) and event.round == round:
            chain = [*event.keep, (sequence, None)]
    windows = []
    for batch, cap in chain:
        count = 0
        for _, event in log:
            if isinstance(event, Sent) and event.batch == batch and event.first == count and event.count > count:
                if cap is not None and event.count > cap:
                    break
                windows.append(_Window(batch, event.count - count, event.count, event.digest))
                count = event.count
        if cap is not None and count < cap:
            break  # the log does not show all that is said to be kept: from here on everything is sent
    return windows
