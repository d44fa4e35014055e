"""What is sent comes back: keys, values, offsets, order, batches, partitions, on every backend."""

from __future__ import annotations

import pickle
import time

import anyio
import pytest

from fluvio_cffi import Ack, Batch, Client, Offset, Record
from tests.support import TIMEOUT, take


@pytest.mark.parametrize("key", [None, b"", b"key"], ids=["null", "empty", "key"])
@pytest.mark.parametrize("value", [b"", b"value", bytes(range(256)) * 40], ids=["empty", "short", "long"])
async def test_one_record(client: Client, topic: str, key: bytes | None, value: bytes) -> None:
    before = int(time.time() * 1000) - 1000
    async with client.producer(topic) as producer:
        assert await producer.send(value, key=key) == Ack(0, 0)
    async with client.consumer(topic, start=Offset.beginning()) as consumer:
        (record,) = await take(consumer, 1)
    assert (record.topic, record.partition, record.offset) == (topic, 0, 0)
    assert record.key == key
    assert record.value == value
    assert record.timestamp is not None
    assert before <= record.timestamp <= before + 60_000


async def test_all_kinds_of_bytes(client: Client, topic: str) -> None:
    async with client.producer(topic) as producer:
        await producer.send(bytearray(b"array"), key=memoryview(b"view"))
        await producer.send(memoryview(b"0123456789")[2:5], key=bytearray(b"k"))
        await producer.send_many([bytearray(b"a"), memoryview(b"b"), b"c"], keys=[None, bytearray(b""), b"k"])
    async with client.consumer(topic, start=Offset.beginning()) as consumer:
        records = await take(consumer, 5)
    assert [(record.key, record.value) for record in records] == [
        (b"view", b"array"),
        (b"k", b"234"),
        (None, b"a"),
        (b"", b"b"),
        (b"k", b"c"),
    ]


async def test_many_records_in_order(client: Client, topic: str) -> None:
    count = 50_000
    values = [b"value %d" % number for number in range(count)]
    async with client.producer(topic) as producer:
        deliveries = await producer.send_many(values)
        assert len(deliveries) == count
        assert deliveries.failed == 0
        assert list(deliveries.offsets) == list(range(count))
        assert deliveries[-1] == Ack(0, count - 1)
        assert list(deliveries)[:2] == [Ack(0, 0), Ack(0, 1)]
        assert deliveries[1:3] == [Ack(0, 1), Ack(0, 2)]
    async with client.consumer(topic, start=Offset.beginning()) as consumer:
        with anyio.fail_after(TIMEOUT):
            seen: list[bytes] = []
            async for record in consumer:
                assert record.offset == len(seen)
                seen.append(record.value)
                if len(seen) == count:
                    break
    assert seen == values


async def test_send_many_keys_records_and_pairs(client: Client, topic: str) -> None:
    async with client.producer(topic) as producer:
        await producer.send_many([b"1", b"2", b"3"], keys=[None, b"", b"key"])
        await producer.send_many([(b"k", b"4"), (None, b"5")])
        await producer.send_many(value for value in (b"6", b"7"))
        assert len(await producer.send_many([])) == 0
        async with client.consumer(topic, start=Offset.beginning()) as consumer:
            records = await take(consumer, 7)
        await producer.send_many(records[:3])
        async with client.consumer(topic, start=Offset.absolute(7)) as consumer:
            again = await take(consumer, 3)
    assert [(record.key, record.value) for record in records] == [
        (None, b"1"),
        (b"", b"2"),
        (b"key", b"3"),
        (b"k", b"4"),
        (None, b"5"),
        (None, b"6"),
        (None, b"7"),
    ]
    assert [(record.key, record.value) for record in again] == [(None, b"1"), (b"", b"2"), (b"key", b"3")]


