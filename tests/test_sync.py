"""The synchronous twin: blocking calls, in threads, with time limits, inside a running loop."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

import fluvio_cffi
from fluvio_cffi import (
    Ack,
    BusyError,
    ClosedError,
    FluvioTimeoutError,
    InvalidArgumentError,
    InvalidTypeError,
    Offset,
    sync,
)
from fluvio_cffi.devserver import DevServer
from tests.support import PYPY, collect, eventually_sync


@pytest.fixture
def twin(endpoint: str) -> Iterator[sync.Client]:
    with sync.connect(endpoint) as client:
        yield client


@pytest.fixture
def twin_topic(twin: sync.Client, name: str) -> str:
    twin.admin.topics.create(name)
    return name


def test_round_trip(twin: sync.Client, twin_topic: str) -> None:
    with twin.producer(twin_topic) as producer:
        assert producer.send(b"0", key=b"k") == Ack(0, 0)
        delivery = producer.submit(b"1")
        deliveries = producer.send_many([b"%d" % number for number in range(2, 5000)])
        assert deliveries[-1] == Ack(0, 4999)
        assert delivery.wait() == Ack(0, 1)
        producer.flush()
    values = [b"%d" % number for number in range(5000)]
    with twin.consumer(twin_topic, start=Offset.beginning()) as consumer:
        seen = [consumer.receive(timeout=10).value for _ in range(10)]
        for record in consumer:
            seen.append(record.value)
            if len(seen) == 400:
                break
        for batch in consumer.batches():
            seen.extend(batch.values())
            if len(seen) == 5000:
                break
    assert seen == values
    assert twin_topic in [topic.name for topic in twin.admin.topics.list()]
    twin.admin.topics.delete(twin_topic)


def test_timeouts(twin: sync.Client, twin_topic: str) -> None:
    with twin.consumer(twin_topic) as consumer, twin.producer(twin_topic) as producer:
        for timeout in (0, 0.05, 0.25):
            started = time.monotonic()
            with pytest.raises(FluvioTimeoutError, match=f"after {timeout:g} s") as caught:
                consumer.receive(timeout=timeout)
            assert isinstance(caught.value, TimeoutError)
            assert timeout <= time.monotonic() - started < timeout + 2
        with pytest.raises(FluvioTimeoutError):
            consumer.receive_batch(timeout=0.01)
        # Nothing was taken by the attempts, and nothing is in the way of the next.
        producer.send(b"value", timeout=10)
        assert consumer.receive(timeout=10).value == b"value"
        with pytest.raises(InvalidArgumentError, match="timeout must be a non-negative time: -1"):
            consumer.receive(timeout=-1)
        with pytest.raises(InvalidTypeError, match="timeout must be a number"):
            consumer.receive(timeout=b"1")  # type: ignore[arg-type]


def test_timeout_without_room() -> None:
    """Nothing is acknowledged while the server stands still, so the room stays taken."""
    with DevServer(cut_batches=True) as server, sync.connect(server.endpoint) as twin:
        twin.admin.topics.create("full")
        with twin.producer("full", buffer=3000) as producer:
            os.kill(server.pid, signal.SIGSTOP)
            # All of its threads stand still once the kernel reports it stopped.
            os.waitpid(server.pid, os.WUNTRACED)
            try:
                delivery = producer.submit(b"x" * 900)
                producer.submit(b"x" * 900)
                with pytest.raises(FluvioTimeoutError):
                    producer.send(b"not sent" + b"x" * 900, timeout=0.01)
            finally:
                os.kill(server.pid, signal.SIGCONT)
            assert delivery.wait(timeout=20).offset == 0
            assert producer.send(b"last").offset == 2


def test_threads_share_a_producer(twin: sync.Client, twin_topic: str) -> None:
    offsets: list[int] = []

    def work() -> None:
        for _ in range(200):
            offsets.append(producer.send(b"x").offset)

    with twin.producer(twin_topic) as producer:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert sorted(offsets) == list(range(1600))


def test_a_delivery_waited_for_in_another_thread(twin: sync.Client, twin_topic: str) -> None:
    with twin.producer(twin_topic, linger=0.1) as producer:
        deliveries = [producer.submit(b"x") for _ in range(10)]
        results: list[Any] = []
        thread = threading.Thread(
            target=lambda: results.extend(d.wait(timeout=20).offset for d in deliveries)
        )
        thread.start()
        thread.join(30)
        assert results == list(range(10))
        assert [delivery.wait().offset for delivery in deliveries] == list(range(10))


def test_what_an_ended_thread_submitted(twin: sync.Client, twin_topic: str) -> None:
    deliveries: list[sync.Delivery] = []
    with twin.producer(twin_topic) as producer:
        thread = threading.Thread(target=lambda: deliveries.append(producer.submit(b"x")))
        thread.start()
        thread.join(10)
        assert deliveries[0].wait(timeout=10) == Ack(0, 0)


def test_close_in_another_thread(twin: sync.Client, twin_topic: str) -> None:
    consumer = twin.consumer(twin_topic)
    ended = threading.Event()
    started = threading.Event()

    def read() -> None:
        started.set()
        for _ in consumer:
            pass
        ended.set()

    thread = threading.Thread(target=read)
    thread.start()
    started.wait(10)
    time.sleep(0.05)
    consumer.close()
    assert ended.wait(10)
    thread.join(10)
    with pytest.raises(ClosedError):
        consumer.receive()


async def test_inside_a_running_loop(anyio_backend: Any, endpoint: str, name: str) -> None:
    async with fluvio_cffi.connect(endpoint) as client:
        await client.admin.topics.create(name)
        with sync.connect(endpoint) as twin, twin.producer(name) as producer:
            assert producer.send(b"x") == Ack(0, 0)
        async with client.consumer(name, start=Offset.beginning()) as consumer:
            with anyio.fail_after(10):
                assert (await consumer.receive()).value == b"x"


def test_unclosed(endpoint: str) -> None:
    client: Any = sync.connect(endpoint)
    with pytest.warns(ResourceWarning, match="unclosed <Client"):
        del client
        collect()


# "Fatal RPython error: AssertionError" within getvirtual_ptr, once in a hundred times.
@pytest.mark.skipif(PYPY, reason="its JIT aborts where threads raise in turns (pypy/pypy#2147)")
def test_two_readers_of_one_consumer(twin: sync.Client, twin_topic: str) -> None:
    """The second is refused, and whatever the first and the second do, every record comes once."""
    count = 20_000
    with twin.producer(twin_topic) as producer:
        producer.send_many([b"%d" % number for number in range(count)])
    seen: list[tuple[int, bytes]] = []
    unexpected: list[BaseException] = []
    interval = sys.getswitchinterval()
    with twin.consumer(twin_topic, start=Offset.beginning()) as consumer:

        def read() -> None:
            try:
                while len(seen) < count:
                    try:
                        record = consumer.receive(timeout=0.1)
                    except (BusyError, FluvioTimeoutError):
                        continue
                    seen.append((record.offset, record.value))
            except BaseException as error:
                unexpected.append(error)

        threads = [threading.Thread(target=read) for _ in range(3)]
        sys.setswitchinterval(1e-6)
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(interval)
    assert not unexpected
    assert sorted(seen) == [(number, b"%d" % number) for number in range(count)]


def test_a_second_reader_is_refused(twin: sync.Client, twin_topic: str) -> None:
    with twin.consumer(twin_topic) as consumer:
        first: list[Any] = []
        thread = threading.Thread(target=lambda: first.append(consumer.receive()))
        thread.start()
        eventually_sync(lambda: consumer._fetcher._readers)
        for _ in range(100):
            with pytest.raises(BusyError):
                consumer.receive(timeout=10)
        with twin.producer(twin_topic) as producer:
            producer.send(b"x")
        thread.join()
        assert first[0].value == b"x"
