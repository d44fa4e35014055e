"""Opening and closing: busy, closed, the wrong loop, failures nobody saw, what was forgotten."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

import anyio
import pytest

import fluvio_cffi
from fluvio_cffi import (
    BusyError,
    Client,
    ClosedError,
    DeliveryError,
    FluvioError,
    Offset,
)
from fluvio_cffi.devserver import DevServer
from tests.support import TIMEOUT, collect, eventually, take


async def test_await_and_enter(endpoint: str, anyio_backend: Any) -> None:
    client = await fluvio_cffi.connect(endpoint)
    assert client.endpoint
    assert client.platform_version.count(".") == 2
    assert client.endpoint in repr(client)
    await client.aclose()
    assert "closed" in repr(client)
    await client.aclose()
    async with fluvio_cffi.connect(endpoint) as client:
        pass
    async with await fluvio_cffi.connect(endpoint) as client:
        pass
    with pytest.raises(anyio.ClosedResourceError):
        await client.admin.topics.list()


async def test_use_after_close(endpoint: str, anyio_backend: Any, name: str) -> None:
    async with fluvio_cffi.connect(endpoint) as client:
        await client.admin.topics.create(name)
        producer = await client.producer(name)
        consumer = await client.consumer(name)
        await producer.aclose()
        await producer.aclose()
        await consumer.aclose()
        await consumer.aclose()
        for call in (
            lambda: producer.send(b""),
            lambda: producer.submit(b""),
            lambda: producer.send_many([b""]),
            lambda: producer.flush(),
            lambda: consumer.receive(),
            lambda: consumer.receive_batch(),
            lambda: consumer.__aiter__().__anext__(),
            lambda: consumer.batches().__anext__(),
        ):
            with pytest.raises(anyio.ClosedResourceError) as caught:
                await call()
            assert isinstance(caught.value, ClosedError)
            assert name in str(caught.value)
    for make in (client.producer, client.consumer):
        with pytest.raises(ClosedError):
            make(name)
    with pytest.raises(ClosedError):
        await client.admin.topics.create(name)


async def test_closing_a_client_closes_what_it_opened(endpoint: str, anyio_backend: Any, name: str) -> None:
    async with fluvio_cffi.connect(endpoint) as client:
        await client.admin.topics.create(name)
        producer = await client.producer(name)
        consumer = await client.consumer(name)
        delivery = await producer.submit(b"submitted")
    with pytest.raises(ClosedError):
        await producer.send(b"")
    with pytest.raises(ClosedError):
        await consumer.receive()
    assert (await delivery).offset == 0


async def test_two_readers(client: Client, topic: str) -> None:
    async with client.consumer(topic) as consumer, client.producer(topic) as producer:
        seen: list[bytes] = []

        async def read() -> None:
            seen.append((await consumer.receive()).value)

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            for call in (consumer.receive, consumer.receive_batch, consumer.__anext__):
                with pytest.raises(anyio.BusyResourceError) as caught:
                    await call()
                assert isinstance(caught.value, BusyError)
                assert topic in str(caught.value)
            await producer.send(b"for the first")
        assert seen == [b"for the first"]


async def test_close_ends_a_waiting_reader(client: Client, topic: str) -> None:
    consumer = await client.consumer(topic)
    ended = False

    async def read() -> None:
        nonlocal ended
        async for _ in consumer:
            pass
        ended = True

    with anyio.fail_after(TIMEOUT):
        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            await consumer.aclose()
    assert ended


async def test_failed_deliveries_nobody_awaited(anyio_backend: Any, name: str) -> None:
    async with DevServer() as server, fluvio_cffi.connect(server.endpoint) as client:
        await client.admin.topics.create(name)
        producer = await client.producer(name)
        server.fault("produce-error", topic=name, code="PermissionDenied")
        seen = await producer.submit(b"seen")
        with pytest.raises(FluvioError):
            await seen
        forgotten = await producer.submit(b"forgotten")
        with pytest.raises(DeliveryError) as unseen:
            await producer.aclose()
        assert unseen.value.failed == 1
        assert name in str(unseen.value)
        with pytest.raises(FluvioError):
            await forgotten
        await producer.aclose()


def test_another_loop(endpoint: str, name: str) -> None:
    async def open_all() -> list[Any]:
        client = await fluvio_cffi.connect(endpoint)
        await client.admin.topics.create(name)
        producer = await client.producer(name)
        await producer.send_many([b""] * 10)
        consumer = await client.consumer(name, start=Offset.beginning())
        await take(consumer, 1)
        return [client, producer, consumer]

    async def use(client: Any, producer: Any, consumer: Any) -> None:
        for call in (
            client.admin.topics.list,
            lambda: client.producer(name),
            lambda: producer.send(b""),
            lambda: producer.submit(b""),
            lambda: producer.send_many([b""]),
            lambda: producer.send_many([]),
            producer.flush,
            consumer.receive,
            consumer.receive_batch,
            consumer.__anext__,
            consumer.aclose,
            producer.aclose,
            client.aclose,
        ):
            with pytest.raises(RuntimeError, match="another event loop"):
                await call()

    for backend in ("asyncio", "trio"):
        loop = asyncio.new_event_loop()
        try:
            opened = loop.run_until_complete(open_all())
            anyio.run(use, *opened, backend=backend)
            # In its own loop it is as good as before.
            loop.run_until_complete(opened[1].send(b""))
            loop.run_until_complete(opened[0].aclose())
            loop.run_until_complete(opened_delete(endpoint, name))
        finally:
            loop.close()
        del opened


async def opened_delete(endpoint: str, name: str) -> None:
    async with fluvio_cffi.connect(endpoint) as client:
        await client.admin.topics.delete(name)


def test_a_closed_loop_is_tolerated(endpoint: str) -> None:
    async def open_client() -> Client:
        return await fluvio_cffi.connect(endpoint)

    for backend in ("asyncio", "trio"):
        client = anyio.run(open_client, backend=backend)
        with pytest.raises(RuntimeError):
            anyio.run(client.aclose)
        with pytest.warns(ResourceWarning, match="unclosed <Client"):
            del client
            collect()


def test_no_loop(endpoint: str) -> None:
    with pytest.raises(RuntimeError, match=r"fluvio_cffi\.sync"):
        fluvio_cffi.connect(endpoint).__await__().__next__()


async def test_what_was_forgotten_is_named(endpoint: str, anyio_backend: Any, name: str) -> None:
    async with fluvio_cffi.connect(endpoint) as client:
        await client.admin.topics.create(name)
        producer: Any = await client.producer(name)
        delivery = await producer.submit(b"accepted")
        with pytest.warns(ResourceWarning, match=f"unclosed <Producer topic='{name}'>"):
            del producer
            collect()
        # What was accepted is sent all the same.
        assert (await delivery).offset == 0
        consumer: Any = await client.consumer(name, start=Offset.beginning())
        await take(consumer, 1)
        with pytest.warns(ResourceWarning, match=f"unclosed <Consumer topic='{name}'>"):
            del consumer
            collect()
    forgotten: Any = await fluvio_cffi.connect(endpoint)
    with pytest.warns(ResourceWarning, match="unclosed <Client"):
        del forgotten
        collect()
    await anyio.wait_all_tasks_blocked()


async def test_cycles_are_collected(endpoint: str, anyio_backend: Any, name: str) -> None:
    async with fluvio_cffi.connect(endpoint) as client:
        await client.admin.topics.create(name)
        async with client.producer(name) as producer:
            await producer.send(b"")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del client, producer
        collect()


async def test_many_clients_on_one_loop(endpoint: str, anyio_backend: Any) -> None:
    clients: list[Client] = []

    async def connect() -> None:
        clients.append(await fluvio_cffi.connect(endpoint))

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(connect)
    for client in clients:
        await client.aclose()
    await eventually(lambda: True)
    async with fluvio_cffi.connect(endpoint):
        pass
