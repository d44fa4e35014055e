"""A close of the twin that is interrupted or out of time, and who waits meanwhile."""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import Any, Callable

import pytest

from fluvio_cffi import (
    ClosedError,
    FluvioError,
    FluvioTimeoutError,
    PartialDeliveryError,
    sync,
)
from fluvio_cffi.devserver import DevServer
from tests.support import eventually_sync, interrupted_at_every_line


def waits_in(consumer: sync.Consumer, ended: list[str]) -> threading.Thread:
    def read() -> None:
        for _ in consumer:
            pass
        ended.append("end")

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    eventually_sync(lambda: consumer._fetcher._ready is not None)
    return thread


@pytest.mark.parametrize("what", ["consumer", "client"])
def test_a_close_without_time(server: DevServer, what: str) -> None:
    ended: list[str] = []
    with sync.connect(server.endpoint) as client:
        client.admin.topics.create("t")
        consumer = client.consumer("t")
        thread = waits_in(consumer, ended)
        with contextlib.suppress(FluvioTimeoutError):
            (consumer if what == "consumer" else client).close(timeout=0)
        thread.join(10)
        assert ended == ["end"]
        eventually_sync(lambda: server.counters().spus[5001].streams_open == 0)


@pytest.mark.parametrize("what", ["consumer", "producer", "client"])
def test_an_interrupt_at_every_line_of_closing(server: DevServer, what: str) -> None:
    """It can be closed again afterwards, if it is not, and nobody waits for ever."""
    with sync.connect(server.endpoint) as client:
        client.admin.topics.create("t")
    ended: list[str] = []
    threads: list[threading.Thread] = []
    opened: dict[str, Any] = {}

    def again() -> None:
        opened["client"] = client = sync.connect(server.endpoint)
        opened["consumer"] = client.consumer("t")
        opened["producer"] = client.producer("t")
        threads.append(waits_in(opened["consumer"], ended))
        opened["producer"].submit(b"accepted")

    def check() -> None:
        opened[what].close(timeout=20)
        opened["client"].close(timeout=20)
        threads[-1].join(20)
        assert len(ended) == len(threads)
        with pytest.raises(ClosedError):
            opened["producer"].send(b"late")
        again()

    again()
    try:
        count = interrupted_at_every_line(lambda: opened[what].close(timeout=20), check)
    finally:
        opened["client"].close(timeout=20)
        threads[-1].join(20)
    assert count > 20
    assert len(ended) == len(threads)


def test_who_waits_for_records_of_a_client_whose_close_is_over() -> None:
    """And who asks later: their outcome is unknown."""
    with DevServer() as server:
        client = sync.connect(server.endpoint, close_timeout=2)
        client.admin.topics.create("t")
        producer = client.producer("t")
        producer.send(b"")
        seen: queue.Queue[Any] = queue.Queue()

        def wait(call: Callable[[], Any]) -> None:
            try:
                seen.put(call())
            except PartialDeliveryError as error:
                seen.put(error.deliveries.errors[0])
            except FluvioError as error:
                seen.put(error)

        with server.fault("never-answer", request="produce"):
            delivery, asked = producer.submit(b"x"), producer.submit(b"x")
            called: queue.Queue[Any] = queue.Queue()
            asked.add_done_callback(called.put)
            calls = [
                lambda: producer.send(b"x"),
                lambda: producer.send_many([b"x"]),
                lambda: delivery.result(),
                lambda: delivery.result(),
            ]
            threads = [threading.Thread(target=wait, args=(call,), daemon=True) for call in calls]
            for thread in threads:
                thread.start()
            eventually_sync(lambda: producer._ledger.pending == 3 and len(producer._ledger.waited) == 4)
            with pytest.raises(FluvioTimeoutError):
                client.close(timeout="50ms")
            errors = [seen.get(timeout=5) for _ in calls]
            assert asked.done()
            errors += [asked.exception(), called.get(timeout=5).exception()]
            assert [(type(error), error.outcome, error.topic) for error in errors] == [
                (ClosedError, "unknown", "t")
            ] * 6
            for thread in threads:
                thread.join(5)


def test_a_send_many_whose_time_is_over() -> None:
    """Part of it is acknowledged, the rest waits for a server that says nothing."""
    with DevServer(spus=2) as server, sync.connect(server.endpoint, close_timeout="100ms") as client:
        client.admin.topics.create("two", partitions=2)
        producer = client.producer("two", buffer="64KiB", batch_size="4KiB", max_request_size="16KiB")
        for partition in range(2):
            producer.send(b"x", partition=partition)
        with server.fault("stall", plane=5002, request="produce"):
            for partition in range(2):
                producer.submit(b"y" * 900, partition=partition)
            keys = [b"%d" % number for number in range(200)]
            with pytest.raises(FluvioTimeoutError, match="after 1 s"):
                producer.send_many([b"z" * 1000] * 200, keys=keys, timeout=1)
        with contextlib.suppress(FluvioError):
            producer.close()
