"""Fixtures: one test body for all backends, one development server for a session.

A test fails if something in fluvio_cffi blocks the event loop, and if it leaves an object of the library
behind (where the library was built to count them). FLUVIO_TEST_ENDPOINT names a cluster to use instead of
the development server; FLUVIO_TEST_RACES says how often each race is run.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import fluvio_cffi  # noqa: E402
from fluvio_cffi import Client  # noqa: E402
from tests.support import BACKENDS, PYPY  # noqa: E402

# By name, because not every environment of the tests has the package installed.
pytest_plugins = ["fluvio_cffi_plugins.testing"]


# A shell that starts this in the background has it ignore SIGINT, which every program started here inherits.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def races() -> int:
    """How often a race is run."""
    return int(os.environ.get("FLUVIO_TEST_RACES", "1000"))


@pytest.fixture(scope="session")
def endpoint(fluvio_endpoint: str) -> str:
    return fluvio_endpoint


@pytest.fixture
async def client(anyio_backend: Any, endpoint: str) -> AsyncIterator[Client]:
    async with fluvio_cffi.connect(endpoint) as client:
        yield client


def new_name() -> str:
    return f"test-{uuid.uuid4().hex[:16]}"


@pytest.fixture
def name() -> str:
    """A topic name that nobody has used."""
    return new_name()


@pytest.fixture
async def topic(client: Client, name: str) -> str:
    """A topic with one partition."""
    await client.admin.topics.create(name)
    return name


# --- Nothing may be left behind -----------------------------------------------------------------------


def _counter() -> Optional[Callable[[], int]]:
    path = os.environ.get("FLUVIO_CFFI_LIBRARY")
    if path is None:
        return None
    try:
        function: Any = ctypes.CDLL(path).fluvio_live_objects
    except (AttributeError, OSError):
        return None
    function.restype = ctypes.c_size_t
    function.argtypes = []
    return function  # type: ignore[no-any-return]


LIVE_OBJECTS = _counter()


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    yield
    if LIVE_OBJECTS is None:
        return
    # What was cancelled at the end of the test is freed by the library's threads a moment later.
    deadline = time.monotonic() + 10
    while True:
        gc.collect()
        count = LIVE_OBJECTS()
        if count == 0:
            return
        if time.monotonic() > deadline:
            pytest.fail(f"{count} objects of the library are left")
        time.sleep(0.01)


# --- Nothing may block the event loop -----------------------------------------------------------------

# What runs in the thread that calls it, by design.
BLOCKING = ("_sync", "_threads.py", "_slots.py", "_control.py", "devserver.py", "_server_process.py")
PACKAGE = os.path.dirname(os.path.abspath(fluvio_cffi.__file__)) + os.sep


def _cpu_wait(native_id: int) -> int:
    """Nanoseconds that a thread of this process has waited for a CPU; 0 where the system does not tell."""
    try:
        with open(f"/proc/self/task/{native_id}/schedstat", encoding="ascii") as file:
            return int(file.read().split()[1])
    except (OSError, IndexError):
        return 0


class BlockDetector(threading.Thread):
    """Looks at the main thread every 50 ms: it must not stay at one place within the package.

    Time in which it could have run and got no CPU does not count: that is a busy machine.
    """

    INTERVAL = 0.05
    LIMIT = 6

    def __init__(self) -> None:
        super().__init__(name="block detector", daemon=True)
        self._main = threading.main_thread().ident
        self._main_native = threading.main_thread().native_id
        self.found: list[str] = []
        self._ended = threading.Event()

    def run(self) -> None:
        last: Any = None
        count = 0
        waited = 0
        while not self._ended.wait(self.INTERVAL):
            assert self._main is not None
            assert self._main_native is not None
            waited, before = _cpu_wait(self._main_native), waited
            starved = (waited - before) / 1e9 > self.INTERVAL / 4
            frame = sys._current_frames().get(self._main)
            place = None
            if frame is not None:
                path = frame.f_code.co_filename
                # At its first line a function has called nothing yet: that is a wait for the GIL.
                begun = frame.f_lineno != frame.f_code.co_firstlineno
                if begun and path.startswith(PACKAGE) and not any(part in path for part in BLOCKING):
                    place = (id(frame), path, frame.f_lineno, frame.f_lasti)
            del frame
            if place is None or place != last:
                count = 0
            elif not starved:
                count += 1
            last = place
            if count == self.LIMIT and place is not None:
                self.found.append(f"{place[1]}:{place[2]}")

    def end(self) -> None:
        self._ended.set()
        self.join()


@pytest.fixture(scope="session")
def block_detector() -> Iterator[BlockDetector]:
    detector = BlockDetector()
    detector.start()
    yield detector
    detector.end()


@pytest.fixture(autouse=True)
def nothing_blocks(block_detector: BlockDetector) -> Iterator[None]:
    block_detector.found.clear()
    with ExitStack() as stack:
        if not PYPY:
            blockbuster = pytest.importorskip("blockbuster")
            stack.enter_context(
                blockbuster.blockbuster_ctx(
                    "fluvio_cffi",
                    excluded_modules=[
                        "fluvio_cffi._sync",
                        "fluvio_cffi._control",
                        "fluvio_cffi._server_process",
                        "fluvio_cffi.devserver",
                    ],
                )
            )
        yield
    assert not block_detector.found, f"the event loop was blocked at {block_detector.found}"
