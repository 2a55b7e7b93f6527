"""A connection and the streams of a fresh namespace on the session's server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from corral.jetstream import streams, topology
from corral.jetstream.connection import Connection
from corral.jetstream.publisher import Publisher
from corral.settings import Settings
from corral.subjects import Names


@pytest.fixture
async def connection(nats_url: str) -> AsyncIterator[Connection]:
    connection = await Connection.open([nats_url], name="test")
    yield connection
    await connection.close()


@pytest.fixture
async def names(connection: Connection, namespace: str) -> AsyncIterator[Names]:
    """The names of a namespace whose streams are there."""
    names = Names(namespace)
    await streams.ensure(connection, names, Settings())
    yield names
    await topology.destroy(connection, names)


@pytest.fixture
async def publisher(connection: Connection) -> AsyncIterator[Publisher]:
    publisher = Publisher(connection)
    yield publisher
    await publisher.close()
