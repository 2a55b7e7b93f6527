"""A secured server for tests, and connections to it as each role."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

from corral.client import Client
from corral.credentials import Login
from corral.jetstream.connection import Connection
from corral.roles import ROLE_API
from corral.server import locate
from corral.settings import Settings
from corral.subjects import Names
from tests.system.commands import Corral, Running

ROLES = ("producer", "worker", "operator", "viewer")
NAMES = Names("corral")
TASKS, EVENTS, BUCKET = NAMES.tasks_stream, NAMES.events_stream, NAMES.bucket_stream

APP = """
import asyncio
import os

from corral import App, Topic

app = App()


@app.processor(Topic("many", dict))
async def many(message: dict, ctx) -> None:
    for number in range(message["count"]):
        await ctx.send("one", {"number": number, "bad": number in message.get("bad", [])})


@app.processor(Topic("one", dict))
async def one(message: dict) -> None:
    if message["bad"]:
        raise ValueError("bad one")


@app.processor(Topic("dies", dict))
async def dies(message: dict, ctx) -> None:
    if not os.path.exists(message["seen"]):
        open(message["seen"], "w").close()
        os._exit(9)
    await ctx.start("one", {"bad": False}, unique="from a worker")


@app.processor(Topic("isolated", dict), isolate=True)
def isolated(message: dict, ctx) -> None:
    ctx.send("one", {"bad": False})
    ctx.start("one", {"bad": False})


@app.processor(Topic("long", dict))
async def long(message: dict) -> None:
    await asyncio.sleep(3600)
"""


class Secured:
    """A server with its bookkeeper, both in one process."""

    def __init__(self, corral: Corral) -> None:
        self.corral = corral
        self.folder = corral.folder / "queue"
        self.app = corral.folder / "app.py"
        self.app.write_text(APP)

    @contextmanager
    def running(self) -> Iterator[Running]:
        """It runs while what is inside does."""
        with self.corral.running("server", "--secure", str(self.folder), "--port", "0") as server:
            server.wait_for("tls://")
            yield server

    @contextmanager
    def pool(self) -> Iterator[Running]:
        """A pool with the rights of a worker, at work."""
        with self.corral.running("pool", str(self.app), "-p", "1", "--context", self.context("worker")) as pool:
            pool.wait_for("at work", on="err")
            yield pool

    def context(self, role: str) -> str:
        """The file of a role."""
        return str(self.folder / f"{role}.json")

    async def connect(self, role: str) -> Connection:
        """As a client of this role would connect, if it had no manners."""
        access = locate(login=Login(context=self.context(role))).access
        return await Connection.open(access, name=f"test {role}")

    def client(self, role: str) -> Client:
        """A client of this role."""
        return Client(login=Login(context=self.context(role)), settings=Settings())

    @asynccontextmanager
    async def everybody(self) -> AsyncIterator[dict[str, Connection]]:
        """A connection for each role, and the bookkeeper's."""
        async with AsyncExitStack() as stack:
            connections = {}
            for role in (*ROLES, "bookkeeper"):
                connections[role] = await self.connect(role)
                stack.push_async_callback(connections[role].close)
            yield connections


async def refused(connection: Connection, subject: str, payload: bytes = b"", *, reply: str = "") -> bool:
    """Whether the server refuses a message on a subject, as it says before it answers a ping."""
    denied: list[str] = []
    forget = connection.on_denied(lambda action, name: denied.append(f"{action} {name}"))
    await connection.publish(subject, payload, reply=reply)
    assert await connection.flush()
    forget()
    return f"publish {subject.lower()}" in denied


def api(role: str, call: str) -> str:
    """The subject by which a role would make a call of JetStream's API."""
    return f"{'$JS.API' if role == 'bookkeeper' else ROLE_API}.{call}"
