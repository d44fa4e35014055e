"""The twin in many threads."""

from __future__ import annotations

import os
import queue
import statistics
import threading
import time
from typing import Any

import pytest

from fluvio_cffi import (
    sync,
)
from tests.conftest import LIVE_OBJECTS
from tests.support import PYPY, collect, eventually_sync


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_short_threads_leave_nothing(twin: sync.Client) -> None:
    with twin.producer("t") as producer:

        def one_after_another(count: int) -> None:
            for _ in range(count):
                thread = threading.Thread(target=producer.send, args=(b"x",))
                thread.start()
                thread.join()

        def at_once(count: int) -> None:
            gate = threading.Barrier(count)

            def work() -> None:
                producer.send(b"x")
                gate.wait(60)

            threads = [threading.Thread(target=work) for _ in range(count)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        one_after_another(100)
        at_once(200)
        collect()
        objects = LIVE_OBJECTS() if LIVE_OBJECTS else 0
        before = descriptors(), resident()
        one_after_another(500)
        at_once(200)
        collect()
        # One for each thread would be 700; a connection of the client's may be another one by now.
        assert descriptors() - before[0] < 8
        assert resident() - before[1] < 4 << 20
        if LIVE_OBJECTS:
            assert LIVE_OBJECTS() <= objects


def test_a_thread_that_only_submits_stays_flat(twin: sync.Client) -> None:
    with twin.producer("t", buffer="1MiB") as producer:

        def submit(count: int) -> sync.Delivery:
            for _ in range(count - 1):
                producer.submit(b"a log line of an ordinary length, about so")
            return producer.submit(b"the last one")

        submit(100_000)
        before = 0
        # PyPy's heap takes some rounds to its size; what is kept for each record would never let it settle.
        for number in range(8 if PYPY else 1):
            before = resident()
            delivery = submit(200_000)
            # Nobody waits, flushes or drains: it becomes true by itself.
            eventually_sync(delivery.done)
            assert delivery.wait(timeout=0).offset == 299_999 + 200_000 * number
            collect()
            if resident() - before < 8 << 20:
                break
        else:
            pytest.fail(f"from {before} to {resident()} bytes")
        if LIVE_OBJECTS and not PYPY:
            assert LIVE_OBJECTS() < 20


def test_waiting_for_what_another_thread_submitted(twin: sync.Client) -> None:
    """The thread that waits wakes with the acknowledgement, whatever the one that submitted it does."""
    with twin.producer("t") as producer:
        handed: queue.Queue[Any] = queue.Queue()
        took: list[float] = []

        def acknowledge() -> None:
            while True:
                item = handed.get()
                if item is None:
                    return
                delivery, at = item
                delivery.wait(timeout=20)
                took.append(time.perf_counter() - at)

        thread = threading.Thread(target=acknowledge)
        thread.start()
        for number in range(100):
            handed.put((producer.submit(b"x"), time.perf_counter()))
            if number % 2:
                producer.send(b"y")
            else:
                time.sleep(0.002)
        handed.put(None)
        thread.join(60)
        assert len(took) == 100
        assert statistics.median(took) < 0.05


def test_a_send_while_another_thread_waits_for_a_delivery_of_this_one(twin: sync.Client) -> None:
    with twin.producer("t", linger=30) as slow, twin.producer("t") as producer:
        delivery = slow.submit(b"later")
        thread = threading.Thread(target=delivery.wait)
        thread.start()
        took = []
        for _ in range(30):
            at = time.perf_counter()
            producer.send(b"x")
            took.append(time.perf_counter() - at)
        assert thread.is_alive()
        assert statistics.median(took) < 0.05
        slow.flush()
        thread.join(20)
        assert delivery.done()
