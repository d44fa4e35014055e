"""The synchronous twin where it is hit from outside: signals, finalisers, Ctrl-C, and many threads."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import os
import queue
import signal
import statistics
import sys
import threading
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Callable

import pytest

from fluvio_cffi import (
    ClosedError,
    DeliveryError,
    FluvioError,
    FluvioTimeoutError,
    Offset,
    PartialDeliveryError,
    sync,
)
from fluvio_cffi.devserver import DevServer
from tests.conftest import LIVE_OBJECTS
from tests.support import PYPY, collect, eventually_sync, run_program


@pytest.fixture
def server() -> Iterator[DevServer]:
    with DevServer(cut_batches=True) as server:
        yield server


@pytest.fixture
def twin(server: DevServer) -> Iterator[sync.Client]:
    with sync.connect(server.endpoint) as client:
        client.admin.topics.create("t")
        yield client


@contextmanager
def on_alarm(handler: Callable[[], Any]) -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, lambda *_: handler())
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_handler_calls_while_a_call_waits(server: DevServer, twin: sync.Client) -> None:
    """The answer takes 50 ms, the signal comes after 25 ms."""
    with twin.producer("t") as producer:
        calls: list[tuple[Any, Callable[..., Any]]] = [
            ("produce", lambda **limit: producer.send(b"x", **limit)),
            ("list", lambda **limit: twin.admin.topics.list(**limit)),
        ]
        for request, call in calls:
            answers: list[Any] = []
            with on_alarm(lambda call=call, answers=answers: answers.append(call())):  # type: ignore[misc]
                for number in range(5):
                    server.fault("delay", request=request, seconds=0.05, count=1)
                    signal.setitimer(signal.ITIMER_REAL, 0.025)
                    answers.append(call(timeout=20))
                    eventually_sync(lambda n=number, a=answers: len(a) == 2 * n + 2)  # type: ignore[misc]
        assert producer.send(b"last").offset == 10


def test_a_call_in_a_handler_has_its_own_limit(server: DevServer, twin: sync.Client) -> None:
    """The interrupted call has 0.1 s left, the handler's takes 0.3 s, and has no limit."""
    with twin.producer("t") as producer, twin.consumer("t") as consumer:
        answers: list[Any] = []
        server.fault("delay", request="produce", seconds=0.3, count=1)
        with on_alarm(lambda: answers.append(producer.send(b"x"))):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            # Its time is over when the handler has returned; the record may have come by then.
            try:
                consumer.receive(timeout=0.1)
            except FluvioTimeoutError:
                pass
        assert [ack.offset for ack in answers] == [0]


