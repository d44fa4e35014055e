"""What `connect()`, `producer()` and `consumer()` give: whatever takes a coroutine takes it."""

from __future__ import annotations

import asyncio
import inspect
import warnings
from typing import Any

import pytest

import fluvio_cffi
from fluvio_cffi import Client, Producer
from tests.support import ON_ASYNCIO, collect


async def one_by_one(client: Client, topic: str) -> list[Producer]:
    return [await asyncio.create_task(client.producer(topic))]


async def gathered(client: Client, topic: str) -> list[Producer]:
    return list(await asyncio.gather(client.producer(topic), client.producer(topic)))


async def limited(client: Client, topic: str) -> list[Producer]:
    return [await asyncio.wait_for(client.producer(topic), 30)]


async def shielded(client: Client, topic: str) -> list[Producer]:
    return [await asyncio.shield(client.producer(topic))]


@pytest.mark.parametrize("anyio_backend", ON_ASYNCIO, indirect=True)
@pytest.mark.parametrize("way", [one_by_one, gathered, limited, shielded])
async def test_what_takes_a_coroutine_takes_an_opening(client: Client, topic: str, way: Any) -> None:
    for producer in await way(client, topic):
        assert (await producer.send(b"x")).partition == 0
        await producer.aclose()


async def test_it_is_for_one_use(client: Client, topic: str) -> None:
    opening = client.producer(topic)
    assert inspect.isawaitable(opening)
    producer = await opening
    await producer.aclose()
    with pytest.raises(RuntimeError, match="already awaited"):
        await opening


async def test_one_that_is_given_up(client: Client, topic: str) -> None:
    client.producer(topic).close()
    with pytest.warns(RuntimeWarning, match="never awaited"):
        client.producer(topic)
        collect()


def test_asyncio_run(endpoint: str) -> None:
    clients = [asyncio.run(fluvio_cffi.connect(endpoint))]

    async def use() -> None:
        await clients[0].admin.topics.list()

    # Its loop is over, so all that it can do is say so.
    with pytest.raises(RuntimeError, match=r"belongs to another event loop: .* or connect in this one"):
        asyncio.run(use())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        clients.clear()
        collect()
