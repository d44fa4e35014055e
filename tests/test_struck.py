"""Struck at any line (Ctrl-C, cancellation), what sends loses no failure: closing tells it if nobody did."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any, Callable, Optional

import pytest

from fluvio_cffi import Client, DeliveryError, FluvioError, Producer, sync
from fluvio_cffi.devserver import DevServer
from tests.support import PACKAGE, PYPY

# What is struck in the midst of such code stays behind there, with what it holds.
pytestmark = pytest.mark.skipif(PYPY, reason="PyPy's own finalisers and iterators are code in Python")

STORAGE_ERROR = 56
RECORDS = 3
CALLS = ["send", "send_many", "wait", "exception"]
# What runs in the caller's task or thread, apart from what starts and ends a call of the library.
FILES = ("producer.py", "delivery.py", "_receipts.py", "_slot_receipts.py", "_deliveries.py", "_faces.py")


class Struck(BaseException):
    """Where KeyboardInterrupt would end the event loop."""


class Striking:
    """Raises at one line of the package, the `number`th that is run."""

    def __init__(self, number: int, exception: type[BaseException]) -> None:
        self._left = number
        self._exception = exception
        # Whether an error of the library was raised before.
        self.told = False
        self.where = ""
        self._catching: Optional[FrameType] = None

    def __enter__(self) -> None:
        sys.settrace(self._trace)

    def __exit__(self, *exc_info: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        path = frame.f_code.co_filename
        if not path.startswith(str(PACKAGE)) or os.path.basename(path) not in FILES or _is_apart(frame):
            return None
        if event == "exception":
            self.told |= self._left > 0 and isinstance(argument[1], FluvioError)
            # The line that comes next catches it: one that is raised there confuses Python 3.11 itself.
            self._catching = frame
        elif event == "line" and not self.told:
            catching, self._catching = self._catching, None
            self._left -= frame is not catching
            if self._left == 0 and frame is not catching:
                self.where = f"{path}:{frame.f_lineno}"
                raise self._exception
        return self._trace


def _is_apart(frame: Optional[FrameType]) -> bool:
    """Whether the event loop runs this, what starts an operation, or what makes or ends an object."""
    while frame is not None:
        if frame.f_code.co_name in ("_deliver", "begin", "__init__", "__del__", "__await__"):
            return True
        frame = frame.f_back
    return False


@pytest.fixture(scope="module")
def server() -> Iterator[DevServer]:
    with DevServer() as server:
        yield server


@pytest.fixture
def endpoint(server: DevServer) -> str:
    return server.endpoint


def produced(server: DevServer) -> int:
    return sum(spu.requests.get("produce", 0) for spu in server.counters().spus.values())


def judge(went: bool, striking: Striking, found: Optional[DeliveryError]) -> None:
    if went and not striking.told:
        assert found is not None, f"lost at {striking.where}"


@pytest.mark.parametrize("what", CALLS)
async def test_at_every_line(client: Client, server: DevServer, topic: str, what: str) -> None:
    async def call(producer: Producer) -> Optional[FluvioError]:
        if what == "send":
            await producer.send(b"x")
        elif what == "send_many":
            await producer.send_many([b"x"] * RECORDS)
        elif what == "wait":
            await (await producer.submit(b"x"))
        else:
            delivery = await producer.submit(b"x")
            await producer.flush()
            return delivery.exception()
        return None

    with server.fault("produce-error", code=STORAGE_ERROR, topic=topic):
        number, ended = 0, False
        found: Optional[DeliveryError] = None
        while not ended:
            number += 1
            producer = await client.producer(topic, buffer=1024, batch_size=1024)
            before, striking = produced(server), Striking(number, Struck)
            try:
                with striking:
                    striking.told = ended = await call(producer) is not None
            except FluvioError:
                ended = True
            except Struck:
                pass
            await producer.flush()
            found = None
            try:
                await producer.aclose()
            except DeliveryError as error:
                found = error
            judge(produced(server) > before, striking, found)
    assert number > 10
    # Whoever was told is not told again.
    assert found is None


@pytest.mark.parametrize("what", [*CALLS, "slices"])
def test_at_every_line_of_the_twin(server: DevServer, endpoint: str, name: str, what: str) -> None:
    calls: dict[str, Callable[[sync.Producer], Any]] = {
        "send": lambda producer: producer.send(b"x"),
        "send_many": lambda producer: producer.send_many([b"x"] * RECORDS),
        "slices": lambda producer: producer.send_many([b"x" * 600] * RECORDS),
        "wait": lambda producer: producer.submit(b"x").wait(),
        "exception": lambda producer: producer.submit(b"x").exception(),
    }
    with sync.connect(endpoint) as client:
        client.admin.topics.create(name)
        with server.fault("produce-error", code=STORAGE_ERROR, topic=name):
            number, ended = 0, False
            found: Optional[DeliveryError] = None
            while not ended:
                number += 1
                producer = client.producer(name, buffer=1024, batch_size=1024)
                before, striking = produced(server), Striking(number, KeyboardInterrupt)
                try:
                    with striking:
                        striking.told = ended = calls[what](producer) is not None
                except FluvioError:
                    ended = True
                except KeyboardInterrupt:
                    pass
                producer.flush()
                found = None
                try:
                    producer.close()
                except DeliveryError as error:
                    found = error
                judge(produced(server) > before, striking, found)
        assert number > 10
        assert found is None
