"""What several test files need: waiting for conditions, running programs."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import FrameType
from typing import Any, Callable

import anyio
import pytest

from fluvio_cffi import Consumer, Record

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "fluvio_cffi"
TIMEOUT = 30.0
PYPY = sys.implementation.name == "pypy"


def eager_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
    return loop


BACKENDS = [pytest.param(("asyncio", {}), id="asyncio")]
if sys.version_info >= (3, 12):
    BACKENDS.append(pytest.param(("asyncio", {"loop_factory": eager_loop}), id="asyncio+eager"))
if not PYPY:
    BACKENDS.append(pytest.param(("asyncio", {"use_uvloop": True}), id="asyncio+uvloop"))
BACKENDS.append(pytest.param(("trio", {}), id="trio"))
ON_ASYNCIO = BACKENDS[:-1]


def collect() -> None:
    """Have finalizers run: PyPy needs several rounds for what hangs together."""
    for _ in range(5 if PYPY else 1):
        gc.collect()


async def eventually(condition: Callable[[], Any], timeout: float = TIMEOUT) -> None:
    """Wait until a condition holds."""
    with anyio.fail_after(timeout):
        while not condition():  # noqa: ASYNC110 (conditions of all kinds)
            await anyio.sleep(0.005)


def eventually_sync(condition: Callable[[], Any], timeout: float = TIMEOUT) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


async def take(consumer: Consumer, count: int) -> list[Record]:
    """The next `count` records."""
    records: list[Record] = []
    with anyio.fail_after(TIMEOUT):
        while len(records) < count:
            records.append(await consumer.receive())
    return records


def environment() -> dict[str, str]:
    """For a Python program in a child process: the package of this tree, warnings as errors."""
    variables = dict(os.environ)
    variables["PYTHONPATH"] = os.pathsep.join([str(ROOT), variables.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return variables


def start_program(source: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    return _start("-c", textwrap.dedent(source), *arguments, **options)


def _start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run_program(source: str, *arguments: str, timeout: float = 60) -> tuple[int, str, str]:
    """Status, stdout and stderr of a program."""
    return _end(start_program(source, *arguments), timeout)


def run_file(path: Path, *arguments: str, timeout: float = 60) -> tuple[int, str, str]:
    """Status, stdout and stderr of a program in a file of its own, as multiprocessing needs it."""
    return _end(_start(str(path), *arguments), timeout)


def _end(process: subprocess.Popen[str], timeout: float) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"the program hung: {out}\n{err}") from None
    return process.returncode, out, err


def interrupted_at_every_line(call: Callable[[], Any], check: Callable[[], Any]) -> int:
    """Make `call` again and again, with a KeyboardInterrupt at one line of the package further each time."""
    number = 0
    while True:
        number += 1
        lines = 0

        def trace(frame: FrameType, event: str, argument: Any) -> Any:
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
