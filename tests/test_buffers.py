"""What a caller passes is copied at once: whoever changes it later changes nothing that is sent."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator
from typing import Any, Callable, Optional

import anyio
import pytest

from fluvio_cffi import Client, Offset, Record, sync
from fluvio_cffi.devserver import DevServer
from tests.support import TIMEOUT, take

Pairs = list[tuple[Optional[bytes], bytes]]


@pytest.fixture(scope="module")
def server() -> Iterator[DevServer]:
    with DevServer() as server:
        yield server


@pytest.fixture
def endpoint(server: DevServer) -> str:
    return server.endpoint


def reused(make: Callable[[Any], Any], buffer: Any) -> Iterator[Any]:
    """Gives one buffer again and again, each time with something else in it."""
    for number in range(3):
        buffer[0] = ord("0") + number
        yield make(buffer)
    buffer[0] = ord("x")


def record(key: Any, value: Any) -> Record:
    return Record("", 0, 0, key, value, None)


# What is sent, and with which keys; each of three records.
REUSED: dict[str, tuple[Callable[[Any], Any], list[Optional[bytes]]]] = {
    "value": (lambda buffer: buffer, [None] * 3),
    "view": (lambda buffer: memoryview(buffer)[:1], [None] * 3),
    "pair": (lambda buffer: (buffer, memoryview(buffer)), [b"0", b"1", b"2"]),
    "keyless": (lambda buffer: (None, buffer), [None] * 3),
    "record": (lambda buffer: record(buffer, buffer), [b"0", b"1", b"2"]),
}
BUFFERS: list[Callable[[], Any]] = [lambda: bytearray(b"-"), lambda: array("B", b"-")]


@pytest.mark.parametrize("what", REUSED)
async def test_an_iterator_that_reuses_its_buffer(client: Client, topic: str, what: str) -> None:
    make, keys = REUSED[what]
    async with client.producer(topic) as producer:
        for buffer in BUFFERS:
            await producer.send_many(reused(make, buffer()))
    async with client.consumer(topic, start=Offset.beginning()) as consumer:
        records = await take(consumer, 6)
    assert [record.value for record in records] == [b"0", b"1", b"2"] * 2
    assert [record.key for record in records] == keys * 2


async def test_an_iterator_of_keys_that_reuses_its_buffer(client: Client, topic: str) -> None:
    async with client.producer(topic) as producer:
        await producer.send_many([b"a", b"b", b"c"], keys=reused(lambda buffer: buffer, bytearray(1)))
    async with client.consumer(topic, start=Offset.beginning()) as consumer:
        assert [record.key for record in await take(consumer, 3)] == [b"0", b"1", b"2"]


@pytest.mark.parametrize("what", REUSED)
def test_in_the_twin(endpoint: str, name: str, what: str) -> None:
    make, keys = REUSED[what]
    with sync.connect(endpoint) as client:
        client.admin.topics.create(name)
        with client.producer(name) as producer:
            producer.send_many(reused(make, bytearray(b"-")))
        with client.consumer(name, start=Offset.beginning()) as consumer:
            records = [consumer.receive(timeout=TIMEOUT) for _ in range(3)]
    assert [(record.key, record.value) for record in records] == list(zip(keys, [b"0", b"1", b"2"]))


# More than one slice, which are looked at one after the other.
MANY = 9_000
MADE: dict[str, Callable[[list[bytearray]], tuple[Any, Any]]] = {
    "list": lambda buffers: (buffers, None),
    "mixed": lambda buffers: ([b"same"] * (MANY - 1) + buffers[-1:], None),
    "deque": lambda buffers: (deque(buffers), None),
    "views": lambda buffers: (tuple(map(memoryview, buffers)), None),
    "pairs": lambda buffers: ([(buffer, buffer) for buffer in buffers], None),
    "records": lambda buffers: ([record(b"", buffer) for buffer in buffers], None),
    "keys": lambda buffers: ([b"same"] * MANY, buffers),
}


@pytest.mark.parametrize("what", MADE)
async def test_changed_while_a_send_many_is_under_way(client: Client, topic: str, what: str) -> None:
    buffers = [bytearray(b"same") for _ in range(MANY)]
    values, keys = MADE[what](buffers)
    async with client.producer(topic) as producer:
        begun = anyio.Event()

        async def send() -> None:
            begun.set()
            await producer.send_many(values, keys=keys)

        async with anyio.create_task_group() as group:
            group.start_soon(send)
            # Back only when the call waits for something for the first time.
            await begun.wait()
            for buffer in buffers:
                buffer[:] = b"late"
    async with client.consumer(topic, start=Offset.beginning()) as consumer:
        records = await take(consumer, MANY)
    assert {record.value for record in records} == {b"same"}
    assert {record.key for record in records} <= {None, b"", b"same"}


async def test_changed_while_a_call_waits_for_room(client: Client, server: DevServer, topic: str) -> None:
    def large(what: bytes) -> bytearray:
        return bytearray(what * 700)

    async with client.producer(topic, buffer=1024, batch_size=1024) as producer:
        calls: list[Callable[[bytearray, bytearray], Any]] = [
            lambda key, value: producer.send(value, key=key),
            lambda key, value: producer.submit(value, key=key),
            lambda key, value: producer.send_many([value], keys=[key]),
            lambda key, value: producer.send_many([(key, value)]),
            lambda key, value: producer.send(memoryview(value), key=memoryview(key)),
        ]
        for call in calls:
            key, value = bytearray(b"key"), large(b"v")
            begun = anyio.Event()

            async def made(call: Any = call, key: Any = key, value: Any = value, begun: Any = begun) -> None:
                begun.set()
                await call(key, value)

            with server.fault("delay", request="produce") as delay:
                async with anyio.create_task_group() as group:
                    # Takes nearly all of the room, for as long as its answer is delayed.
                    await producer.submit(large(b"f"))
                    group.start_soon(made)
                    await begun.wait()
                    key[:], value[:] = b"bad", large(b"x")
                    delay.clear()
            # The next one finds the room empty.
            await producer.flush()
    async with client.consumer(topic, start=Offset.beginning()) as consumer:
        records = await take(consumer, 2 * len(calls))
    assert [(record.key, record.value[:1]) for record in records] == [(None, b"f"), (b"key", b"v")] * len(
        calls
    )
