"""The NATS protocol where it has to be fast: past the parts of nats-py that take longest for each message.

Both directions are shortcuts for what comes by the thousand, tasks and their acknowledgements. Everything else, and
everything that looks odd, is left to nats-py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg as NatsMsg
from nats.errors import ProtocolError
from nats.protocol.parser import AWAITING_CONTROL_LINE, AWAITING_MSG_PAYLOAD, CRLF_SIZE
from nats.protocol.parser import Parser as NatsParser

from corral.jetstream.subscription import Message, Subscription

_SHORT = 32 * 1024
"""Bytes of an unfinished message up to which it is put together here, by copying what is there once more."""


def new_client() -> NatsClient:
    """A client of nats-py with our parser, and our messages instead of its own, which take three times as long."""
    client = _Client()
    client.msg_class = cast("type[NatsMsg]", _make_message)
    client._ps = _Parser(client)  # noqa: SLF001 (nothing public does it)
    return client


async def publish_to_all(client: NatsClient, subjects: Iterable[str], payload: bytes) -> None:
    """Publish one payload to many subjects as a single write, for a tenth of what as many calls of `publish` cost.

    For connected clients, and subjects that came from the server: they are not checked.
    """
    tail = f" {len(payload)}\r\n{payload.decode()}\r\n"
    await client._send_command(f"PUB {f'{tail}PUB '.join(subjects)}{tail}".encode())  # noqa: SLF001
    if client._flush_queue is not None and client._flush_queue.empty():  # noqa: SLF001
        await client._flush_pending()  # noqa: SLF001


class _Client(NatsClient):
    """Takes whatever the server takes: a subject or a header that is no text must not end the reading of all others.

    What is stored once is read by everybody, again and again.
    """

    async def _process_headers(self, headers: bytes | None) -> dict[str, str] | None:
        return parse_headers(headers) if headers else None

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> NatsMsg:
        name, inbox = subject.decode(errors="replace"), reply.decode(errors="replace")
        return self.msg_class(subject=name, reply=inbox, data=data, headers=headers, _client=self, _sid=sid)


def parse_headers(raw: bytes) -> dict[str, str]:
    """The headers of a message, and what the server says on their first line as `Status` and `Description`.

    Only the server says that: headers of these names are left out.
    """
    first, *lines = raw.decode(errors="replace").split("\r\n")
    pairs = (line.partition(":") for line in lines if ":" in line)
    found = {name.strip(): value.strip() for name, _, value in pairs if name.strip() not in ("Status", "Description")}
    version, _, said = first.partition(" ")
    status, _, description = said.strip().partition(" ")
    if version == "NATS/1.0" and status.isdecimal():
        found["Status"] = status
        if description:
            found["Description"] = description.strip()
    return found


class _Parser(NatsParser):
    """Takes messages without headers for our own subscriptions straight from the buffer: 1 us each instead of 4."""

    async def parse(self, data: bytes = b"") -> None:
        """Handle what the server has sent."""
        while True:
            if self.state != AWAITING_CONTROL_LINE:  # nats-py is in the middle of a message, and gets the rest of it
                missing = self.needed + CRLF_SIZE - len(self.buf)
                await super().parse(data[:missing])
                data = data[missing:]
                if self.state != AWAITING_CONTROL_LINE:
                    return  # what is buffered is of that message, and no protocol
            buffer = self.buf
            if buffer:
                data = bytes(buffer) + data
                buffer.clear()
            taken, unfinished = self._take_messages(data)
            data = data[taken:]
            end = data.find(b"\r\n") + 2
            if end < 2 or (unfinished and len(data) < _SHORT):
                buffer.extend(data)
                return
            line, data = data[:end], data[end:]
            if line.startswith((b"MSG ", b"HMSG ")):
                self._begin(line)
                continue
            await super().parse(line)
            if self.buf is not buffer:
                return  # the connection ends, and with it what it has sent
            if buffer:
                raise ProtocolError

    def _begin(self, line: bytes) -> None:
        """Let nats-py take what follows as a message. Its own pattern is confused by a form feed in a subject."""
        try:
            operation, subject, sid, *reply, size = line[:-2].split(b" ")
            header = int(reply.pop()) if operation == b"HMSG" else 0
            self.msg_arg = {"subject": subject, "sid": int(sid), "reply": reply[0] if reply else b""}
            self.needed, self.header_needed = int(size), header
        except (ValueError, IndexError):
            raise ProtocolError from None
        self.state = AWAITING_MSG_PAYLOAD

    def _take_messages(self, data: bytes) -> tuple[int, bool]:
        """Hand over messages up to something else; how many bytes they were, and whether another one has only begun.

        nats-py's own counters of messages stand still meanwhile: they matter only for subscriptions with a limit.
        """
        at, sid, taker = 0, "", None
        while data.startswith(b"MSG ", at):
            end = data.find(b"\r\n", at)
            if end < 0:
                return at, True
            try:
                subject, its_sid, *reply, size = data[at + 4 : end].decode().split(" ")
                last = end + 2 + int(size)
            except ValueError:  # a subject that is no text, or no message at all
                return at, False
            if len(data) < last + 2:
                return at, True
            if its_sid != sid:
                sid, taker = its_sid, self._taker(its_sid)
            if taker is None:
                return at, False
            at_payload, at = end + 2, last + 2
            if not taker.closed:
                taker.set_result(Message(subject, data[at_payload:last], reply[0] if reply else ""))
        return at, False

    def _taker(self, sid: str) -> Subscription | None:
        """The subscription of this id, if it is one of ours."""
        taken = self.nc._subs.get(int(sid)) if sid.isdecimal() else None  # noqa: SLF001
        taker = taken._future if taken is not None else None  # noqa: SLF001
        return taker if isinstance(taker, Subscription) else None


def _make_message(
    subject: str,
    reply: str,
    data: bytes,
    headers: Mapping[str, str] | None,
    _client: NatsClient,
    _sid: int,
) -> Message:
    return Message(subject, data, reply, headers)
