"""What a dispatcher that runs again need not send again. Pure.

The log of a dispatcher says, window by window, what earlier executions sent: how many messages, and a digest of
them. While the new execution sends the same, window after window, nothing is sent; from the first window that
differs on, everything is.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from corral.events import AnyEvent, Opened, Sent, SentList


class Message(NamedTuple):
    """One message of a fan-out; the body is JSON."""

    topic: str
    body: bytes


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

    `log` is what earlier executions appended, in order; `base` what a retry's message says was sent in earlier rounds.
    """

    def __init__(self, log: Sequence[tuple[int, AnyEvent]], round: int, base: SentList) -> None:
        self._windows = deque(_windows(log, round, base))
        self._held: list[Message] = []
        self._digest = Digest()
        self._kept: dict[int, int] = {}

    @property
    def keep(self) -> SentList:
        """Batches that stay, each up to a count."""
        return list(self._kept.items())

    def offer(self, topic: str, body: bytes) -> list[Message] | None:
        """Take the next message in.

        None while it may be one that was sent before. Otherwise the messages that must be sent now, this one the
        last of them; from then on this object is of no more use.
        """
        self._held.append(Message(topic, body))
        if not self._windows:
            return self.rest()
        self._digest.add(topic, body)
        window = self._windows[0]
        if len(self._held) < window.size:
            return None
        if self._digest.text() != window.digest:
            return self.rest()
        self._windows.popleft()
        self._kept[window.batch] = window.end
        self._held = []
        self._digest = Digest()
        return None

    def rest(self) -> list[Message]:
        """What was held back, and must be sent after all."""
        held, self._held = self._held, []
        return held


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