async def test_send_many_through_a_small_buffer(client: Client, topic: str) -> None:
    values = [b"%06d" % number + b"x" * 2000 for number in range(3000)]
    async with client.producer(topic, buffer=64 * 1024, batch_size=16 * 1024) as producer:
        deliveries = await producer.send_many(values, keys=[b"key"] * len(values))
    assert list(deliveries.offsets) == list(range(len(values)))
    async with client.consumer(topic, start=Offset.beginning()) as consumer:
        assert [record.value for record in await take(consumer, len(values))] == values


async def test_submit_and_flush(client: Client, topic: str) -> None:
    async with client.producer(topic) as producer:
        deliveries = [await producer.submit(b"%d" % number) for number in range(100)]
        await producer.flush()
        assert [(await delivery).offset for delivery in deliveries] == list(range(100))
        # As often as one likes, also by several tasks at once.
        late = await producer.submit(b"late")
        acks = []

        async def wait() -> None:
            acks.append(await late)

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(wait)
        assert acks == [Ack(0, 100)] * 3
        assert await late.wait() == Ack(0, 100)
    assert await late == Ack(0, 100)


async def test_many_tasks_with_a_small_buffer(client: Client, topic: str) -> None:
    offsets: list[int] = []
    async with client.producer(topic, buffer=8 * 1024, batch_size=2 * 1024) as producer:

        async def work(number: int) -> None:
            for _ in range(20):
                offsets.append((await producer.send(b"x" * 1000, key=b"%d" % number)).offset)

        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(work, number)
    assert sorted(offsets) == list(range(1000))


async def test_partitions(client: Client, name: str) -> None:
    await client.admin.topics.create(name, partitions=3)
    async with client.producer(name) as producer:
        assert producer.partition_count == 3
        for partition in range(3):
            for number in range(10):
                ack = await producer.send(b"%d %d" % (partition, number), partition=partition)
                assert ack == Ack(partition, number)
        same = {(await producer.send(b"", key=b"the same key")).partition for _ in range(5)}
        assert len(same) == 1
        (number,) = same
    async with client.consumer(name, start=Offset.beginning(), partitions=1) as consumer:
        records = await take(consumer, 10)
        assert [record.value for record in records] == [b"1 %d" % item for item in range(10)]
    async with client.consumer(name, start=Offset.beginning(), partitions=[0, 2]) as consumer:
        records = await take(consumer, 20 if number == 1 else 25)
        assert {record.partition for record in records} == {0, 2}
    async with client.producer(name) as producer:
        together = await producer.send_many([b""] * 297)
        assert len(set(together.partitions)) < 3
        # Each is a batch of its own: the next goes on with the next partition.
        assert {(await producer.send(b"")).partition for _ in range(3)} == {0, 1, 2}
    async with client.consumer(name, start=Offset.beginning()) as consumer:
        records = await take(consumer, 335)
    for partition in range(3):
        offsets = [record.offset for record in records if record.partition == partition]
        assert offsets == list(range(len(offsets)))


async def test_start_offsets(client: Client, topic: str) -> None:
    async with client.producer(topic) as producer:
        await producer.send_many([b"%d" % number for number in range(100)])
        for start, first in [
            (Offset.beginning(), 0),
            (Offset.beginning(7), 7),
            (Offset.end(1), 99),
            (Offset.end(100), 0),
            (Offset.absolute(0), 0),
            (Offset.absolute(55), 55),
        ]:
            async with client.consumer(topic, start=start) as consumer:
                (record,) = await take(consumer, 1)
                assert record.offset == first, start
        async with (
            client.consumer(topic) as consumer,
            client.consumer(topic, start=Offset.absolute(100)) as other,
        ):
            await producer.send(b"new")
            assert (await take(consumer, 1))[0].offset == 100
            assert (await take(other, 1))[0].offset == 100


async def fill(client: Client, topic: str, count: int) -> None:
    async with client.producer(topic) as producer:
        await producer.send_many(
            [b"value %d" % number for number in range(count)],
            keys=[
                None if number % 3 == 0 else b"" if number % 3 == 1 else b"%d" % number
                for number in range(count)
            ],
        )


