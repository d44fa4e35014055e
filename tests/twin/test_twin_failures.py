"""Limits of calls of the twin, failures that nobody saw, callbacks, forks."""

from __future__ import annotations

import asyncio
import math
import threading
from typing import Any

import pytest

from fluvio_cffi import (
    DeliveryError,
    FluvioError,
    sync,
)
from fluvio_cffi.devserver import DevServer
from tests.support import collect, eventually_sync, run_program


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
