"""Cancelled at random moments, nothing is lost, left behind or left hanging."""

from __future__ import annotations

import random
import time
from functools import partial
from typing import Any, Callable

import anyio
import pytest

import fluvio_cffi
from fluvio_cffi import Client, Offset
from fluvio_cffi._library import lib
from tests.support import TIMEOUT


class Moments:
    """Random moments around the time that an operation takes, learnt while going on."""

    def __init__(self, longest: float = 0.05) -> None:
        self._longest = longest
        self._random = random.Random(5)
        self._usual = 0.001

    async def cancel_at_one(self, operation: Callable[[], Any]) -> Any:
        """Run it, cancelled at a random moment; its result, or None if it was cancelled."""
        result = None
        started = time.perf_counter()
        with anyio.fail_after(TIMEOUT), anyio.move_on_after(self._random.random() * 2 * self._usual) as scope:
            result = await operation()
        took = time.perf_counter() - started
        if not scope.cancelled_caught:
            self._usual += (took - self._usual) / 10
        else:
            self._usual *= 1.005
        self._usual = min(self._usual, self._longest)
        return result


async def test_connect(endpoint: str, anyio_backend: Any, races: int) -> None:
    moments = Moments()
    connected = 0
    for _ in range(races):
        client = await moments.cancel_at_one(lambda: fluvio_cffi.connect(endpoint))
        if client is not None:
            connected += 1
            await client.aclose()
    assert connected > 0


async def test_close(endpoint: str, anyio_backend: Any, races: int) -> None:
    moments = Moments()
    for _ in range(races):
        client = await fluvio_cffi.connect(endpoint)
        await moments.cancel_at_one(client.aclose)
        with pytest.raises(anyio.ClosedResourceError):
            await client.admin.topics.list()


async def test_send(client: Client, topic: str, races: int) -> None:
    """Accepted is sent: every record arrives once, in order, and those cancelled too late too."""
    moments = Moments()
    acknowledged: list[tuple[int, int]] = []
    async with client.producer(topic) as producer:
        for number in range(races):
            ack = await moments.cancel_at_one(partial(producer.send, b"%d" % number))
            if ack is not None:
                acknowledged.append((ack.offset, number))
        last = await producer.send(b"last")
    values = await read(client, topic, last.offset + 1)
    numbers = [int(value) for value in values[:-1]]
    assert numbers == sorted(set(numbers))
    for offset, number in acknowledged:
        assert numbers[offset] == number


async def test_send_without_room(client: Client, topic: str, races: int) -> None:
    """Cancelled while it waits for room, a record was not sent; the room is not lost."""
    moments = Moments()
    large = b"x" * 700
    async with client.producer(topic, buffer=1024, batch_size=1024) as producer:
        for number in range(races):
            async with anyio.create_task_group() as group:
                group.start_soon(producer.send, b"first %d " % number + large)
                await anyio.lowlevel.checkpoint()
                ack = await moments.cancel_at_one(partial(producer.send, b"second %d " % number + large))
                if ack is None:
                    await moments.cancel_at_one(lambda: producer.submit(b"third " + large))
        # Had any room been lost, this would wait for ever.
        with anyio.fail_after(TIMEOUT):
            last = await producer.send(b"last" + large)
    values = await read(client, topic, last.offset + 1)
    firsts = [value for value in values if value.startswith(b"first")]
    assert len(firsts) == races
    seconds = [value for value in values if value.startswith(b"second")]
    assert len(seconds) == len(set(seconds))


