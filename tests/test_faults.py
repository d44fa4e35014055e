"""What the client does when the cluster fails on purpose: nothing is lost, nothing hangs, errors have types.

Records may come twice where a producer could not know that they were written.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import fluvio_cffi
from fluvio_cffi import (
    Client,
    Consumer,
    CorruptBatchError,
    FluvioConnectionError,
    FluvioError,
    FluvioTimeoutError,
    InvalidArgumentError,
    Offset,
    OffsetEvictedError,
    Producer,
    ProtocolError,
    ServerError,
    TopicNotFoundError,
    UnsupportedVersionError,
)
from fluvio_cffi.devserver import DevServer, FaultKind, RequestName
from tests.support import TIMEOUT, take

PATIENCE = 1.0


@pytest.fixture(scope="module")
def running() -> Iterator[DevServer]:
    with DevServer(spus=2) as server:
        yield server


@pytest.fixture
def server(running: DevServer) -> Iterator[DevServer]:
    yield running
    running.clear_faults()


@pytest.fixture
async def client(anyio_backend: Any, server: DevServer) -> AsyncIterator[Client]:
    """Loses its patience with a server after a second."""
    async with connect(server) as client:
        yield client


def connect(server: DevServer) -> Any:
    return fluvio_cffi.connect(
        server.endpoint, connect_timeout=PATIENCE, request_timeout=PATIENCE, close_timeout=PATIENCE
    )


async def values(consumer: Consumer, count: int) -> list[int]:
    return [int(record.value) for record in await take(consumer, count)]


async def send(producer: Producer, first: int, count: int) -> None:
    with anyio.fail_after(TIMEOUT):
        for number in range(first, first + count):
            await producer.send(b"%d" % number)


async def test_a_black_hole_is_noticed_and_left(client: Client, server: DevServer, topic: str) -> None:
    async with client.producer(topic) as producer, client.consumer(topic) as consumer:
        await send(producer, 0, 1)
        assert await values(consumer, 1) == [0]
        async with anyio.create_task_group() as group:
            with server.fault("black-hole"):
                group.start_soon(send, producer, 1, 1)
                with anyio.fail_after(TIMEOUT), pytest.raises(FluvioTimeoutError):
                    await client.admin.topics.list()
                with anyio.fail_after(TIMEOUT), pytest.raises(FluvioTimeoutError):
                    await connect(server)
        # What was sent into the hole came out of it, and was sent again.
        assert set(await values(consumer, 1)) == {1}
        await send(producer, 2, 1)
        received = [1]
        while received[-1] != 2:
            received += await values(consumer, 1)
        assert set(received) == {1, 2}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", ["never-answer", "close"])
async def test_a_lost_answer_is_made_up_for(
    client: Client, server: DevServer, topic: str, kind: Any, when: Any
) -> None:
    async with client.producer(topic) as producer:
        server.fault(kind, request="produce", when=when, count=1)
        await send(producer, 0, 2)
    async with client.consumer(topic, start=Offset.beginning()) as consumer:
        # What was written and not acknowledged was written again.
        expected = [0, 1] if when == "before" else [0, 0, 1]
        assert await values(consumer, len(expected)) == expected


async def test_connections_that_end_or_fall_silent_at_any_byte(
    client: Client, server: DevServer, topic: str
) -> None:
    async with (
        client.producer(topic) as producer,
        client.consumer(topic, start=Offset.beginning()) as consumer,
    ):
        count = 0
        for bytes_ in (1, 7, 50, 333):
            server.fault("close", plane="spu", sent_bytes=bytes_, count=2)
            server.fault("close", plane="spu", received_bytes=bytes_, count=2)
            await send(producer, count, 10)
            count += 10
        server.fault("stall", plane="spu", sent_bytes=20, count=1)
        await send(producer, count, 10)
        seen: list[int] = []
        while len(set(seen)) < count + 10:
            seen += await values(consumer, 1)
        # In order, apart from repetitions.
        assert sorted(set(seen)) == list(dict.fromkeys(seen))


async def test_refused_batches(client: Client, server: DevServer, topic: str) -> None:
    async with client.producer(topic) as producer:
        server.fault("produce-error", code="NotLeaderForPartition", topic=topic, count=3)
        await send(producer, 0, 1)
        server.fault("produce-error", code=56, topic=topic, count=1)
        with pytest.raises(ServerError) as refused:
            await send(producer, 1, 1)
        assert refused.value.code == 56
        await send(producer, 2, 1)
    async with client.consumer(topic, start=Offset.beginning()) as consumer:
        assert await values(consumer, 2) == [0, 2]


async def test_committed_records_are_those_below_the_high_watermark(
    client: Client, server: DevServer, topic: str
) -> None:
    async with (
        client.producer(topic) as producer,
        client.consumer(topic, start=Offset.beginning()) as uncommitted,
        client.consumer(topic, start=Offset.beginning(), isolation="read_committed") as committed,
    ):
        await send(producer, 0, 1)
        assert await values(committed, 1) == [0]
        async with server.fault("hold-high-watermark", topic=topic):
            await send(producer, 1, 5)
            assert await values(uncommitted, 6) == [0, 1, 2, 3, 4, 5]
            with anyio.move_on_after(0.1) as waited:
                await committed.receive()
            assert waited.cancelled_caught
        assert await values(committed, 5) == [1, 2, 3, 4, 5]


async def test_leaders_move(client: Client, server: DevServer, topic: str) -> None:
    async with (
        client.producer(topic) as producer,
        client.consumer(topic, start=Offset.beginning()) as consumer,
    ):
        for turn in range(10):
            server.move_leader(topic, 0, 5001 + turn % 2)
            await send(producer, 10 * turn, 10)
        assert await values(consumer, 100) == list(range(100))


async def test_an_spu_goes_away_and_returns(client: Client, server: DevServer, name: str) -> None:
    await client.admin.topics.create(name, partitions=2)
    async with client.producer(name) as producer, client.consumer(name, start=Offset.beginning()) as consumer:
        await producer.send(b"0", partition=0)
        await producer.send(b"1", partition=1)
        for spu in (5001, 5002):
            server.stop_spu(spu)
            async with anyio.create_task_group() as group:
                for partition in (0, 1):
                    group.start_soon(send_to, producer, partition)
                server.start_spu(spu)
        assert sorted(await values(consumer, 6)) == [0, 0, 0, 1, 1, 1]


async def send_to(producer: Producer, partition: int) -> None:
    with anyio.fail_after(TIMEOUT):
        await producer.send(b"%d" % partition, partition=partition)


async def test_cut_and_corrupt_batches(client: Client, server: DevServer, topic: str) -> None:
    count = 20_000
    async with client.producer(topic) as producer:
        await producer.send_many([b"%01000d" % number for number in range(count)])
        await producer.flush()
    with server.fault("cut-batches", topic=topic):
        async with client.consumer(topic, start=Offset.beginning()) as consumer:
            assert await values(consumer, count) == list(range(count))
    server.fault("corrupt-crc", topic=topic, count=1)
    async with client.consumer(topic, start=Offset.beginning()) as consumer:
        with anyio.fail_after(TIMEOUT), pytest.raises(CorruptBatchError):
            await consumer.receive()
    async with client.consumer(topic, start=Offset.beginning()) as consumer:
        assert await values(consumer, 1) == [0]


async def test_evict(client: Client, server: DevServer, topic: str) -> None:
    async with client.producer(topic) as producer:
        await send(producer, 0, 3)
        server.evict(topic)
        with anyio.fail_after(TIMEOUT), pytest.raises(OffsetEvictedError):
            async with client.consumer(topic, start=Offset.absolute(0)) as consumer:
                await consumer.receive()
        await send(producer, 3, 1)
    async with client.consumer(topic, start=Offset.beginning()) as consumer:
        assert await values(consumer, 1) == [3]


async def test_split_writes(client: Client, server: DevServer, topic: str) -> None:
    # That they cost no time is not tested here but measured: see docs/devserver.md.
    with server.fault("split-writes"):
        server.close_connections()
        async with client.producer(topic) as producer, client.consumer(topic) as consumer:
            for number in range(50):
                await send(producer, number, 1)
                assert await values(consumer, 1) == [number]


async def test_frames_that_claim_to_be_huge(client: Client, server: DevServer, topic: str) -> None:
    async with client.producer(topic) as producer, client.consumer(topic) as consumer:
        server.fault("oversized-frame", request="produce", count=1)
        with anyio.fail_after(TIMEOUT), pytest.raises(ProtocolError):
            await producer.send(b"0")
        assert await values(consumer, 1) == [0]
        server.fault("oversized-frame", request="stream-fetch", count=1)
        await send(producer, 1, 3)
        assert await values(consumer, 3) == [1, 2, 3]
        server.fault("oversized-frame", request="list", count=1)
        with pytest.raises(ProtocolError):
            await client.admin.topics.list()
        await client.admin.topics.list()


async def test_an_empty_cluster_has_no_topic(client: Client, server: DevServer, topic: str) -> None:
    with server.fault("empty-cluster"):
        async with connect(server) as other:
            assert await other.admin.topics.list() == []
            with anyio.fail_after(TIMEOUT), pytest.raises(TopicNotFoundError):
                await other.producer(topic)
            with anyio.fail_after(TIMEOUT), pytest.raises(TopicNotFoundError):
                await other.consumer(topic)
    async with client.producer(topic) as producer:
        await send(producer, 0, 1)


async def test_an_old_platform_is_refused(anyio_backend: Any, server: DevServer) -> None:
    with server.fault("platform-version", version="0.8.9"):
        with pytest.raises(UnsupportedVersionError, match=r"0\.8\.9"):
            await connect(server)
    async with connect(server) as client:
        assert client.platform_version != "0.8.9"


@pytest.mark.parametrize("request_name", ["watch", "list", "produce", "stream-fetch", "fetch-offsets"])
async def test_requests_that_are_not_offered(
    anyio_backend: Any, server: DevServer, name: str, request_name: RequestName
) -> None:
    async with connect(server) as client:
        await client.admin.topics.create(name)
    with server.fault("unadvertised", request=request_name):
        with anyio.fail_after(TIMEOUT), pytest.raises(UnsupportedVersionError, match="offers nothing"):
            await use(server, name)


async def use(server: DevServer, topic: str) -> None:
    async with connect(server) as client:
        await client.admin.topics.list()
        async with client.producer(topic) as producer:
            await producer.send(b"0")
        async with client.consumer(topic, start=Offset.beginning()) as consumer:
            await consumer.receive()


async def test_an_address_that_cannot_be_reached(client: Client, server: DevServer, topic: str) -> None:
    async with (
        client.producer(topic, delivery_timeout=PATIENCE) as impatient,
        client.producer(topic) as patient,
    ):
        fault = server.fault("advertised-address", address="127.0.0.1:1")

        async def open_until_it_fails() -> None:
            # The watch has yet to tell of the new address.
            while True:
                await (await client.consumer(topic)).aclose()

        with anyio.fail_after(TIMEOUT), pytest.raises(FluvioConnectionError, match=r"127\.0\.0\.1:1"):
            await open_until_it_fails()
        async with anyio.create_task_group() as group:
            group.start_soon(send, patient, 0, 1)
            with anyio.fail_after(TIMEOUT), pytest.raises(FluvioTimeoutError, match=r"127\.0\.0\.1:1"):
                await impatient.send(b"1")
            fault.clear()
    async with client.consumer(topic, start=Offset.beginning()) as consumer:
        assert await values(consumer, 1) == [0]


async def test_late_answers_and_late_news(client: Client, server: DevServer, name: str) -> None:
    with server.fault("delay", request="list"):
        with anyio.fail_after(TIMEOUT), pytest.raises(FluvioTimeoutError):
            await client.admin.topics.list()
    server.fault("delay", request="list", seconds=0.01, count=1)
    await client.admin.topics.list()
    # A client that is told nothing asks.
    with server.fault("delay", request="watch", when="after"):
        async with connect(server) as other:
            await other.admin.topics.create(name)
        async with client.producer(name) as producer:
            await send(producer, 0, 1)
    async with client.consumer(name, start=Offset.beginning()) as consumer:
        assert await values(consumer, 1) == [0]


def test_what_cannot_be_is_refused(server: DevServer) -> None:
    with pytest.raises(InvalidArgumentError, match='takes no "topic", only plane, request, count'):
        server.fault("delay", topic="t")
    with pytest.raises(InvalidArgumentError, match="unknown variant `explode`"):
        server.fault("explode")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidArgumentError, match="no partition 0"):
        server.move_leader("no-such-topic", 0, 5001)
    with pytest.raises(InvalidArgumentError, match="no SPU 5009"):
        server.stop_spu(5009)


def test_a_fault_ends_with_its_block_and_a_server_leaves_nothing(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    server = DevServer()
    with pytest.raises(FluvioError, match="not running"):
        server.fault("black-hole")
    with server:
        kind: FaultKind = "black-hole"
        with server.fault(kind) as fault:
            assert repr(fault) == "<Fault 1: black-hole>"
            with pytest.raises(FluvioTimeoutError):
                fluvio_cffi.sync.connect(server.endpoint, connect_timeout=0.2)
        fault.clear()
        with fluvio_cffi.sync.connect(server.endpoint) as client:
            client.admin.topics.list()
        (folder,) = tmp_path.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        server.kill()
        with pytest.raises(FluvioError, match="not running"):
            server.fault("black-hole")
    assert not list(tmp_path.iterdir())
