"""What a connection promises: it comes back, it says what is refused, and it closes only when told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import nats.aio.client
import pytest

from corral.credentials import Access, Login
from corral.errors import (
    ApiError,
    BadName,
    CorralError,
    NoResponder,
    NoServer,
    PermissionDenied,
    TooLarge,
    Unconfirmed,
)
from corral.jetstream import link, wire
from corral.jetstream.connection import Connection, Message
from tests.servers import ServerProcess

DEADLINE = 30.0
USERS = """
authorization {
    users: [
        { user: all, password: secret }
        { user: few, password: secret, permissions: {
            publish: { allow: ["Allowed.>", "$JS.API.INFO"] }
            subscribe: { allow: ["_INBOX_few.>", "Allowed.>"] }
        } }
    ]
}
"""


@contextlib.asynccontextmanager
async def connected(url: str, *, inbox_prefix: str = "_INBOX") -> AsyncIterator[Connection]:
    access = Access(urls=[url], login=Login(inbox_prefix=inbox_prefix))
    connection = await Connection.open(access, name="test")
    try:
        async with asyncio.timeout(DEADLINE):
            yield connection
    finally:
        await connection.close()


def signalled(connection: Connection) -> asyncio.Event:
    """An event that is set when the connection is back."""
    event = asyncio.Event()
    connection.on_reconnect(event.set)
    return event


async def break_for_good(connection: Connection) -> None:
    """Make nats-py close and stay closed, by a message that the server takes for an attack."""
    client = connection._link.client
    client._max_payload = 1 << 30
    back = signalled(connection)
    await client.publish("x", b"x" * 2_000_000)
    await back.wait()
    assert connection._link.client is not client


# --- opening


async def test_a_missing_server_is_named_without_the_secret(server_process: Callable[..., ServerProcess]) -> None:
    server = server_process()
    server.stop()
    with pytest.raises(NoServer) as caught:
        await Connection.open([f"nats://user:secret@127.0.0.1:{server.port}"], name="test")
    assert caught.value.tried == [f"127.0.0.1:{server.port}"]
    assert "secret" not in str(caught.value)
    assert "refused" in caught.value.reason


async def test_a_frozen_server_is_no_server(server_process: Callable[..., ServerProcess]) -> None:
    server = server_process()
    server.freeze()
    with pytest.raises(NoServer):
        await Connection.open([server.url], name="test", timeout=0.3)


async def test_any_of_several_servers_will_do(nats_url: str, server_process: Callable[..., ServerProcess]) -> None:
    gone = server_process()
    gone.stop()
    connection = await Connection.open([gone.url, nats_url], name="test")
    assert connection.connected
    await connection.close()


async def test_an_address_that_is_none_is_no_server() -> None:
    with pytest.raises(NoServer):
        await Connection.open(["nats://127.0.0.1:port"], name="test")


async def test_a_wrong_password_is_no_permission(server_process: Callable[..., ServerProcess]) -> None:
    server = server_process(extra=USERS)
    with pytest.raises(PermissionDenied, match="log in"):
        await Connection.open([f"nats://all:wrong@127.0.0.1:{server.port}"], name="test")


async def test_an_inbox_of_somebody_else_is_no_permission(server_process: Callable[..., ServerProcess]) -> None:
    server = server_process(extra=USERS)
    with pytest.raises(PermissionDenied, match="subscribe to '_INBOX"):
        await Connection.open([f"nats://few:secret@127.0.0.1:{server.port}"], name="test")


# --- messages


async def test_every_message_reaches_the_callback_in_order(connection: Connection, namespace: str) -> None:
    received: list[Message] = []
    await connection.subscribe(f"{namespace}.>", received.append)
    for number in range(5_000):
        await connection.publish(f"{namespace}.{number}", b"%d" % number)
    await connection.publish(f"{namespace}.end", b"", reply="somewhere", headers={"Name": "value"})
    assert await connection.flush()
    assert [message.data for message in received[:-1]] == [b"%d" % number for number in range(5_000)]
    assert received[-1] == Message(f"{namespace}.end", b"", "somewhere", {"Name": "value"})


async def test_a_closed_subscription_takes_nothing_and_a_drained_one_what_was_sent(
    connection: Connection, namespace: str
) -> None:
    closed: list[Message] = []
    drained: list[Message] = []
    one = await connection.subscribe(namespace, closed.append)
    other = await connection.subscribe(namespace, drained.append)
    for _ in range(100):
        await connection.publish(namespace)
    await one.close()
    await other.drain()
    await connection.publish(namespace)
    await connection.flush()
    assert (len(closed), len(drained)) == (0, 100)


async def test_a_callback_that_fails_takes_nobody_with_it(
    connection: Connection, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    received: list[Message] = []

    def fail(message: Message) -> None:
        raise ValueError(message.subject)

    await connection.subscribe(namespace, fail)
    await connection.subscribe(namespace, received.append)
    await connection.publish(namespace)
    await connection.publish(namespace)
    assert await connection.flush()
    assert len(received) == 2
    assert "a callback failed" in caplog.text


async def test_too_large_is_refused_here_and_costs_nothing(connection: Connection, namespace: str) -> None:
    received: list[Message] = []
    await connection.subscribe(namespace, received.append)
    client = connection._link.client
    limit = connection.max_payload
    with pytest.raises(TooLarge) as caught:
        await connection.publish(namespace, b"x" * (limit + 1))
    assert (caught.value.size, caught.value.limit) == (limit + 1, limit)
    with pytest.raises(TooLarge):  # nats-py looks at the body alone, and closes for good afterwards
        await connection.publish(namespace, b"x" * (limit - 10), headers={"Name": "value"})
    with pytest.raises(TooLarge):
        await connection.publish(f"{namespace}.{'x' * 4096}")
    await connection.publish(namespace, b"x" * limit)
    await connection.publish(namespace, b"x" * (limit - 26), headers={"Name": "value"})
    await connection.publish(f"{namespace}.{'x' * 3900}")
    assert await connection.flush()
    assert [len(message.data) for message in received] == [limit, limit - 26]
    assert connection._link.client is client


async def test_a_subject_that_would_break_the_protocol_is_refused(connection: Connection) -> None:
    for subject in ("", "a b", "a\r\nPUB b 0"):
        with pytest.raises(BadName):
            await connection.publish(subject)


async def test_a_large_backlog_of_messages_is_bounded(connection: Connection, namespace: str) -> None:
    received = 0

    def count(_: Message) -> None:
        nonlocal received
        received += 1

    await connection.subscribe(namespace, count)
    for _ in range(40):
        await connection.publish(namespace, b"x" * 1_000_000)
        assert connection._link.client.pending_data_size < 10 << 20
    assert await connection.flush()
    assert received == 40


# --- requests


async def test_a_request_that_nobody_listens_to_says_so(connection: Connection, namespace: str) -> None:
    with pytest.raises(NoResponder, match=namespace):
        await connection.request(namespace, timeout=DEADLINE)


async def test_a_request_without_a_reply_is_unconfirmed(connection: Connection, namespace: str) -> None:
    await connection.subscribe(namespace, lambda _: None)
    with pytest.raises(Unconfirmed, match=namespace):
        await connection.request(namespace, timeout=0.05)


async def test_requests_get_each_its_own_reply(connection: Connection, namespace: str) -> None:
    questions: list[Message] = []
    all_there = asyncio.Event()

    def gather(message: Message) -> None:
        questions.append(message)
        if len(questions) == 10:
            all_there.set()

    await connection.subscribe(namespace, gather)
    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
        asked = [group.create_task(connection.request(namespace, b"%d" % n, timeout=DEADLINE)) for n in range(10)]
        await all_there.wait()
        for question in reversed(questions):
            await connection.publish(question.reply, b"re " + question.data)
    assert [(await request).data for request in asked] == [b"re %d" % n for n in range(10)]


async def test_an_error_of_the_api_carries_its_code(connection: Connection) -> None:
    assert "limits" in await connection.api("INFO")
    with pytest.raises(ApiError) as caught:
        await connection.api("STREAM.INFO.none")
    assert caught.value.code == 10059


# --- rights


async def test_a_refused_subject_is_named_at_once(server_process: Callable[..., ServerProcess]) -> None:
    server = server_process(extra=USERS)
    url = f"nats://few:secret@127.0.0.1:{server.port}"
    async with connected(url, inbox_prefix="_INBOX_few") as connection:
        await connection.api("INFO")
        with pytest.raises(PermissionDenied) as caught:
            await connection.api("STREAM.INFO.Some", timeout=DEADLINE * 2)
        assert (caught.value.action, caught.value.subject) == ("publish to", "$JS.API.STREAM.INFO.Some")
        with pytest.raises(PermissionDenied) as caught:
            await connection.subscribe("Other.Subject", lambda _: None)
        assert (caught.value.action, caught.value.subject) == ("subscribe to", "Other.Subject")
        received: list[Message] = []
        await connection.subscribe("Allowed.>", received.append)
        await connection.publish("Allowed.subject")
        assert await connection.flush()
        assert len(received) == 1


# --- outages


async def test_subscriptions_survive_a_restart_of_the_server(server_process: Callable[..., ServerProcess]) -> None:
    server = server_process()
    async with connected(server.url) as connection:
        received: list[Message] = []
        await connection.subscribe("a", received.append)
        back = signalled(connection)
        server.restart()
        await back.wait()
        assert connection.lost_at is None
        await connection.publish("a")
        assert await connection.flush()
        assert len(received) == 1


async def test_subscriptions_made_and_ended_in_an_outage_count_afterwards(
    server_process: Callable[..., ServerProcess],
) -> None:
    server = server_process()
    async with connected(server.url) as connection:
        ended: list[Message] = []
        made: list[Message] = []
        ends = await connection.subscribe("a", ended.append)
        server.stop()
        await connection._link.lost
        await ends.close()
        making = asyncio.create_task(connection.subscribe("a", made.append))
        server.start()
        await making
        await connection.publish("a")
        assert await connection.flush()
        assert (len(ended), len(made)) == (0, 1)


async def test_publishing_waits_out_an_outage(server_process: Callable[..., ServerProcess]) -> None:
    server = server_process()
    async with connected(server.url) as connection:
        received = asyncio.Event()
        await connection.subscribe("a", lambda _: received.set())
        server.stop()
        await connection._link.lost
        assert not connection.connected
        assert connection.lost_at is not None
        publishing = asyncio.create_task(connection.publish("a"))
        assert not await connection.flush()
        assert not publishing.done()
        server.start()
        await publishing
        await received.wait()


async def test_the_api_is_asked_again_after_an_outage(server_process: Callable[..., ServerProcess]) -> None:
    server = server_process()
    async with connected(server.url) as connection:
        server.freeze()
        asking = asyncio.create_task(connection.api("INFO", timeout=DEADLINE))
        await asyncio.sleep(0)
        server.kill()
        server.start()
        assert "limits" in await asking


async def test_without_a_server_a_request_says_so_at_its_timeout(server_process: Callable[..., ServerProcess]) -> None:
    server = server_process()
    async with connected(server.url) as connection:
        server.stop()
        await connection._link.lost
        with pytest.raises(NoServer, match=str(server.port)):
            await connection.api("INFO", timeout=0.05)


async def test_a_client_that_closed_for_good_is_replaced(server_process: Callable[..., ServerProcess]) -> None:
    server = server_process()
    async with connected(server.url) as connection:
        received: list[Message] = []
        await connection.subscribe("a", received.append)
        for _ in range(2):
            await break_for_good(connection)
            await connection.publish("a")
            assert await connection.flush()
            assert "limits" in await connection.api("INFO")
        assert len(received) == 2


async def test_a_late_answer_to_a_flush_harms_nothing(server_process: Callable[..., ServerProcess]) -> None:
    server = server_process()
    async with connected(server.url) as connection:
        received: list[Message] = []
        await connection.subscribe("a", received.append)
        server.freeze()
        assert not await connection.flush(timeout=0.01)
        server.thaw()
        await connection.publish("a")
        assert await connection.flush()
        assert len(received) == 1


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # nats-py leaves sockets of failed attempts open
async def test_a_frozen_server_is_left_even_with_unsent_bytes(
    nats_url: str, server_process: Callable[..., ServerProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "_PING_INTERVAL", 0.1)
    monkeypatch.setattr(link, "_CONNECT_TIMEOUT", 0.3)
    server = server_process()
    async with connected(server.url) as connection:
        back = signalled(connection)
        server.freeze()
        # More than the sockets hold, so that closing the old one in good order would wait for the server.
        sending = [asyncio.create_task(connection.publish("a", b"x" * 1_000_000)) for _ in range(20)]
        await connection._link.lost
        connection._link.client.set_server_pool([nats_url])
        await back.wait()
        await asyncio.gather(*sending)
        assert await connection.flush()


async def test_a_connection_may_be_closed_while_its_client_is_replaced(
    server_process: Callable[..., ServerProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced = asyncio.Event()

    def new_client() -> nats.aio.client.Client:
        replaced.set()
        return wire.new_client()

    server = server_process()
    connection = await Connection.open([server.url], name="test")
    monkeypatch.setattr(link, "new_client", new_client)
    server.stop()
    await connection._link.lost
    await connection._link.client.close()
    async with asyncio.timeout(DEADLINE):
        await replaced.wait()
        await connection.close()


async def test_a_closed_connection_says_so_and_wakes_who_waits(server_process: Callable[..., ServerProcess]) -> None:
    server = server_process()
    connection = await Connection.open([server.url], name="test")
    server.stop()
    await connection._link.lost
    waiting = asyncio.create_task(connection.publish("a"))
    await asyncio.sleep(0)
    await connection.close()
    with pytest.raises(CorralError, match="closed"):
        await waiting
    with pytest.raises(CorralError, match="closed"):
        await connection.publish("a")
