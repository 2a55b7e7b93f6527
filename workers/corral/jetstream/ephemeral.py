"""A short-lived consumer that remembers nothing on the server: what a `Reader` reads through."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Mapping, Sequence

import msgspec

from corral.errors import CorralError, PermissionDenied
from corral.jetstream.connection import Connection
from corral.jetstream.direct import Stored, operation_of
from corral.jetstream.subscription import Message, Subscription

BATCH = 2_000  # messages asked for at once
_MAX_BYTES = 16 << 20  # bytes asked for at once, so that large messages don't pile up
_EXPIRES = 30.0
_INACTIVE = 30.0  # seconds after which the server removes a consumer that nobody reads
_NS = 1_000_000_000


class Ephemeral:
    """One consumer and what came from it. `wake` is set whenever something has come or changed."""

    def __init__(self, connection: Connection, stream: str, wake: asyncio.Event, *, heartbeat: float) -> None:
        self.name = f"r{secrets.token_hex(8)}"
        self.batch: list[Stored] = []
        """What has arrived and was not taken yet."""
        self.time = 0
        """When the last message was stored, in nanoseconds since 1970."""
        self.pending = 0
        """Messages that wait in the stream behind the last one."""
        self.start = 0
        """The sequence before the first that this consumer may deliver."""
        self.broken = ""
        """Why nothing more can come that counts; empty while all is well."""
        self.error: CorralError | None = None
        """Why it makes no sense to try again, when it makes none."""
        self.heard = True
        """Set with everything that arrives, heartbeats included."""
        self._connection = connection
        self._stream = stream
        self._wake = wake
        self._heartbeat = heartbeat
        self._inbox = connection.new_inbox()
        self._pull = connection.api_subject(f"CONSUMER.MSG.NEXT.{stream}.{self.name}")
        self._subscription: Subscription | None = None
        self._forget = connection.on_denied(self._on_denied)
        self._max_bytes = max(_MAX_BYTES, 2 * connection.max_payload)
        self._made = False
        self._delivered = 0  # messages so far, as the server counts them
        self._asked = 0  # asked for, and neither delivered nor expired

    async def create(self, filters: Sequence[str], deliver: Mapping[str, object]) -> None:
        """Make it; `deliver` is the part of its configuration that says where to start. Errors as `Connection.api`."""
        self._subscription = await self._connection.subscribe(self._inbox, self._on_message)
        config: dict[str, object] = {
            "name": self.name,
            "ack_policy": "none",
            "max_deliver": 1,
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": int(_INACTIVE * _NS),
            **deliver,
        }
        suffix = f"CONSUMER.CREATE.{self._stream}.{self.name}"
        if len(filters) == 1:  # permissions can then say which filter is allowed
            config["filter_subject"] = filters[0]
            suffix += f".{filters[0]}"
        elif filters:
            config["filter_subjects"] = list(filters)
        info = await self._connection.api(suffix, {"stream_name": self._stream, "config": config})
        self._made = True
        self.pending = info["num_pending"]
        self.start = info["delivered"]["stream_seq"]

    async def ask(self) -> None:
        """Ask for more, unless enough is on its way."""
        if self.broken or self._asked > BATCH // 2:
            return
        self._asked += BATCH
        body = {
            "batch": BATCH,
            "max_bytes": self._max_bytes,
            "expires": int(_EXPIRES * _NS),
            "idle_heartbeat": int(self._heartbeat * _NS),
        }
        await self._connection.publish(self._pull, msgspec.json.encode(body), reply=self._inbox)

    def breaks(self, reason: str) -> None:
        """What comes from now on does not count; what has come does."""
        self.broken = self.broken or reason
        self._wake.set()

    async def close(self) -> None:
        """Take nothing more, and let the server remove the consumer."""
        self._forget()
        if self._subscription is None:
            return
        with contextlib.suppress(CorralError):  # the server removes it by itself, after _INACTIVE seconds
            await self._subscription.close()
            if self._made and self._connection.connected:
                deleting = self._connection.api_subject(f"CONSUMER.DELETE.{self._stream}.{self.name}")
                await self._connection.publish(deleting)

    def _on_denied(self, action: str, subject: str) -> None:
        if action == "publish" and subject == self._pull.lower():
            self.error = PermissionDenied("publish to", self._pull)
            self.breaks("no permission to pull")

    def _on_message(self, message: Message) -> None:
        self.heard = True
        if self.broken:
            return
        if not message.reply:
            self._on_status(message)
            return
        tokens = message.reply.split(".")
        # $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<ns>.<pending>; a longer form
        # has domain and account before the stream, and one token more at the end.
        sequence, delivered, time_ns, pending = tokens[5:9] if len(tokens) == 9 else tokens[7:11]
        self._delivered += 1
        if int(delivered) != self._delivered:
            self.breaks("a gap")
            return
        self._asked -= 1
        self.time = int(time_ns)
        self.pending = int(pending)
        operation = None if message.headers is None else operation_of(message.headers)
        self.batch.append(Stored(message.subject, int(sequence), self.time / _NS, message.data, operation))
        self._wake.set()

    def _on_status(self, message: Message) -> None:
        headers = message.headers or {}
        status = headers.get("Status")
        if status == "100":
            if int(headers.get("Nats-Last-Consumer", self._delivered)) > self._delivered:
                self.breaks("a gap")
            elif self.pending:
                # Nothing came for a while: there is nothing. The server miscounts what waits, for good, where a
                # subject with a wildcard in it is stored.
                self.pending = 0
                self._wake.set()
        elif "Nats-Pending-Messages" in headers:  # expired, or enough bytes: what the pull still lacked
            self._asked -= int(headers["Nats-Pending-Messages"])
            self._wake.set()
        else:
            self.breaks(f"{status} {headers.get('Description', '')}")
