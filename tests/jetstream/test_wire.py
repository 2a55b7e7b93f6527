"""The shortcuts past nats-py: the same messages arrive, however the bytes are cut, and many are sent as one write."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import cast

from hypothesis import example, given
from hypothesis import strategies as st
from nats.aio.client import Client as NatsClient
from nats.aio.subscription import Subscription as NatsSubscription

from corral.jetstream.connection import Connection, Message, Subscription
from corral.jetstream.wire import new_client
from tests.servers import ServerProcess
from tests.system.stage import within

OURS, OTHER_OF_OURS, OF_NATS_PY, NOBODYS = 1, 2, 3, 4
BIG = b"x" * 40_000  # more than is put together by copying

FORGED = b"MSG a 1 3\r\nabc\r\n"

payloads = st.one_of(st.binary(max_size=40), st.just(BIG), st.just(b"\r\n" + FORGED), st.just(FORGED + BIG))
subjects = st.sampled_from(["a.b", "a.\x0b\x0c", "a.\0", "a.*", "a.\u2003\x85\xa0"])
plain = st.builds(
    lambda sid, subject, reply, payload: (sid, Message(subject, payload, reply)),
    st.sampled_from([OURS, OTHER_OF_OURS, OF_NATS_PY, NOBODYS]),
    subjects,
    st.sampled_from(["", "$JS.ACK.s.c.1.2.3.4.5"]),
    payloads,
)
with_headers = st.builds(
    lambda sid, subject, payload: (sid, Message(subject, payload, "r", {"Status": "100"})),
    st.sampled_from([OURS, NOBODYS]),
    subjects,
    payloads,
)
items = st.lists(st.one_of(plain, with_headers, st.sampled_from([b"+OK\r\n", b"PONG\r\n"])), max_size=12)
Item = tuple[int, Message] | bytes


def encoded(item: Item) -> bytes:
    if isinstance(item, bytes):
        return item
    sid, message = item
    reply = f"{message.reply} " if message.reply else ""
    head = b"NATS/1.0 100\r\n\r\n" if message.headers else b""
    sizes = f"{len(head)} {len(head) + len(message.data)}" if head else f"{len(message.data)}"
    line = f"{'HMSG' if head else 'MSG'} {message.subject} {sid} {reply}{sizes}\r\n"
    return line.encode() + head + message.data + b"\r\n"


def subscribed(client: NatsClient, sid: int, callback: Callable[[Message], None]) -> Subscription:
    """One of our subscriptions on a client that is not connected."""

    async def flush() -> bool:
        return True

    ours = Subscription("a.b", callback, flush=flush, on_close=lambda _: None)
    client._subs[sid] = NatsSubscription(client, sid, future=cast("asyncio.Future[object]", ours))
    return ours


async def received(pieces: list[bytes]) -> list[tuple[int, Message]]:
    """What reaches callbacks when the bytes come in these pieces."""
    taken: list[tuple[int, Message]] = []
    client = new_client()
    subscribed(client, OURS, lambda message: taken.append((OURS, message)))
    subscribed(client, OTHER_OF_OURS, lambda message: taken.append((OTHER_OF_OURS, message)))
    future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
    client._subs[OF_NATS_PY] = NatsSubscription(client, OF_NATS_PY, future=future)
    future.cancel()  # nats-py then drops what comes for it
    for piece in pieces:
        await client._ps.parse(piece)
    assert not client._ps.buf
    return taken


@given(items, st.lists(st.one_of(st.integers(0, 200), st.integers(0, 100_000)), max_size=10))
@example([(OURS, Message("a.b", b"1")), (OURS, Message("a.b", b"2"))], [14, 15])
@example([(OURS, Message("a.b", BIG, "r")), b"PONG\r\n", (OURS, Message("a.b", b"1"))], [20_000, 35_000, 40_020])
@example([(OURS, Message("a.b", FORGED + BIG))], [1_000, 35_000])
@example([(OURS, Message("a.b", b"1")), (NOBODYS, Message("a.b", b"2")), (OURS, Message("a.b", b"3"))], [3, 20])
def test_the_same_messages_arrive_in_order_however_the_bytes_are_cut(sent: list[Item], cuts: list[int]) -> None:
    data = b"".join(map(encoded, sent))
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[first:last] for first, last in itertools.pairwise(edges)]
    expected = [item for item in sent if not isinstance(item, bytes) and item[0] in (OURS, OTHER_OF_OURS)]
    assert asyncio.run(received(pieces)) == expected


RAW_HEADERS = [
    b"",
    b"NATS",
    b"NATS/1.0",
    b"\r\n\r\n",
    b"no headers\r\n\r\n",
    b"NATS/1.0\r\n\xff\xfe: \xff\r\n\r\n",
    b"NATS/1.0 \xff\xff\xff\r\n\r\n",
    b"NATS/1.0\r\na: b\rc\r\n d\r\n\r\n",
    b"NATS/1.0\r\na: =?utf-8?b?/w==?=\r\n\r\n",
    b"NATS/1.0\r\nStatus: 404\r\n\r\n",
]


@given(
    st.one_of(st.sampled_from([b"a.\xff", b"a.\xed\xa0\x80", b"a.\x0b\xff"]), st.binary(min_size=1, max_size=9)),
    st.one_of(st.none(), st.sampled_from(RAW_HEADERS), st.binary(max_size=30)),
)
def test_a_subject_or_header_that_is_no_text_does_not_keep_later_messages_away(
    name: bytes, headers: bytes | None
) -> None:
    subject = name.translate(None, b" \t\r\n") or b"\xff"  # no server passes these on
    line = b"%b %b %d " % (b"MSG" if headers is None else b"HMSG", subject, OURS)
    sizes = b"" if headers is None else b"%d " % len(headers)
    odd = line + sizes + b"%d\r\n%b1\r\n" % (len(headers or b"") + 1, headers or b"")
    first, second = asyncio.run(received([odd + encoded((OURS, Message("a.b", b"2")))]))
    assert (first[1].subject, first[1].data) == (subject.decode(errors="replace"), b"1")
    assert (
        first[1].headers is None or not {"Status", "Description"} & first[1].headers.keys() or b" " in (headers or b"")
    )
    assert second == (OURS, Message("a.b", b"2"))


async def test_a_closed_subscription_gets_nothing_more_of_what_was_read_with_it() -> None:
    client = new_client()
    taken: list[bytes] = []

    def take(message: Message) -> None:
        taken.append(message.data)
        ours.closed = True

    ours = subscribed(client, OURS, take)
    await client._ps.parse(encoded((OURS, Message("a.b", b"1"))) + encoded((OURS, Message("a.b", b"2"))))
    assert taken == [b"1"]


async def test_one_payload_reaches_many_subjects_in_order(connection: Connection) -> None:
    inbox, count = connection.new_inbox(), 10_000
    taken: list[Message] = []
    complete = asyncio.Event()

    def take(message: Message) -> None:
        taken.append(message)
        if len(taken) == count:
            complete.set()

    await connection.subscribe(f"{inbox}.*", take)
    await connection.publish_to_all([], b"never sent")
    await connection.publish_to_all([f"{inbox}.{number}" for number in range(count)], b"+ACK")
    await within(complete.wait(), "the last message")
    assert taken == [Message(f"{inbox}.{number}", b"+ACK") for number in range(count)]


async def test_many_are_sent_when_the_connection_is_back(server_process: Callable[..., ServerProcess]) -> None:
    server = server_process()
    connection = await Connection.open([server.url], name="test")
    taken: asyncio.Queue[Message] = asyncio.Queue()
    await connection.subscribe("many.*", taken.put_nowait)
    lost = connection._link.lost
    server.stop()
    await within(lost, "the loss of the connection")
    sending = asyncio.create_task(connection.publish_to_all(["many.1", "many.2"], b"+ACK"))
    server.start()
    await within(sending, "the connection")
    assert [await within(taken.get(), "a message") for _ in range(2)] == [
        Message("many.1", b"+ACK"),
        Message("many.2", b"+ACK"),
    ]
    await connection.close()
