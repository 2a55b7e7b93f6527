"""The simplest thing that could do the same, by plain nats-py, in a process of its own.

python -m benchmarks.raw URL pull COUNT SLOTS      pull and acknowledge; prints messages/s
python -m benchmarks.raw URL publish COUNT WINDOW  publish and count acknowledgements; prints messages/s
python -m benchmarks.raw URL store COUNT FLIGHT    publish, so many in flight, each awaited; prints messages/s
python -m benchmarks.raw URL purge COUNT           publish, then purge by subject; prints the seconds of the purge
python -m benchmarks.raw URL listen SUBJECT        note the arrival of each message, until standard input ends
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from benchmarks.moments import note

SUBJECT = "raw.task.0123456789ab.nothing"
PAYLOAD = b'{"task":[1234,%d],"round":0,"body":{"id":%d}}'


async def pull(client: Client, count: int, slots: int) -> float:
    """Pull as many as there are slots, acknowledge each in the callback, and pull again when all have come."""
    await _make_stream(client, "workqueue")
    await _fill(client, count)
    consumer = {"durable_name": "raw", "ack_policy": "explicit", "ack_wait": 15_000_000_000, "max_ack_pending": -1}
    await _api(client, "CONSUMER.DURABLE.CREATE.RAW.raw", {"stream_name": "RAW", "config": consumer})
    inbox = client.new_inbox()
    done = asyncio.Event()
    received, began = 0, 0.0

    async def ask() -> None:
        body = b'{"batch":%d,"expires":30000000000}' % slots
        await client.publish("$JS.API.CONSUMER.MSG.NEXT.RAW.raw", body, inbox)

    async def on_message(message: Msg) -> None:
        nonlocal received, began
        if received == 0:
            began = time.perf_counter()
        received += 1
        await client.publish(message.reply, b"+ACK")
        if received == count:
            done.set()
        elif received % slots == 0:
            await ask()

    await client.subscribe(inbox, cb=on_message)
    await ask()
    await done.wait()
    await client.flush()
    return (count - 1) / (time.perf_counter() - began)


async def publish(client: Client, count: int, window: int) -> float:
    """Publish with at most two windows of messages on their way, and count the acknowledgements in the callback."""
    await _make_stream(client, "limits")
    inbox = client.new_inbox()
    acknowledged, news = 0, asyncio.Event()

    async def on_ack(_: Msg) -> None:
        nonlocal acknowledged
        acknowledged += 1
        if acknowledged % window == 0 or acknowledged == count:
            news.set()

    await client.subscribe(f"{inbox}.*", cb=on_ack)
    began = time.perf_counter()
    for number in range(count):
        await client.publish(SUBJECT, PAYLOAD % (number, number), f"{inbox}.{number}")
        if number % window == 0:
            while number - acknowledged > window:
                news.clear()
                await news.wait()
    while acknowledged < count:
        news.clear()
        await news.wait()
    return count / (time.perf_counter() - began)


async def store(client: Client, count: int, flight: int) -> float:
    """Store messages one by one, `flight` at once."""
    await _make_stream(client, "limits")
    stream = client.jetstream()
    numbers = iter(range(count))

    async def row() -> None:
        for number in numbers:
            await stream.publish(SUBJECT, PAYLOAD % (number, number))

    began = time.perf_counter()
    await asyncio.gather(*[row() for _ in range(flight)])
    return count / (time.perf_counter() - began)


async def purge(client: Client, count: int) -> float:
    """Remove all messages of one subject."""
    await _make_stream(client, "workqueue")
    await _fill(client, count)
    began = time.perf_counter()
    await _api(client, "STREAM.PURGE.RAW", {"filter": SUBJECT})
    return time.perf_counter() - began


async def listen(client: Client, subject: str) -> None:
    """Note each message's arrival in the callback."""

    async def on_message(_: Msg) -> None:
        note("heard")

    await client.subscribe(subject, cb=on_message)
    await client.flush()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)


async def _make_stream(client: Client, retention: str) -> None:
    await _api(client, "STREAM.DELETE.RAW", {}, may_fail=True)
    config = {"name": "RAW", "subjects": ["raw.task.>"], "storage": "file", "retention": retention, "discard": "new"}
    await _api(client, "STREAM.CREATE.RAW", config)


async def _fill(client: Client, count: int) -> None:
    for number in range(count):
        await client.publish(SUBJECT, PAYLOAD % (number, number))
    while (await _api(client, "STREAM.INFO.RAW", {}))["state"]["messages"] < count:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def _api(client: Client, suffix: str, body: dict[str, Any], *, may_fail: bool = False) -> dict[str, Any]:
    reply = await client.request(f"$JS.API.{suffix}", json.dumps(body).encode(), timeout=30)
    answer: dict[str, Any] = json.loads(reply.data)
    if "error" in answer and not may_fail:
        raise RuntimeError(f"{suffix}: {answer['error']}")
    return answer


async def _main(url: str, what: str, *arguments: str) -> None:
    client = await nats.connect(url)
    if what == "listen":
        await listen(client, *arguments)
    else:
        print(await MEASURES[what](client, *map(int, arguments)), flush=True)
    await client.close()


MEASURES: dict[str, Callable[..., Awaitable[float]]] = {
    "pull": pull,
    "publish": publish,
    "store": store,
    "purge": purge,
}

if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
