"""Topics: create, list, delete, and what goes wrong with them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from fluvio_cffi import (
    Client,
    FluvioError,
    TopicAlreadyExistsError,
    TopicInfo,
    TopicNotFoundError,
)


async def find(client: Client, name: str) -> TopicInfo:
    (topic,) = [topic for topic in await client.admin.topics.list([name]) if topic.name == name]
    return topic


async def test_create_list_delete(client: Client, name: str) -> None:
    await client.admin.topics.create(name, partitions=3)
    topic = await find(client, name)
    assert (topic.partitions, topic.replication, topic.system) == (3, 1, False)
    assert name in [topic.name for topic in await client.admin.topics.list()]
    await client.admin.topics.delete(name)
    assert await client.admin.topics.list([name]) == []


@pytest.mark.parametrize(
    ("retention", "milliseconds"),
    [("7d", 604_800_000), ("1h 30m", 5_400_000), (90, 90_000), (timedelta(minutes=2), 120_000)],
)
async def test_options(client: Client, name: str, retention: Any, milliseconds: int) -> None:
    await client.admin.topics.create(
        name,
        retention=retention,
        segment_size="10MiB",
        max_partition_size=100_000_000,
        compression="zstd",
    )
    topic = await find(client, name)
    assert topic.retention_ms == milliseconds
    assert topic.segment_size_bytes == 10 * 1024 * 1024
    assert topic.max_partition_size_bytes == 100_000_000
    assert topic.compression == "zstd"
    await client.admin.topics.delete(name)


async def test_dry_run(client: Client, name: str) -> None:
    await client.admin.topics.create(name, dry_run=True)
    assert await client.admin.topics.list([name]) == []


async def test_errors(client: Client, name: str) -> None:
    await client.admin.topics.create(name)
    with pytest.raises(TopicAlreadyExistsError) as caught:
        await client.admin.topics.create(name)
    assert caught.value.code != 0
    assert not caught.value.retriable
    await client.admin.topics.delete(name)
    with pytest.raises(TopicNotFoundError):
        await client.admin.topics.delete(name)
    for opening in (client.producer(name), client.consumer(name)):
        with pytest.raises(TopicNotFoundError, match=name):
            await opening
    with pytest.raises(FluvioError):
        await client.admin.topics.create("Not A Valid Name!")
    # The client is as good as before.
    assert isinstance(await client.admin.topics.list(), list)


async def test_create_then_produce(client: Client, name: str) -> None:
    for number in range(5):
        topic = f"{name}-{number}"
        await client.admin.topics.create(topic)
        async with client.producer(topic) as producer:
            assert (await producer.send(b"")).offset == 0
