"""Closing by several at once: tasks, threads, signal handlers, the reader itself. All come to an end."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Callable

import anyio
import pytest

import fluvio_cffi
from fluvio_cffi import (
    BusyError,
    Client,
    ClosedError,
    FluvioError,
    FluvioTimeoutError,
    TopicDeletedError,
    sync,
)
from fluvio_cffi.devserver import DevServer
from tests.support import TIMEOUT, collect, eventually_sync

CLOSING = ["producer", "consumer", "client"]


@pytest.fixture(scope="module")
def server() -> Iterator[DevServer]:
    """One whose faults disturb nobody else."""
    with DevServer() as server:
        yield server


@pytest.fixture
async def opened(anyio_backend: Any, server: DevServer, name: str) -> Any:
    async with fluvio_cffi.connect(server.endpoint) as client:
        await client.admin.topics.create(name)
        yield client


# --- Tasks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["producer", "client"])
async def test_whoever_closes_waits_for_the_end(
    opened: Client, server: DevServer, name: str, what: str
) -> None:
    ended: list[int] = []
    deliveries: list[Any] = []
    async with fluvio_cffi.connect(server.endpoint) as client:
        producer = await client.producer(name)
        closed: Any = producer if what == "producer" else client
        with anyio.fail_after(TIMEOUT):
            async with anyio.create_task_group() as group:

                async def close(number: int) -> None:
                    await closed.aclose()
                    ended.append(number)

                with server.fault("delay", request="produce"):
                    deliveries.append(await producer.submit(b"x"))
                    for number in range(3):
                        group.start_soon(close, number)
                    await anyio.wait_all_tasks_blocked()
                    assert ended == []
                    assert not deliveries[0].done()
        assert sorted(ended) == [0, 1, 2]
        assert deliveries[0].done()
        await closed.aclose()


async def test_a_failure_is_told_to_one_of_them(opened: Client, server: DevServer, name: str) -> None:
    async with fluvio_cffi.connect(server.endpoint, close_timeout="100ms") as client:
        found: list[FluvioError] = []
        producer = await client.producer(name)

        async def close(closed: Any) -> None:
            try:
                await closed.aclose()
            except FluvioError as error:
                found.append(error)

        with server.fault("never-answer", request="produce"):
            await producer.submit(b"x")
            with anyio.fail_after(TIMEOUT):
                async with anyio.create_task_group() as group:
                    for closed in (producer, client, producer, client):
                        group.start_soon(close, closed)
    assert [type(error) for error in found] == [FluvioTimeoutError]


async def test_what_was_opened_keeps_its_client(opened: Client, server: DevServer, name: str) -> None:
    client = await fluvio_cffi.connect(server.endpoint)
    producer = await client.producer(name)
    consumer = await client.consumer(name, start=fluvio_cffi.Offset.beginning())
    clients = [client]
    del client
    clients.clear()
    collect()
    with anyio.fail_after(TIMEOUT):
        await producer.send(b"x")
        assert (await consumer.receive()).value == b"x"
    await consumer._client.aclose()


# --- The reader itself --------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["records", "batches"])
@pytest.mark.parametrize("what", ["consumer", "client"])
async def test_an_iteration_that_closes_is_over(
    opened: Client, server: DevServer, name: str, by: str, what: str
) -> None:
    async with fluvio_cffi.connect(server.endpoint) as client:
        async with client.producer(name) as producer:
            await producer.send_many([b"x"] * 100)
        consumer = await client.consumer(name, start=fluvio_cffi.Offset.beginning())
        rounds = 0
        with anyio.fail_after(TIMEOUT):
            iteration: Any = consumer if by == "records" else consumer.batches()
            async for _ in iteration:
                rounds += 1
                await (consumer if what == "consumer" else client).aclose()
        assert rounds == 1
        for again in (consumer.receive, consumer.receive_batch, consumer.__aiter__, consumer.batches):
            with pytest.raises(ClosedError) as caught:
                await _called(again)
            assert caught.value.topic == name


async def _called(function: Callable[[], Any]) -> None:
    await function()


async def test_a_second_reader_learns_of_which_topic(opened: Client, name: str) -> None:
    consumer = await opened.consumer(name)
    async with anyio.create_task_group() as group:
        group.start_soon(_swallow_end, consumer)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(BusyError) as caught:
            await consumer.receive()
        assert caught.value.topic == name
        await consumer.aclose()


async def _swallow_end(consumer: Any) -> None:
    async for _ in consumer:
        pass


async def test_a_topic_that_is_deleted_while_its_consumer_opens(
    opened: Client, server: DevServer, name: str
) -> None:
    """Who reads is told, whatever the consumer had learnt when the topic went."""
    reading = await opened.consumer(name)
    told: list[FluvioError] = []

    async def open_and_read() -> None:
        try:
            async with opened.consumer(name) as consumer:
                await consumer.receive()
        except FluvioError as error:
            told.append(error)

    with anyio.fail_after(TIMEOUT):
        async with anyio.create_task_group() as group:
            with server.fault("delay", request="fetch-offsets", when="after"):
                group.start_soon(open_and_read)
                await anyio.wait_all_tasks_blocked()
                async with fluvio_cffi.connect(server.endpoint) as elsewhere:
                    await elsewhere.admin.topics.delete(name)
                with pytest.raises(TopicDeletedError):
                    await reading.receive()
    assert [type(error) for error in told] == [TopicDeletedError]
    await reading.aclose()


# --- Threads and signal handlers ----------------------------------------------------------------------------


def at_once(calls: list[Callable[[], Any]]) -> list[BaseException]:
    """Run all of them in threads that start together; what they raised."""
    barrier = threading.Barrier(len(calls))
    raised: list[BaseException] = []

    def run(call: Callable[[], Any]) -> None:
        barrier.wait()
        try:
            call()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(call,), daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()
    return raised


@contextmanager
def switching_often() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def test_threads_that_close_together(server: DevServer, name: str, races: int) -> None:
    with sync.connect(server.endpoint) as client:
        client.admin.topics.create(name)
    for _ in range(max(races // 20, 1)):
        client = sync.connect(server.endpoint)
        producer, consumer = client.producer(name), client.consumer(name)
        producer.submit(b"x")
        closed: list[Any] = [producer, client, consumer, producer, client, consumer]
        assert at_once([one.close for one in closed]) == []
        with pytest.raises(ClosedError):
            producer.send(b"late")


def test_threads_that_close_what_fails(server: DevServer, name: str) -> None:
    with sync.connect(server.endpoint) as client:
        client.admin.topics.create(name)
    with server.fault("never-answer", request="produce"):
        for _ in range(20):
            client = sync.connect(server.endpoint, close_timeout="20ms")
            producer = client.producer(name)
            producer.submit(b"x")
            raised = at_once([producer.close, client.close, producer.close, client.close])
            assert [type(error) for error in raised] == [FluvioTimeoutError]


@pytest.mark.parametrize("inner", CLOSING)
@pytest.mark.parametrize("outer", CLOSING)
def test_a_signal_handler_closes_what_is_being_closed(
    server: DevServer, name: str, outer: str, inner: str
) -> None:
    with sync.connect(server.endpoint) as client:
        client.admin.topics.create(name)
    client = sync.connect(server.endpoint)
    opened: dict[str, Any] = {
        "client": client,
        "producer": client.producer(name),
        "consumer": client.consumer(name),
    }
    handled: list[str] = []

    def handler(*_: object) -> None:
        fault.clear()
        opened[inner].close(timeout=TIMEOUT)
        handled.append(inner)

    fault = server.fault("delay", request="produce")
    before = signal.signal(signal.SIGALRM, handler)
    try:
        opened["producer"].submit(b"x")
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        opened[outer].close(timeout=TIMEOUT)
        eventually_sync(lambda: handled)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        fault.clear()
    assert handled == [inner]
    client.close()


def test_a_send_many_that_was_left_is_counted_once(server: DevServer, name: str) -> None:
    """By threads that all look after it: none of them trips over the others, and no failure is lost."""
    with sync.connect(server.endpoint) as client:
        client.admin.topics.create(name)
        for _ in range(100):
            producer = client.producer(name)
            with server.fault("delay", request="produce") as fault:
                with pytest.raises(FluvioTimeoutError):
                    producer.send_many([b"x"] * 3, timeout=0)
                with server.fault("produce-error", code=56, topic=name):
                    fault.clear()
                    producer.flush()
            # Whoever finds the outcomes frees them, while the others look.
            ledger = producer._ledger
            looking: list[Callable[[], Any]] = [ledger.unseen, partial(getattr, ledger, "pending")] * 3
            with switching_often():
                assert at_once(looking) == []
            with pytest.raises(fluvio_cffi.DeliveryError) as caught:
                producer.close()
            assert caught.value.failed == 3
