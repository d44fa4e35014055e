"""Calls of the twin within signal handlers and finalisers, while other calls wait."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Callable

from fluvio_cffi import (
    FluvioTimeoutError,
    sync,
)
from fluvio_cffi.devserver import DevServer
from tests.support import PYPY, collect, eventually_sync


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