async def test_send_many(client: Client, topic: str, races: int) -> None:
    moments = Moments()
    async with client.producer(topic, buffer=256 * 1024) as producer:
        for number in range(max(races // 10, 1)):
            await moments.cancel_at_one(
                partial(producer.send_many, [b"%d %d" % (number, i) for i in range(2000)])
            )
        with anyio.fail_after(TIMEOUT):
            last = await producer.send(b"x" * 200_000)
    values = await read(client, topic, last.offset + 1)
    pairs = [tuple(map(int, value.split())) for value in values[:-1]]
    assert pairs == sorted(set(pairs))


async def test_consume(client: Client, topic: str, races: int) -> None:
    """Every record comes exactly once, in order, however often reading is cancelled."""
    count = races * 3
    seen: list[int] = []
    moments = Moments(longest=0.003)
    async with (
        client.producer(topic) as producer,
        client.consumer(topic, start=Offset.beginning()) as consumer,
    ):

        async def produce() -> None:
            sent = 0
            while sent < count:
                size = min(random.Random(sent).randrange(1, 40), count - sent)
                await producer.send_many([b"%d" % number for number in range(sent, sent + size)])
                sent += size

        async def read_some() -> None:
            if random.random() < 0.3:
                async for batch in consumer.batches():
                    seen.extend(int(value) for value in batch.values())
            else:
                async for record in consumer:
                    seen.append(int(record.value))

        async with anyio.create_task_group() as group:
            group.start_soon(produce)
            with anyio.fail_after(TIMEOUT + races / 50):
                for _ in range(races):
                    await moments.cancel_at_one(read_some)
                while len(seen) < count:
                    seen.append(int((await consumer.receive()).value))
    assert seen == list(range(count))


async def test_consumer_open_and_close(client: Client, topic: str, races: int) -> None:
    moments = Moments()
    async with client.producer(topic) as producer:
        await producer.send_many([b"%d" % number for number in range(100)])

    async def use() -> None:
        async with client.consumer(topic, start=Offset.beginning()) as consumer:
            await consumer.receive()

    for _ in range(races):
        await moments.cancel_at_one(use)


async def test_flush_and_delivery(client: Client, topic: str, races: int) -> None:
    """Giving up on an answer takes nothing back, and it can be asked for again."""
    moments = Moments()
    async with client.producer(topic) as producer:
        delivery = await producer.submit(b"0")
        for number in range(1, races):
            delivery = await producer.submit(b"%d" % number)
            if number % 2:
                await moments.cancel_at_one(delivery.wait)
            else:
                await moments.cancel_at_one(producer.flush)
            if number % 10 == 0:
                assert (await delivery).offset == number
    assert (await delivery).offset == races - 1


async def test_cancelled_within_a_batch(client: Client, topic: str) -> None:
    """Between the records of a batch nothing is waited for; cancellation is noticed all the same, at once."""
    async with client.producer(topic) as producer:
        await producer.send_many([b""] * 1000)
    seen = 0
    async with client.consumer(topic, start=Offset.beginning()) as consumer:
        for limit in (1, 3, 300):
            before = seen
            with anyio.CancelScope() as scope:
                async for record in consumer:
                    assert record.offset == seen
                    seen += 1
                    if seen - before == limit:
                        scope.cancel()
            assert scope.cancelled_caught
            assert seen - before == limit


async def test_others_run_while_a_batch_is_read(client: Client, topic: str) -> None:
    async with client.producer(topic) as producer:
        await producer.send_many([b""] * 5000)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with client.consumer(topic, start=Offset.beginning()) as consumer:
        async with anyio.create_task_group() as group:
            group.start_soon(other)
            seen = 0
            async for _ in consumer:
                seen += 1
                if seen == 5000:
                    break
            group.cancel_scope.cancel()
    assert turns >= 5000 // 256


async def read(client: Client, topic: str, count: int) -> list[bytes]:
    values: list[bytes] = []
    async with client.consumer(topic, start=Offset.beginning()) as consumer:
        with anyio.fail_after(TIMEOUT):
            async for batch in consumer.batches():
                values.extend(batch.values())
                if len(values) >= count:
                    break
    assert len(values) == count
    return values


async def test_a_cancelled_close_delivers_what_is_there(endpoint: str, name: str) -> None:
    """More acknowledgements than one round of the queue, of which the loop knows nothing yet."""
    client = await fluvio_cffi.connect(endpoint)
    await client.admin.topics.create(name)
    producer = await client.producer(name, linger=30)
    deliveries = [await producer.submit(b"x") for _ in range(5000)]
    # Blocks the loop until each has its fate.
    assert lib.fluvio_flush_all(20_000) == 0
    with anyio.CancelScope() as scope:
        scope.cancel()
        await client.aclose()
    assert [(await delivery).offset for delivery in deliveries] == list(range(5000))