async def test_batches(client: Client, topic: str) -> None:
    count = 20_000
    await fill(client, topic, count)
    batches: list[Batch] = []
    total = 0
    async with client.consumer(topic, start=Offset.beginning()) as consumer:
        with anyio.fail_after(TIMEOUT):
            async for batch in consumer.batches():
                batches.append(batch)
                total += len(batch)
                if total == count:
                    break
    # They outlive their consumer.
    start = 0
    for batch in batches:
        assert batch.topic == topic
        assert batch.partition == 0
        assert batch.high_watermark >= start + len(batch)
        offsets = list(range(start, start + len(batch)))
        assert batch.offsets() == offsets
        values = [b"value %d" % offset for offset in offsets]
        assert batch.values() == values
        keys = [None if offset % 3 == 0 else b"" if offset % 3 == 1 else b"%d" % offset for offset in offsets]
        assert batch.keys() == keys
        stamps = batch.timestamps()
        assert len(stamps) == len(batch)
        expected = [Record(topic, 0, *row) for row in zip(offsets, keys, values, stamps)]
        assert batch.records() == expected
        assert list(batch) == expected
        assert repr(batch).startswith("<Batch topic=")
        start += len(batch)


async def test_views_keep_the_response_alive(client: Client, topic: str) -> None:
    await fill(client, topic, 1000)
    async with client.consumer(topic, start=Offset.beginning()) as consumer:
        batch = await consumer.receive_batch()
    count = len(batch)
    values = batch.values(views=True)
    keys = batch.keys(views=True)
    del batch
    assert all(value.readonly for value in values)
    assert [bytes(value) for value in values] == [b"value %d" % number for number in range(count)]
    assert keys[0] is None
    assert [bytes(key) for key in keys[1:3] if key is not None] == [b"", b"2"]


async def test_mixed_iteration(client: Client, topic: str) -> None:
    count = 3000
    await fill(client, topic, count)
    seen: list[int] = []
    async with client.consumer(topic, start=Offset.beginning()) as consumer:
        with anyio.fail_after(TIMEOUT):
            while len(seen) < count:
                async for record in consumer:
                    seen.append(record.offset)
                    if len(seen) % 700 in (0, 256, 257) or len(seen) == count:
                        break
                if len(seen) == count:
                    break
                # The rest of the batch that is being iterated over comes first.
                async for batch in consumer.batches():
                    assert batch.offsets()[0] == len(seen)
                    seen.extend(batch.offsets())
                    break
    assert seen == list(range(count))


async def test_live_records(client: Client, topic: str) -> None:
    async with client.producer(topic) as producer, client.consumer(topic) as consumer:
        for number in range(50):
            await producer.send(b"%d" % number)
            (record,) = await take(consumer, 1)
            assert record.value == b"%d" % number


async def test_two_topics_on_one_client(client: Client, topic: str) -> None:
    other = topic + "-b"
    await client.admin.topics.create(other)
    async with client.producer(topic) as first, client.producer(other) as second:
        await first.send(b"first")
        await second.send(b"second")
    for where, value in ((topic, b"first"), (other, b"second")):
        async with client.consumer(where, start=Offset.beginning()) as consumer:
            (record,) = await take(consumer, 1)
            assert (record.topic, record.value) == (where, value)


def test_record() -> None:
    record = Record("t", 1, 2, None, b"value", 3)
    assert record == Record("t", 1, 2, None, b"value", 3)
    assert record != Record("t", 1, 2, b"", b"value", 3)
    assert hash(record) == hash(Record("t", 1, 2, None, b"value", 3))
    assert repr(record) == "Record(topic='t', partition=1, offset=2, key=None, value=b'value', timestamp=3)"
    assert pickle.loads(pickle.dumps(record)) == record
    with pytest.raises(AttributeError):
        record.value = b"other"  # type: ignore[misc]
