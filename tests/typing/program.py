"""A program that a user might write: mypy --strict and pyright (strict) have nothing to say about it.

It is not run. `assert_type` says what the checkers have to find out by themselves.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Optional, Union

from typing_extensions import assert_type

import fluvio_cffi
import fluvio_cffi.sync
from fluvio_cffi import Ack, Batch, Client, Consumer, Deliveries, Delivery, Offset, Opening, Producer, Record
from fluvio_cffi.devserver import DevServer


async def produce(client: Client, topic: str) -> None:
    opening = client.producer(
        topic, linger="5ms", buffer="64MiB", delivery_timeout=timedelta(minutes=2), isolation="read_committed"
    )
    assert_type(opening, Opening[Producer])
    async with opening as producer:
        assert_type(producer, Producer)
        ack = await producer.send(b"value", key=bytearray(b"key"), partition=0)
        assert_type(ack, Ack)
        assert_type(ack.offset, int)
        delivery = await producer.submit(memoryview(b"value"))
        assert_type(delivery, Delivery)
        assert_type(await delivery, Ack)
        many = await producer.send_many([b"a", (b"k", b"v"), (None, b"v")])
        assert_type(many, Deliveries)
        assert_type(many[0], Ack)
        assert_type(many[1:], list[Ack])
        for one in many:
            assert_type(one, Ack)
        await producer.send_many([b"a"], keys=[None])
        await producer.flush()


async def consume(client: Client, topic: str) -> None:
    async with client.consumer(topic, start=Offset.beginning(), partitions=[0, 1]) as consumer:
        assert_type(consumer, Consumer)
        async for record in consumer:
            assert_type(record, Record)
            assert_type(record.key, Optional[bytes])
            break
        assert_type(await consumer.receive(), Record)
        async for batch in consumer.batches():
            assert_type(batch, Batch)
            assert_type(batch.values(), list[bytes])
            assert_type(batch.values(views=True), list[memoryview])
            assert_type(batch.keys(), list[Optional[bytes]])
            either = batch.keys(views=flag())
            assert_type(either, Union[list[Optional[bytes]], list[Optional[memoryview]]])
            assert_type(batch.timestamps(), list[Optional[int]])
            assert_type([record.value for record in batch], list[bytes])


def flag() -> bool:
    return True


async def main() -> None:
    async with DevServer(fsync="always") as server:
        client = await asyncio.create_task(fluvio_cffi.connect(server.endpoint))
        assert_type(client, Client)
        await client.admin.topics.create("orders", partitions=3, retention="7d", compression="zstd")
        first, second = await asyncio.gather(client.producer("orders"), client.producer("orders"))
        assert_type(first, Producer)
        assert_type(second, Producer)
        await produce(client, "orders")
        await asyncio.wait_for(consume(client, "orders"), 10)
        await client.aclose()


def twin() -> None:
    with fluvio_cffi.sync.connect("127.0.0.1:9003", timeout=10) as client:
        assert_type(client, fluvio_cffi.sync.Client)
        with client.producer("orders") as producer, client.consumer("orders", timeout=5) as consumer:
            assert_type(producer.send(b"value", timeout=1), Ack)
            delivery = producer.submit(b"value")
            assert_type(delivery, fluvio_cffi.sync.Delivery)
            assert_type(delivery.wait(timeout=3), Ack)
            for record in consumer:
                assert_type(record, Record)
            for batch in consumer.batches():
                assert_type(batch, Batch)


def wrong(client: Client) -> None:
    """What checkers have to refuse: an ignore that is not needed is an error in itself."""
    client.producer("orders", isolation="committed")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    client.consumer("orders", start=5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    client.producer("orders", bach_size=1)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


if __name__ == "__main__":
    asyncio.run(main())
