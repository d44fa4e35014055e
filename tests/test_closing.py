"""Closing replaces nothing that ended a block, drops no failure, and takes its time-out once."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Callable

import anyio
import pytest

import fluvio_cffi
from fluvio_cffi import (
    Client,
    ClosedError,
    CloseError,
    Consumer,
    DeliveryError,
    FluvioError,
    FluvioTimeoutError,
    PartialDeliveryError,
    Producer,
    sync,
)
from fluvio_cffi._library import lib
from fluvio_cffi.devserver import DevServer
from tests.support import PYPY, TIMEOUT, collect, eventually

# The platform's number of a storage error: a failure that is not tried again.
STORAGE_ERROR = 56


@pytest.fixture(scope="module")
def server() -> Iterator[DevServer]:
    """One whose faults disturb nobody else."""
    with DevServer() as server:
        yield server


@pytest.fixture
async def opened(anyio_backend: Any, server: DevServer, name: str) -> Any:
    client = await fluvio_cffi.connect(server.endpoint)
    await client.admin.topics.create(name)
    yield client
    await client.aclose()


def failing(server: DevServer, topic: str, count: int = 1) -> Any:
    return server.fault("produce-error", code=STORAGE_ERROR, topic=topic, count=count)


def notes(error: BaseException) -> str:
    return "\n".join(getattr(error, "__notes__", []))


async def failed(producer: Producer, server: DevServer) -> None:
    """Submit a record that fails, and wait until that is known."""
    failing(server, producer.topic)
    delivery = await producer.submit(b"lost")
    await eventually(delivery.done)


def answered_meanwhile() -> None:
    """Keep the loop busy until every answer has come, which it has not seen yet."""
    deadline = time.monotonic() + TIMEOUT
    while lib.fluvio_flush_all(100):
        assert time.monotonic() < deadline


@contextmanager
def standing_still(server: DevServer) -> Iterator[None]:
    os.kill(server.pid, signal.SIGSTOP)
    # All of its threads stand still once the kernel reports it stopped.
    os.waitpid(server.pid, os.WUNTRACED)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


class OfTheBody(Exception):
    pass


# --- What ended the block goes on its way ---------------------------------------------------------------


@pytest.mark.parametrize("ended_by", [OfTheBody, KeyboardInterrupt, SystemExit])
async def test_what_ended_the_block(
    opened: Client, server: DevServer, name: str, ended_by: type[BaseException]
) -> None:
    error = ended_by("of the body")
    caught: Any = None
    producer: Any = None
    # Not pytest.raises: KeyboardInterrupt must not pass an await of the test's runner.
    try:
        async with opened.producer(name) as producer:
            await failed(producer, server)
            raise error
    except BaseException as raised:
        caught = raised
    assert caught is error
    assert "DeliveryError" in notes(error)
    assert name in notes(error)
    with pytest.raises(ClosedError):
        await producer.send(b"")


async def test_a_scope_that_was_cancelled(opened: Client, server: DevServer, name: str) -> None:
    with anyio.CancelScope() as scope:
        async with opened.producer(name) as producer:
            await failed(producer, server)
            scope.cancel()
            await anyio.sleep(TIMEOUT)
    assert scope.cancelled_caught
    with pytest.raises(TimeoutError):  # noqa: PT012
        with anyio.fail_after(0.05):
            async with opened.producer(name) as producer:
                await failed(producer, server)
                await anyio.sleep(TIMEOUT)


async def test_a_task_that_was_cancelled(
    opened: Client, server: DevServer, name: str, anyio_backend_name: str
) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("tasks of asyncio")

    async def work() -> None:
        async with opened.producer(name) as producer:
            await failed(producer, server)
            begun.set()
            await asyncio.sleep(TIMEOUT)

    begun = asyncio.Event()
    task = asyncio.ensure_future(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_the_block_of_the_client(server: DevServer, anyio_backend: Any, name: str) -> None:
    error = OfTheBody()
    with pytest.raises(OfTheBody) as caught:  # noqa: PT012
        async with fluvio_cffi.connect(server.endpoint) as client:
            await client.admin.topics.create(name)
            producer = await client.producer(name)
            await failed(producer, server)
            raise error
    assert caught.value is error
    assert "DeliveryError" in notes(error)


@pytest.mark.parametrize("ended_by", [OfTheBody, KeyboardInterrupt])
def test_a_block_of_the_twin(server: DevServer, name: str, ended_by: type[BaseException]) -> None:
    error = ended_by("of the body")
    with sync.connect(server.endpoint) as client:
        client.admin.topics.create(name)
        failing(server, name)
        with pytest.raises(ended_by) as caught, client.producer(name) as producer:  # noqa: PT012
            producer.submit(b"lost")
            raise error
    assert caught.value is error
    assert "DeliveryError" in notes(error)


# --- Every failure, in order, once ----------------------------------------------------------------------


async def test_all_failures_in_one_error(server: DevServer, anyio_backend: Any, name: str) -> None:
    topics = [f"{name}-{number}" for number in range(6)]
    with pytest.raises(DeliveryError) as caught:  # noqa: PT012
        async with fluvio_cffi.connect(server.endpoint) as client:
            producers = []
            for topic in topics:
                await client.admin.topics.create(topic)
                producers.append(await client.producer(topic))
            for producer in reversed(producers):
                await failed(producer, server)
    error = caught.value
    assert error.failed == 6
    assert [cause.topic for cause in error.errors] == topics
    places = [str(error).index(topic) for topic in topics]
    assert places == sorted(places)


async def test_failures_of_several_kinds(anyio_backend: Any, name: str) -> None:
    """And one time-out for the client as a whole, whatever its producers."""
    with DevServer() as server:
        client = await fluvio_cffi.connect(server.endpoint, close_timeout="1.5s")
        topics = [f"{name}-{number}" for number in range(5)]
        producers = []
        for topic in topics:
            await client.admin.topics.create(topic)
            producers.append(await client.producer(topic))
        await failed(producers[2], server)
        with standing_still(server):
            deliveries = [await producer.submit(b"late") for producer in producers]
            started = time.monotonic()
            with pytest.raises(CloseError) as caught:
                await client.aclose()
            assert 1.4 < time.monotonic() - started < 4.5
    error = caught.value
    assert [type(found).__name__ for found in error.exceptions] == [
        "FluvioTimeoutError",
        "FluvioTimeoutError",
        "FluvioTimeoutError",
        "DeliveryError",
        "FluvioTimeoutError",
        "FluvioTimeoutError",
    ]
    places = [str(error).index(topic) for topic in topics]
    assert places == sorted(places)
    assert error.detail == {"undelivered": 5, "failed": 1}
    assert isinstance(error, FluvioError)
    group: Any = error
    matched, rest = group.split(DeliveryError)
    assert len(matched.exceptions) == 1
    assert len(rest.exceptions) == 5
    for delivery in deliveries:
        with pytest.raises(FluvioTimeoutError):
            await delivery


async def test_what_a_close_found_is_told_once(opened: Client, server: DevServer, name: str) -> None:
    producer = await opened.producer(name)
    await failed(producer, server)
    with pytest.raises(DeliveryError):
        await producer.aclose()
    await producer.aclose()
    await opened.aclose()


# --- Somebody has received it ---------------------------------------------------------------------------

Receive = Callable[[Any], Any]


async def _awaited(delivery: Any) -> None:
    with pytest.raises(FluvioError):
        await delivery


async def _result(delivery: Any) -> None:
    await eventually(delivery.done)
    with pytest.raises(FluvioError):
        delivery.result()


async def _exception(delivery: Any) -> None:
    await eventually(delivery.done)
    assert isinstance(delivery.exception(), FluvioError)


@pytest.mark.parametrize("receive", [_awaited, _result, _exception])
async def test_received(opened: Client, server: DevServer, name: str, receive: Receive) -> None:
    producer = await opened.producer(name)
    failing(server, name)
    await receive(await producer.submit(b"lost"))
    await producer.aclose()


async def told_at_the_end(producer: Producer) -> bool:
    """Closes it; whether that tells of a failed delivery."""
    try:
        await producer.aclose()
    except DeliveryError:
        return True
    return False


async def test_awaited_and_cancelled_is_not_received(opened: Client, server: DevServer, name: str) -> None:
    """In every order of the answer and the cancellation, those of one turn of the loop too."""
    for turns in range(4):
        producer = await opened.producer(name)
        failing(server, name)
        received = False

        async def wait(delivery: Any) -> None:
            nonlocal received
            try:
                await delivery
            except FluvioError:
                received = True

        async with anyio.create_task_group() as group:
            delivery = await producer.submit(b"lost")
            group.start_soon(wait, delivery)
            await anyio.wait_all_tasks_blocked()
            # Its turn comes together with the cancellation.
            answered_meanwhile()
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        assert received != await told_at_the_end(producer), turns


async def test_a_send_is_received_or_told(opened: Client, server: DevServer, name: str) -> None:
    """In every order of the answer and the cancellation."""
    for turns in range(4):
        producer = await opened.producer(name)
        failing(server, name)
        received = False

        async def send(producer: Producer) -> None:
            nonlocal received
            try:
                await producer.send(b"lost")
            except FluvioError:
                received = True

        async with anyio.create_task_group() as group:
            group.start_soon(send, producer)
            await anyio.wait_all_tasks_blocked()
            answered_meanwhile()
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        assert received != await told_at_the_end(producer), turns


async def test_a_send_that_was_cancelled_and_fails(opened: Client, server: DevServer, name: str) -> None:
    producer = await opened.producer(name, linger="200ms")
    failing(server, name)
    with anyio.move_on_after(0.02) as scope:
        await producer.send(b"lost")
    assert scope.cancelled_caught
    with pytest.raises(DeliveryError, match=name) as caught:
        await producer.aclose()
    assert caught.value.failed == 1


async def test_a_send_many_that_was_cancelled_and_fails(opened: Client, server: DevServer, name: str) -> None:
    producer = await opened.producer(name, linger="200ms")
    failing(server, name)
    with anyio.move_on_after(0.02) as scope:
        await producer.send_many([b"lost"] * 100)
    assert scope.cancelled_caught
    with pytest.raises(DeliveryError, match=name) as caught:
        await producer.aclose()
    assert caught.value.failed == 100


# --- A close that is cancelled --------------------------------------------------------------------------


@pytest.mark.parametrize("count", [10, 5000])
async def test_every_answer_that_is_there(
    server: DevServer, anyio_backend: Any, name: str, count: int
) -> None:
    # The only client of its loop: with it, whatever waits for completions there ends.
    client = await fluvio_cffi.connect(server.endpoint)
    await client.admin.topics.create(name)
    producer = await client.producer(name, linger="100ms")
    deliveries = [await producer.submit(b"%d" % number) for number in range(count)]
    answered_meanwhile()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await client.aclose()
    assert scope.cancelled_caught
    assert len({(await delivery).offset for delivery in deliveries}) == count


async def test_without_an_answer_the_outcome_is_unknown(anyio_backend: Any, name: str) -> None:
    with DevServer() as server:
        client = await fluvio_cffi.connect(server.endpoint)
        await client.admin.topics.create(name)
        producer = await client.producer(name)
        await producer.send(b"")
        with standing_still(server):
            delivery = await producer.submit(b"on its way")
            cancelled: Any = None
            with anyio.CancelScope() as scope:
                scope.cancel()
                try:
                    await client.aclose()
                except BaseException as error:
                    cancelled = error
                    raise
            assert "1 record had an answer" in notes(cancelled)
            with pytest.raises(ClosedError, match="outcome is unknown") as caught:
                await delivery
            assert caught.value.outcome == "unknown"
            assert caught.value.topic == name


@pytest.fixture
async def other(anyio_backend: Any, server: DevServer) -> Any:
    """Another client of the loop: what waits for completions there goes on."""
    async with fluvio_cffi.connect(server.endpoint) as client:
        yield client


async def read_to_the_end(consumer: Consumer, ended: list[str]) -> None:
    async for _ in consumer:
        pass
    ended.append("end")


@pytest.mark.parametrize("what", ["consumer", "client"])
async def test_cancelled_before_it_waits(other: Client, server: DevServer, name: str, what: str) -> None:
    """Its readers see the end, and the library has closed it."""
    await other.admin.topics.create(name)
    client = await fluvio_cffi.connect(server.endpoint)
    consumer = await client.consumer(name)
    ended: list[str] = []
    with anyio.fail_after(TIMEOUT):
        async with anyio.create_task_group() as group:
            group.start_soon(read_to_the_end, consumer, ended)
            await anyio.wait_all_tasks_blocked()
            with anyio.CancelScope() as scope:
                scope.cancel()
                await (consumer if what == "consumer" else client).aclose()
            assert scope.cancelled_caught
    assert ended == ["end"]
    with pytest.raises(ClosedError):
        await consumer.receive()
    await eventually(lambda: server.counters().spus[5001].streams_open == 0)
    await client.aclose()


@pytest.mark.parametrize("what", ["consumer", "producer", "client"])
async def test_a_task_that_was_cancelled_when_it_was_made(
    opened: Client, other: Client, name: str, what: str, anyio_backend_name: str
) -> None:
    """Where it had not begun it does nothing, as any coroutine; else it has closed."""
    if anyio_backend_name != "asyncio":
        pytest.skip("tasks of asyncio")
    consumer, producer = await opened.consumer(name), await opened.producer(name)
    ended: list[str] = []
    reading = asyncio.ensure_future(read_to_the_end(consumer, ended))
    await anyio.wait_all_tasks_blocked()
    closed: Any = {"consumer": consumer, "producer": producer, "client": opened}[what]
    task = asyncio.ensure_future(closed.aclose())
    begun = "closed" in repr(closed)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert begun == ("closed" in repr(closed))
    if not begun:
        await closed.aclose()
    if what == "producer":
        with pytest.raises(ClosedError):
            await producer.send(b"")
        await consumer.aclose()
    with anyio.fail_after(TIMEOUT):
        await reading
    assert ended == ["end"]
    await producer.aclose()


async def test_who_waits_for_records_of_a_client_whose_close_was_cancelled(
    anyio_backend: Any, name: str
) -> None:
    """And who asks later: their outcome is unknown, whoever shares the loop."""
    errors: list[Any] = []

    async def wait(call: Callable[[], Any]) -> None:
        try:
            await call()
        except PartialDeliveryError as error:
            errors.append(error.deliveries.errors[0])
        except FluvioError as error:
            errors.append(error)

    with DevServer() as server, server.fault("never-answer", request="produce"):
        async with fluvio_cffi.connect(server.endpoint) as other:
            await other.admin.topics.create(name)
            client = await fluvio_cffi.connect(server.endpoint, close_timeout=2)
            producer = await client.producer(name)
            collected: Any = await client.producer(name)
            deliveries = [await producer.submit(b"x"), await collected.submit(b"x")]
            with pytest.warns(ResourceWarning, match="closing its client tells"):
                del collected
                collect()
            cancelled: Any = None
            with anyio.fail_after(TIMEOUT):
                async with anyio.create_task_group() as group:
                    for call in (
                        lambda: producer.send(b"x"),
                        lambda: producer.send_many([b"x"]),
                        deliveries[0].wait,
                    ):
                        group.start_soon(wait, call)
                    await anyio.wait_all_tasks_blocked()
                    with anyio.CancelScope() as scope:
                        scope.cancel()
                        try:
                            await client.aclose()
                        except BaseException as error:
                            cancelled = error
                            raise
                for delivery in deliveries:
                    assert delivery.done()
                    await wait(delivery.wait)
            assert notes(cancelled).count("1 record had an answer") == 2
            assert [(type(error), error.outcome, error.topic) for error in errors] == [
                (ClosedError, "unknown", name)
            ] * 5


# --- Producers that were collected ----------------------------------------------------------------------


async def test_the_client_tells_of_collected_producers(
    server: DevServer, anyio_backend: Any, name: str
) -> None:
    """What had failed before, and what fails when it is closed."""
    client = await fluvio_cffi.connect(server.endpoint)
    await client.admin.topics.create(name)
    producer: Any = await client.producer(name)
    await failed(producer, server)
    later: Any = await client.producer(name, linger="10s")
    failing(server, name, count=2)
    delivery: Any = await later.submit(b"lost later")
    received: Any = await client.producer(name, linger="1s")
    seen = await received.submit(b"lost, which somebody knows")
    with pytest.warns(ResourceWarning, match="unclosed <Producer"):
        del producer, later, received, delivery
        collect()
    with pytest.raises(FluvioError):
        await seen
    with pytest.raises(DeliveryError, match="2 records failed") as caught:
        await client.aclose()
    assert caught.value.failed == 2
    assert caught.value.topic == name


async def test_a_close_that_was_cancelled_drops_no_failure(
    opened: Client, server: DevServer, name: str
) -> None:
    producer: Any = await opened.producer(name)
    await producer.send(b"")
    failing(server, name)
    with standing_still(server):
        await producer.submit(b"lost")
        with anyio.CancelScope() as scope:
            scope.cancel()
            await producer.aclose()
    assert scope.cancelled_caught
    del producer
    collect()
    with pytest.raises(DeliveryError, match="1 record for"):
        await opened.aclose()


async def test_many_collected_producers(opened: Client, name: str) -> None:
    """Only those are remembered that owe something."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for _ in range(200):
            producer: Any = await opened.producer(name)
            await producer.submit(b"x")
            del producer
            answered_meanwhile()
            await anyio.lowlevel.checkpoint()
        collect()
        await anyio.wait_all_tasks_blocked()
        await eventually(lambda: sum(ledger.owes for ledger in opened._left.ledgers()) == 0)
        assert len(opened._left.ledgers()) < (200 if PYPY else 50)


def test_a_close_of_the_twin_that_takes_too_long(name: str) -> None:
    with DevServer() as server:
        client = sync.connect(server.endpoint)
        client.admin.topics.create(name)
        producer = client.producer(name)
        failing(server, name)
        failed_one = producer.submit(b"lost")
        producer.flush()
        with standing_still(server):
            producer.submit(b"on its way")
            with pytest.raises(FluvioTimeoutError, match=r"after 0\.05 s") as caught:
                client.close(timeout="50ms")
        assert "DeliveryError" in notes(caught.value)
        assert "outcome is unknown" in notes(caught.value)
        with pytest.raises(FluvioError):
            failed_one.result()
