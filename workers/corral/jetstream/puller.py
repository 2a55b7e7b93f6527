"""Pulling tasks from a consumer: exactly as many as were asked for, handed over as they arrive.

A pull is a message to the server that asks for some tasks for some seconds. Meanwhile the server
sends heartbeats; if they stay away, or after an outage, everything that was asked for counts as lost
and is asked for again under another name.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import msgspec

from corral.errors import CorralError, PermissionDenied
from corral.jetstream.connection import Connection, Message, Subscription

_log = logging.getLogger(__name__)

_EXPIRES = 30.0  # seconds that a pull lasts
_RETRY = 1.0  # seconds until pulls that the server has refused may be repeated
_BODY = b'{"batch":%d,"expires":%d,"idle_heartbeat":%d}'
_SHORT_BODY = b'{"batch":%d,"expires":%d}'
_NS = 1_000_000_000
_LONGEST = 10 * 365 * 86_400.0  # seconds; a number that the server cannot read it takes for "at once", again and again
_ACK = b"+ACK"
_NAK = b"-NAK"
_PROGRESS = b"+WPI"


class Delivery(msgspec.Struct, eq=False):
    """A task that the server has delivered, and what can be answered."""

    _connection: Connection
    subject: str
    data: bytes
    reply: str
    handed_back: bool = False
    _tokens: list[str] | None = None

    @property
    def delivered(self) -> int:
        """How often this message was delivered, this time included; the first is 1."""
        return self._token(0)

    @property
    def sequence(self) -> int:
        """Its sequence in the stream."""
        return self._token(1)

    @property
    def timestamp(self) -> int:
        """When it was stored, in nanoseconds since 1970."""
        return self._token(3)

    @property
    def backlog(self) -> int:
        """How many messages waited behind this one when it was delivered."""
        return self._token(4)

    async def ack(self) -> None:
        """Done: the message leaves the queue. Not confirmed by the server; if it is lost, it is delivered again."""
        await self._connection.publish(self.reply, _ACK)

    async def nak(self, delay: float = 0.0) -> None:
        """Deliver it again, not before `delay` seconds have passed."""
        self.handed_back = True  # a sign of life would now put another delay in the place of this one
        delay = min(delay, _LONGEST)
        await self._connection.publish(self.reply, b'-NAK {"delay": %d}' % (delay * _NS) if delay > 0 else _NAK)

    async def progress(self) -> None:
        """Still at work: ack_wait begins anew."""
        await self._connection.publish(self.reply, _PROGRESS)

    def _token(self, index: int) -> int:
        # $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<ns>.<pending>; a longer form
        # has domain and account before the stream, and one token more at the end.
        if self._tokens is None:
            tokens = self.reply.split(".")
            self._tokens = tokens[4:9] if len(tokens) == 9 else tokens[6:11]
        return int(self._tokens[index])


async def ack_all(connection: Connection, deliveries: Sequence[Delivery]) -> None:
    """As `Delivery.ack`, of many in one go."""
    await connection.publish_to_all([delivery.reply for delivery in deliveries], _ACK)


class Puller:
    """Pulls from one consumer. Nothing is asked for before the first `request`.

    `on_delivery` is called with each task; `on_room` when something that was asked for will not come,
    so that it may be asked for again; `on_missing` when the consumer does not exist: make it, then
    `request` again; `on_error` when the server refuses for lack of rights. None of them may block.
    `heartbeat` is in seconds: after two of them in silence everything is asked for anew.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        consumer: str,
        *,
        on_delivery: Callable[[Delivery], None],
        on_room: Callable[[], None],
        on_missing: Callable[[], None] | None = None,
        on_error: Callable[[CorralError], None] | None = None,
        heartbeat: float = 5.0,
    ) -> None:
        self.outstanding = 0
        """Tasks that were asked for and have neither arrived nor been given up."""
        self._connection = connection
        self._subject = connection.api_subject(f"CONSUMER.MSG.NEXT.{stream}.{consumer}")
        self._on_delivery = on_delivery
        self._on_room = on_room
        self._on_missing = on_missing
        self._on_error = on_error
        self._heartbeat = heartbeat
        self._round = 0  # what was asked for in an earlier round counts no more
        self._subscription: Subscription | None = None
        self._old: list[Subscription] = []  # of earlier rounds, to be closed
        self._opening = asyncio.Lock()
        self._last: Delivery | None = None
        self._heard = False
        self._due = 0.0  # loop time at which the next look is due
        self._silent = 0  # heartbeats missed in a row
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._stopped = False
        self._forget = (connection.on_reconnect(self._on_reconnect), connection.on_denied(self._on_denied))

    @property
    def backlog(self) -> int:
        """Tasks that waited in the queue behind the last one that arrived; 0 before it, and after a pull ran out."""
        return self._last.backlog if self._last is not None else 0

    async def request(self, count: int, *, expires: float | None = None) -> None:
        """Ask for `count` more tasks, which come within half a minute or are given up; waits out an outage.

        `expires`, in seconds, makes that time shorter, if it is at most two heartbeats.
        """
        if count <= 0 or self._stopped:
            return
        self.outstanding += count
        round_ = self._round
        # Nothing may be awaited between the last look at the round and the pull: a pull of an earlier
        # round would bring tasks to an inbox that is just being closed.
        while not self._connection.connected or self._subscription is None:
            await self._connection.ready()
            await self._open()
        if self._round != round_ or self._stopped:
            return  # given up meanwhile; on_room has said so
        if "watch" not in self._timers:
            self._heard = True
            self._later("watch", self._heartbeat, self._look)
        if expires is not None and expires <= 2 * self._heartbeat:  # the server allows heartbeats up to half of it
            body = _SHORT_BODY % (count, expires * _NS)
        else:
            body = _BODY % (count, _EXPIRES * _NS, self._heartbeat * _NS)
        await self._connection.publish(self._subject, body, reply=self._subscription.subject)

    async def stop(self) -> None:
        """Ask for nothing more. Tasks that are on their way still reach `on_delivery` before this returns."""
        self._stopped = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for forget in self._forget:
            forget()
        self._give_up("stopped")
        await self._drain_old()

    # --- inside

    async def _open(self) -> None:
        """Subscribe under a new name, so that what was asked for before does not count."""
        async with self._opening:
            await self._drain_old()
            if self._subscription is None:
                self._subscription = await self._connection.subscribe(self._connection.new_inbox(), self._on_message)

    async def _drain_old(self) -> None:
        """Close earlier subscriptions. Tasks that the server has sent there are taken, or they wait for ack_wait."""
        while self._old:
            await self._old.pop().drain()

    def _on_message(self, message: Message) -> None:
        self._heard = True
        if not message.reply:
            self._on_status(message)
            return
        self.outstanding -= 1
        self._deliver(message)

    def _deliver(self, message: Message) -> None:
        self._last = delivery = Delivery(self._connection, message.subject, message.data, message.reply)
        self._on_delivery(delivery)

    def _on_late(self, message: Message) -> None:
        """What arrives after it was given up: not counted, but not lost either."""
        if message.reply:
            self._deliver(message)

    def _on_status(self, message: Message) -> None:
        headers = message.headers or {}
        status = headers.get("Status")
        description = headers.get("Description", "").lower()
        if status == "100":
            return
        if status == "503" or "consumer deleted" in description:
            self._give_up("the consumer is missing")
            self._missing()
        elif "Nats-Pending-Messages" in headers:  # the pull has ended, and this is what it still lacked
            self._lower(int(headers["Nats-Pending-Messages"]))
            self._last = None  # whatever waited has gone to others
            if "leadership" in description or "shutdown" in description:
                self._later("room", _RETRY, self._on_room)
            else:
                self._on_room()
        else:  # refused whole, by a limit that somebody has set on the consumer; of which pull is not said
            _log.warning("a pull was refused", extra={"subject": self._subject, "reason": description})
            self._give_up(description)
            self._later("room", _RETRY, self._on_room)

    def _lower(self, count: int) -> None:
        # Tasks that arrive late are not in it, hence no less than nothing.
        self.outstanding = max(0, self.outstanding - count)

    def _missing(self) -> None:
        if self._on_missing is not None:
            self._on_missing()
        else:
            self._later("room", _RETRY, self._on_room)

    def _look(self) -> None:
        """Every heartbeat while something is asked for: was anything heard?"""
        due = self._due
        if self.outstanding <= 0:
            return
        # A late timer means that this process was held up, and its socket was not read either.
        blocked = asyncio.get_running_loop().time() - due > self._heartbeat / 2
        self._silent = 0 if self._heard or blocked else self._silent + 1
        self._heard = False
        if self._silent < 2:
            self._later("watch", self._heartbeat, self._look)
            return
        self._silent = 0
        self._give_up("no heartbeat")
        self._on_room()

    def _give_up(self, reason: str) -> None:
        """Nothing that was asked for is expected any more."""
        _log.debug("pulling ends", extra={"subject": self._subject, "reason": reason})
        self._round += 1
        self.outstanding = 0
        if self._subscription is not None:
            self._subscription.redirect(self._on_late)
            self._old.append(self._subscription)
            self._subscription = None

    def _on_reconnect(self) -> None:
        self._give_up("the connection was lost")
        self._on_room()

    def _on_denied(self, action: str, subject: str) -> None:
        if action == "publish" and subject == self._subject.lower():
            self._give_up("no permission")
            if self._on_error is not None:
                self._on_error(PermissionDenied("publish to", self._subject))

    def _later(self, name: str, delay: float, callback: Callable[[], None]) -> None:
        """Call `callback` in `delay` seconds; a name has one timer, and the first stands."""
        if name in self._timers or self._stopped:
            return
        loop = asyncio.get_running_loop()
        if name == "watch":
            self._due = loop.time() + delay

        def run() -> None:
            self._timers.pop(name, None)
            callback()

        self._timers[name] = loop.call_later(delay, run)