def test_handlers_that_nest_while_calls_are_made(twin: sync.Client, races: int) -> None:
    """Signals at random moments in everything that a call does, also in the handler itself."""
    offsets: list[int] = []
    with twin.producer("t") as producer:

        def handler() -> None:
            offsets.append(producer.send(b"from the handler").offset)
            delivery = producer.submit(b"submitted in the handler")
            offsets.append(delivery.wait().offset)

        with on_alarm(handler):
            for number in range(max(races // 5, 20)):
                signal.setitimer(signal.ITIMER_REAL, 0.00005 + number % 97 * 0.00001)
                offsets.append(producer.send(b"from the call").offset)
        assert sorted(offsets) == list(range(len(offsets)))


def test_finalisers_call_at_any_allocation(twin: sync.Client) -> None:
    offsets: list[int] = []
    with twin.producer("t") as producer:

        class Final:
            def __init__(self) -> None:
                self.me = self

            def __del__(self) -> None:
                offsets.append(producer.send(b"from a finaliser").offset)

        before = gc.get_threshold() if not PYPY else None
        try:
            if before is not None:
                gc.set_threshold(7)
            for _ in range(300):
                Final()
                offsets.append(producer.submit(b"submitted").wait().offset)
                offsets.append(producer.send(b"sent").offset)
        finally:
            if before is not None:
                gc.set_threshold(*before)
        collect()
        assert len(offsets) == 900
        assert sorted(offsets) == list(range(900))


# --- Ctrl-C -------------------------------------------------------------------------------------------

INTERRUPTED = """
import gc, os, random, signal, sys, threading, time
from fluvio_cffi import FluvioError, Offset, sync
from tests.conftest import LIVE_OBJECTS

live_objects = LIVE_OBJECTS or int
endpoint, topic, seed, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])

armed, raised, dropped = False, 0.0, 0

def interrupt(*_):
    # Each raises once, where the program expects it.
    global armed, raised
    if armed:
        armed, raised = False, time.monotonic()
        raise KeyboardInterrupt

signal.signal(signal.SIGINT, interrupt)

def interrupts(function):
    # Real SIGINTs at random moments while `function` runs again and again, until that many were caught.
    global armed, raised
    raised = time.monotonic()
    stop, rnd, caught = threading.Event(), random.Random(seed), 0
    def fire():
        global armed, dropped
        while not stop.wait(rnd.random() * 0.004):
            os.kill(os.getpid(), signal.SIGINT)
            if not armed and time.monotonic() - raised > 5:
                # It was raised and nobody caught it: something has dropped it.
                armed, dropped = True, dropped + 1
    thread = threading.Thread(target=fire, daemon=True)
    thread.start()
    while caught < count:
        try:
            armed = True
            while True:
                function()
        except KeyboardInterrupt:
            caught += 1
    armed = False
    stop.set()
    thread.join()
    # PyPy itself has finalisers in Python, which drop it.
    assert not dropped or sys.implementation.name == "pypy", dropped

def nothing_is_left():
    deadline = time.monotonic() + 20
    while live_objects() and time.monotonic() < deadline:
        for _ in range(5):
            gc.collect()
        time.sleep(0.01)
    print("left", live_objects())
"""

SEND = (
    INTERRUPTED
    + """
acks, deliveries, calls = [], [], 0
BUFFER = 16384

def work():
    global calls
    calls += 1
    if calls % 3 == 0:
        acks.append(producer.send(b"%d" % calls).offset)
    elif calls % 3 == 1:
        deliveries.append(producer.submit(b"%d" % calls, timeout=30))
        del deliveries[:-100]
    else:
        acks.extend(ack.offset for ack in producer.send_many([b"%d" % calls] * 200, timeout=30))

def main():
    global producer
    with sync.connect(endpoint) as client:
        client.admin.topics.create(topic)
        with client.producer(topic, buffer=BUFFER) as producer:
            interrupts(work)
            producer.flush(timeout=20)
            for delivery in deliveries:
                assert delivery.done()
                acks.append(delivery.wait(timeout=20).offset)
            # The room is as it was: a record of nearly the whole buffer finds place at once.
            assert producer.send(b"x" * (BUFFER - 300), timeout=5).offset > max(acks)
            # A call that an interrupt struck on its way back to the caller is not known, but not twice.
            assert len(set(acks)) == len(acks)
        with client.consumer(topic, start=Offset.beginning()) as consumer:
            seen = set()
            while max(acks) not in seen:
                seen.update(consumer.receive_batch(timeout=20).offsets())
            assert seen.issuperset(acks)
    del producer
    deliveries.clear()

main()
nothing_is_left()
"""
)

READ = (
    INTERRUPTED
    + """
N = 150_000
last, gaps, whole, largest, tries = -1, [], int(sys.argv[5]), 1, 0

def work():
    global last, largest, tries, consumer
    tries += 1
    if last >= N - 1:
        # Again from the beginning, as another consumer.
        consumer = client.consumer(topic, start=Offset.beginning(), prefetch="256KiB")
        last = -1
    if whole:
        offsets = consumer.receive_batch(timeout=20).offsets()
        first, end = offsets[0], offsets[-1]
        largest = max(largest, len(offsets))
    else:
        first = end = consumer.receive(timeout=20).offset
    # What an interrupt strikes between the call and the caller's own line is the caller's, as with any
    # function in Python: a record or a batch for each try that did not come this far, nothing without one.
    if first - last - 1:
        gaps.append((last, first, tries))
    last, tries = end, 0

def main():
    global client, consumer
    with sync.connect(endpoint) as client:
        client.admin.topics.create(topic)
        with client.producer(topic) as producer:
            producer.send_many([b"x" * 100] * N)
        with client.consumer(topic, start=Offset.beginning(), prefetch="256KiB") as consumer:
            interrupts(work)
            # Judged at the end: the first batches may be those that nobody saw.
            bad = [gap for gap in gaps if gap[1] - gap[0] - 1 > (gap[2] - 1) * largest]
            assert not bad, (bad, largest)

main()
"""
)


# PyPy runs finalisers and parts of the standard library as code in Python, where an interrupt may be dropped.
on_cpython = pytest.mark.skipif(PYPY, reason="PyPy itself drops some interrupts")


@on_cpython
@pytest.mark.parametrize("seed", range(3))
def test_ctrl_c_while_sending(server: DevServer, seed: int, races: int) -> None:
    code, out, errors = run_program(SEND, server.endpoint, "t", str(seed), str(races), timeout=120)
    assert (code, out) == (0, "left 0\n"), errors


@on_cpython
@pytest.mark.parametrize("whole", [0, 1])
def test_ctrl_c_while_reading(server: DevServer, whole: int, races: int) -> None:
    code, _, errors = run_program(READ, server.endpoint, "t", "1", str(races // 3), str(whole), timeout=120)
    assert code == 0, errors


def interrupted_at_every_line(call: Callable[[], Any], check: Callable[[], Any]) -> int:
    """Make `call` again and again, with a KeyboardInterrupt at one line of the package further each time."""
    number = 0
    while True:
        number += 1
        lines = 0

        def trace(frame: types.FrameType, event: str, argument: Any) -> Any:
            nonlocal lines
            if f"{os.sep}fluvio_cffi{os.sep}" not in frame.f_code.co_filename:
                return None
            lines += event == "line"
            if lines == number and event == "line":  # noqa: B023
                raise KeyboardInterrupt
            return trace

        try:
            sys.settrace(trace)
            call()
            sys.settrace(None)
        except KeyboardInterrupt:
            check()
        else:
            return number
        finally:
            sys.settrace(None)


@pytest.mark.parametrize("whole", [False, True])
def test_an_interrupt_at_every_line_of_reading(twin: sync.Client, whole: bool) -> None:
    """What it strikes has taken one record or one batch, or nothing, and the next call goes on behind it."""
    with twin.producer("t") as producer, twin.consumer("t", start=Offset.beginning()) as consumer:
        last, sent = -1, -1

        def send() -> None:
            nonlocal sent
            sent = producer.send_many([b""] * (10 if whole else 1))[-1].offset

        def read() -> None:
            nonlocal last
            if whole:
                offsets = consumer.receive_batch(timeout=20).offsets()
                assert offsets[0] > last
                last = offsets[-1]
            else:
                offset = consumer.receive(timeout=20).offset
                assert offset > last
                last = offset

        def check() -> None:
            before = sent
            send()
            read()
            if last == before:
                read()
            assert last == sent
            send()

        send()
        assert interrupted_at_every_line(read, check) > 20


@pytest.mark.parametrize("what", ["send", "send_many", "submit", "flush"])
def test_an_interrupt_at_every_line_of_sending(twin: sync.Client, what: str) -> None:
    offsets: list[int] = []
    with twin.producer("t", buffer=16384) as producer:

        def flush() -> None:
            producer.submit(b"x" * 5000)
            producer.flush(timeout=20)

        calls: dict[str, Callable[[], Any]] = {
            "send": lambda: offsets.append(producer.send(b"x" * 5000).offset),
            "send_many": lambda: offsets.extend(
                ack.offset for ack in producer.send_many([b"x" * 1000] * 5, timeout=20)
            ),
            "submit": lambda: offsets.append(producer.submit(b"x" * 5000).wait(timeout=20).offset),
            "flush": flush,
        }

        def check() -> None:
            # The room is as it was, after what is still on its way.
            offsets.append(producer.send(b"x" * 16000, timeout=20).offset)

        assert interrupted_at_every_line(calls[what], check) > 20
        assert sorted(set(offsets)) == offsets


def test_ctrl_c_is_answered_at_once(server: DevServer) -> None:
    """Also one that comes just before the thread sleeps, which no signal ends."""
    code, out, errors = run_program(
        INTERRUPTED
        + """
took = []
def fire():
    global at
    time.sleep(0.001 + rnd.random() * 0.01)
    at = time.perf_counter()
    os.kill(os.getpid(), signal.SIGINT)

rnd = random.Random(seed)
with sync.connect(endpoint) as client:
    client.admin.topics.create(topic)
    with client.consumer(topic) as consumer:
        for number in range(count):
            thread = threading.Thread(target=fire)
            try:
                armed = True
                thread.start()
                consumer.receive(timeout=None if number % 2 else 20)
            except KeyboardInterrupt:
                took.append(time.perf_counter() - at)
            thread.join()
took.sort()
print(len(took), took[len(took) // 2])
""",
        server.endpoint,
        "t",
        "1",
        "200",
    )
    assert code == 0, errors
    count, median = out.split()
    assert (int(count), float(median) < 0.02) == (200, True), out


# --- Threads ------------------------------------------------------------------------------------------


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


# --- Limits and failures ------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [math.inf, "365d", 86400.0 * 365])
def test_a_limit_beyond_all_clocks(twin: sync.Client, timeout: Any) -> None:
    with twin.producer("t") as producer:
        assert producer.send(b"x", timeout=timeout).offset == 0
        assert producer.submit(b"x", timeout=timeout).wait(timeout=timeout).offset == 1
        producer.flush(timeout=timeout)


@pytest.mark.parametrize("kept", [True, False])
def test_a_failure_that_nobody_saw(server: DevServer, twin: sync.Client, kept: bool) -> None:
    """The producer knows, whether the Delivery still exists or was dropped before or after the answer."""
    producer = twin.producer("t")
    server.fault("produce-error", code=56, topic="t", count=1)
    delivery = producer.submit(b"lost") if kept else None
    if not kept:
        producer.submit(b"lost")
        collect()
    producer.flush()
    with pytest.raises(DeliveryError, match="1 record for topic 't' failed"):
        producer.close()
    if delivery is not None:
        with pytest.raises(FluvioError):
            delivery.wait()


def test_a_failure_that_somebody_saw(server: DevServer, twin: sync.Client) -> None:
    with twin.producer("t") as producer:
        server.fault("produce-error", code=56, topic="t", count=1)
        delivery = producer.submit(b"lost")
        seen: list[FluvioError] = []

        def wait() -> None:
            try:
                delivery.wait()
            except FluvioError as error:
                seen.append(error)

        threads = [threading.Thread(target=wait) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert len(seen) == 4


def test_what_is_refused_leaves_nothing(twin: sync.Client) -> None:
    with twin.producer("t") as producer:
        for _ in range(100):
            with pytest.raises(FluvioError):
                producer.send(b"x", partition=7)
            with pytest.raises(FluvioError):
                producer.submit(b"x", partition=7)
        assert producer.send(b"x").offset == 0


def test_a_failed_start_keeps_no_descriptor() -> None:
    """connect() fails because the library's threads cannot start."""
    code, out, errors = run_program(
        """
        import asyncio, gc, os, resource, sys
        import fluvio_cffi
        from fluvio_cffi import sync

        async def connect():
            await fluvio_cffi.connect("127.0.0.1:1")

        loop = asyncio.new_event_loop()
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        held = []
        try:
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        for _ in range(4):
            os.close(held.pop())
        def count():
            return len(os.listdir("/proc/self/fd"))
        before = count()
        for start in (lambda: sync.connect("127.0.0.1:1"), lambda: loop.run_until_complete(connect())):
            for _ in range(6):
                try:
                    start()
                except fluvio_cffi.FluvioSystemError as error:
                    print("failed", file=sys.stderr)
                else:
                    raise AssertionError("connected")
                for _ in range(5):
                    gc.collect()
                assert count() == before, (count(), before)
        for fd in held:
            os.close(fd)
        loop.close()
        print("end")
        """,
        timeout=60,
    )
    assert (code, out) == (0, "end\n"), errors


def test_a_handler_that_forks_while_a_call_waits(server: DevServer) -> None:
    server.fault("delay", request="produce", seconds=0.5, count=1)
    code, out, errors = run_program(
        """
        import os, signal, sys, warnings
        from fluvio_cffi import ForkedError, FluvioTimeoutError, sync
        warnings.simplefilter("ignore")
        pid = None

        def handler(*_):
            global pid
            pid = os.fork()

        signal.signal(signal.SIGALRM, handler)
        client = sync.connect(sys.argv[1])
        client.admin.topics.create("t")
        for timeout in (None, 20):
            pid = None
            try:
                if timeout is None:
                    with client.producer("t") as producer:
                        signal.setitimer(signal.ITIMER_REAL, 0.05)
                        producer.send(b"x")
                else:
                    consumer = client.consumer("t")
                    signal.setitimer(signal.ITIMER_REAL, 0.05)
                    consumer.receive(timeout=0.5)
            except (ForkedError, FluvioTimeoutError) as error:
                if pid == 0:
                    os._exit(0 if isinstance(error, ForkedError) else 1)
            assert pid, "the child was not told"
            assert os.waitpid(pid, 0)[1] == 0
        client.close()
        print("end")
        """,
        server.endpoint,
    )
    assert (code, out) == (0, "end\n"), errors


# --- Callbacks, collected producers, limits of send_many --------------------------------------------------


@pytest.mark.parametrize("kind", [SystemExit, asyncio.CancelledError, GeneratorExit])
def test_a_callback_that_raises_no_exception_of_a_program(
    server: DevServer, twin: sync.Client, caplog: pytest.LogCaptureFixture, kind: type[BaseException]
) -> None:
    def bad(_: Any) -> None:
        raise kind

    called: list[Any] = []
    server.fault("delay", request="produce", seconds=0.1, count=2)
    with twin.producer("t") as producer:
        first = producer.submit(b"a")
        first.add_done_callback(bad)
        first.add_done_callback(called.append)
        eventually_sync(lambda: called == [first])
        second = producer.submit(b"b")
        second.add_done_callback(called.append)
        eventually_sync(lambda: called == [first, second])
    # Its records hold the deliveries.
    caplog.clear()


def test_a_callback_that_a_forked_child_adds(server: DevServer) -> None:
    code, out, errors = run_program(
        """
        import os, sys, time, warnings
        from fluvio_cffi import ForkedError, sync
        warnings.simplefilter("ignore")
        with sync.connect(sys.argv[1]) as client:
            client.admin.topics.create("t")
            with client.producer("t") as producer:
                delivery = producer.submit(b"of the parent")
                pid = os.fork()
                if pid == 0:
                    try:
                        delivery.add_done_callback(print)
                    except ForkedError:
                        called = []
                        with sync.connect(sys.argv[1]) as own, own.producer("t") as other:
                            other.submit(b"of the child").add_done_callback(called.append)
                            deadline = time.monotonic() + 20
                            while not called and time.monotonic() < deadline:
                                time.sleep(0.01)
                        os._exit(0 if called else 2)
                    os._exit(1)
                assert os.waitpid(pid, 0)[1] == 0
        print("end")
        """,
        server.endpoint,
    )
    assert (code, out) == (0, "end\n"), errors


def test_a_collected_producer_names_its_failures(server: DevServer) -> None:
    """And its client tells of those that fail later, too."""
    client = sync.connect(server.endpoint)
    client.admin.topics.create("t")
    producer: Any = client.producer("t")
    server.fault("produce-error", code=56, topic="t", count=1)
    producer.submit(b"lost")
    producer.flush()
    with pytest.warns(ResourceWarning, match="1 record failed and nobody received an error; the first is: "):
        del producer
        collect()
    producer = client.producer("t", linger="10s")
    server.fault("produce-error", code=56, topic="t", count=1)
    producer.submit(b"lost later")
    with pytest.warns(ResourceWarning, match="closing its client tells if one of 1 submitted records fails"):
        del producer
        collect()
    with pytest.raises(DeliveryError, match="2 records failed") as caught:
        client.close()
    assert caught.value.failed == 2


# --- A close that is interrupted ---------------------------------------------------------------------------


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
    """Part of it is acknowledged, the rest waits for room that a partition of another server has."""
    with DevServer(spus=2) as server, sync.connect(server.endpoint, close_timeout="100ms") as client:
        client.admin.topics.create("two", partitions=2)
        producer = client.producer("two", buffer="64KiB", batch_size="4KiB", max_request_size="16KiB")
        for partition in range(2):
            producer.send(b"x", partition=partition)
        with server.fault("stall", plane=5002, request="produce"):
            for _ in range(38):
                producer.submit(b"y" * 900, partition=0)
            with pytest.raises(FluvioTimeoutError, match="after 1 s"):
                producer.send_many([b"z" * 1000] * 200, partition=1, timeout=1)
        with contextlib.suppress(FluvioError):
            producer.close()
