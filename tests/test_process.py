"""The process around the client: it exits, forks and is interrupted at the worst moments."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Optional

import pytest

from tests.support import run_program, start_program

RUNNERS = ["asyncio", "trio"]
if sys.implementation.name != "pypy":
    RUNNERS.append("uvloop")
RUNS = int(os.environ.get("FLUVIO_TEST_EXITS", "100"))

RUN = """
import sys

def run(main, *arguments):
    runner = sys.argv[2]
    if runner == "trio":
        import trio
        return trio.run(main, *arguments)
    if runner == "uvloop":
        import uvloop
        return uvloop.run(main(*arguments))
    import asyncio
    return asyncio.run(main(*arguments))
"""

EXIT = (
    RUN
    + """
import os, fluvio_cffi, random
from fluvio_cffi import Offset

async def main():
    client = await fluvio_cffi.connect(sys.argv[1])
    name = "exit-" + os.urandom(8).hex()
    await client.admin.topics.create(name)
    producer = await client.producer(name)
    consumer = await client.consumer(name, start=Offset.beginning())
    await producer.send(b"first")
    kept.extend([client, producer, consumer])
    coroutines = [
        producer.send(b"x" * 1000), producer.flush(), producer.send_many([b"y"] * 5000), consumer.receive(),
        client.admin.topics.list(), client.admin.topics.delete(name),
    ]
    random.shuffle(coroutines)
    if sys.argv[2] == "trio":
        import trio
        async with trio.open_nursery() as nursery:
            for coroutine in coroutines:
                nursery.start_soon(swallow, coroutine)
            for _ in range(random.randrange(20)):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    else:
        import asyncio
        kept.extend(asyncio.ensure_future(coroutine) for coroutine in coroutines)
        for _ in range(random.randrange(20)):
            await asyncio.sleep(0)

async def swallow(coroutine):
    try:
        await coroutine
    except fluvio_cffi.FluvioError:
        pass

kept = []
import warnings
warnings.simplefilter("ignore", ResourceWarning)
run(main)
if random.random() < 0.5:
    kept.clear()
print("end")
"""
)


def exits(endpoint: str, runner: str) -> str:
    status, out, err = run_program(EXIT, endpoint, runner)
    if (status, out) == (0, "end\n"):
        return ""
    return f"status {status}: {out} {err}"


@pytest.mark.parametrize("runner", RUNNERS)
def test_exit_with_operations_in_flight(endpoint: str, runner: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: exits(endpoint, runner), range(RUNS)))
    failures = [result for result in results if result]
    assert not failures, f"{len(failures)} of {RUNS}: {failures[0]}"


def test_exit_of_the_twin(endpoint: str) -> None:
    status, out, err = run_program(
        """
        import sys, threading, os
        from fluvio_cffi import sync
        client = sync.connect(sys.argv[1])
        name = "exit-" + os.urandom(8).hex()
        client.admin.topics.create(name)
        producer = client.producer(name)
        consumer = client.consumer(name)
        delivery = producer.submit(b"x")
        threading.Thread(target=consumer.receive, daemon=True).start()
        print("end")
        """,
        endpoint,
    )
    assert (status, out) == (0, "end\n"), err


FORK = (
    RUN
    + """
import os, threading, traceback, fluvio_cffi
from fluvio_cffi import ForkedError, Offset
import warnings
warnings.simplefilter("ignore", DeprecationWarning)   # 3.12: fork() in a process with threads
warnings.simplefilter("ignore", ResourceWarning)

def step(coroutine):
    # Inside the child there is no loop that could run it: it must fail at its first step.
    try:
        coroutine.send(None)
    except ForkedError:
        return
    finally:
        coroutine.close()
    raise AssertionError("no ForkedError")

async def fresh():
    async with fluvio_cffi.connect(sys.argv[1]) as client:
        async with client.producer(name) as producer:
            await producer.send(b"from a child")

def child(client, producer, consumer, twin, delivery):
    step(client.admin.topics.list())
    step(producer.send(b"no"))
    step(producer.submit(b"no"))
    step(producer.send_many([b"no"]))
    step(producer.send_many([]))
    step(producer.flush())
    step(consumer.receive_batch())
    step(client.aclose())
    others = (lambda: producer.partition_count, lambda: delivery.add_done_callback(print))
    for call in (*others, twin.admin.topics.list, twin.close):
        try:
            call()
        except ForkedError:
            continue
        raise AssertionError("no ForkedError")
    with fluvio_cffi.sync.connect(sys.argv[1]) as new:
        with new.producer(name) as other:
            other.send(b"from a child")
    thread = threading.Thread(target=guarded, args=(lambda: run(fresh),))
    thread.start()
    thread.join()

def guarded(function):
    try:
        function()
    except BaseException:
        traceback.print_exc()
        os._exit(1)

async def main():
    twin = fluvio_cffi.sync.connect(sys.argv[1])
    async with fluvio_cffi.connect(sys.argv[1]) as client:
        await client.admin.topics.create(name)
        start = Offset.beginning()
        async with client.producer(name) as producer, client.consumer(name, start=start) as consumer:
            await producer.send(b"first")
            await consumer.receive()
            for number in range(int(sys.argv[3])):
                deliveries = [await producer.submit(b"load %d" % number) for _ in range(50)]
                pid = os.fork()
                if pid == 0:
                    guarded(lambda: child(client, producer, consumer, twin, deliveries[0]))
                    os._exit(0)
                for delivery in deliveries:
                    await delivery
                status = os.waitpid(pid, 0)[1]
                assert status == 0, status
                # The parent has noticed nothing.
                await producer.send(b"after")
                await consumer.receive()
    twin.close()

name = "fork-" + os.urandom(8).hex()
run(main)
print("end")
"""
)


@pytest.mark.parametrize("runner", RUNNERS)
def test_fork_under_load(endpoint: str, runner: str) -> None:
    status, out, err = run_program(FORK, endpoint, runner, str(RUNS), timeout=240)
    assert (status, out) == (0, "end\n"), err


# Before 3.11 nothing keeps KeyboardInterrupt out of asyncio's own code. A task whose turn it strikes is never
# resumed, with or without this client: there the signal cancels the task (docs/python.md).
RUN_CANCELLED = (
    RUN
    + """
def run_cancelled(main):
    import asyncio, signal
    async def cancelled_by_signal():
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, asyncio.current_task().cancel)
        await main()
    try:
        asyncio.run(cancelled_by_signal())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None

if sys.version_info < (3, 11) and sys.argv[2] == "asyncio":
    run = run_cancelled
"""
)

INTERRUPT = (
    RUN_CANCELLED
    + """
import os, signal, threading, time, fluvio_cffi
from fluvio_cffi import Offset

def beat():
    # asyncio.run() notices a signal by the system call that it ends. One that comes between its last look and
    # that call waits for the loop's next event, and an idle loop has none, with or without this client.
    # Loops of programs have some; trio and uvloop have a descriptor for it.
    import asyncio
    asyncio.get_running_loop().call_later(0.1, beat)

async def main():
    if sys.argv[2] == "asyncio":
        beat()
    try:
        if what == "connect":
            print("ready", flush=True)
            await fluvio_cffi.connect(sys.argv[4])
        async with fluvio_cffi.connect(sys.argv[1]) as client:
            name = "interrupt-" + os.urandom(8).hex()
            await client.admin.topics.create(name)
            async with client.producer(name, buffer=4096) as producer, client.consumer(name) as consumer:
                if what == "loop":
                    print("ready", flush=True)
                    while True:
                        await producer.send(b"x")
                if what == "consume":
                    print("ready", flush=True)
                    async for record in consumer:
                        pass
                if what == "iterate":
                    await producer.send_many([b""] * 100)
                    async with client.consumer(name, start=Offset.beginning()) as again:
                        print("ready", flush=True)
                        while True:
                            async for record in again:
                                await producer.send(b"")
    finally:
        print("cleaned up", flush=True)

what = sys.argv[3]
try:
    run(main)
except KeyboardInterrupt:
    print("interrupted")
"""
)


def interrupt(
    process: subprocess.Popen[str], silent: Optional[socket.socket] = None
) -> tuple[int, list[str], str]:
    """End it by SIGINT when it is ready, and has connected to `silent`."""
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    if silent is not None:
        # Before that it may be importing, and Python drops an exception in a finaliser of its import locks.
        connection, _ = silent.accept()
        with connection:
            return sigint(process)
    return sigint(process)


def sigint(process: subprocess.Popen[str]) -> tuple[int, list[str], str]:
    process.send_signal(signal.SIGINT)
    try:
        out, err = process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise AssertionError("SIGINT was not noticed") from None
    return process.returncode, out.splitlines(), err


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        yield listener


def address(listener: socket.socket) -> str:
    return f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("what", ["connect", "loop", "consume", "iterate"])
@pytest.mark.parametrize("runner", RUNNERS)
def test_interrupt(endpoint: str, silent: socket.socket, runner: str, what: str) -> None:
    for _ in range(5):
        process = start_program(INTERRUPT, endpoint, runner, what, address(silent))
        status, lines, err = interrupt(process, silent if what == "connect" else None)
        assert (status, lines) == (0, ["cleaned up", "interrupted"]), err


@pytest.mark.parametrize("what", ["connect", "send", "loop", "consume", "iterate", "flush"])
def test_interrupt_the_twin(endpoint: str, silent: socket.socket, what: str) -> None:
    program = """
        import os, sys
        from fluvio_cffi import Offset, sync
        what = sys.argv[2]
        try:
            if what == "connect":
                print("ready", flush=True)
                sync.connect(sys.argv[3])
            with sync.connect(sys.argv[1]) as client:
                name = "interrupt-" + os.urandom(8).hex()
                client.admin.topics.create(name)
                with client.producer(name) as producer, client.consumer(name) as consumer:
                    print("ready", flush=True)
                    while what == "loop":
                        producer.send(b"")
                    while what == "send":
                        producer.send_many([b""] * 1000)
                    while what == "flush":
                        producer.flush()
                    for record in consumer:
                        pass
        except KeyboardInterrupt:
            print("interrupted")
        """
    for _ in range(5):
        process = start_program(program, endpoint, what, address(silent))
        status, lines, err = interrupt(process, silent if what == "connect" else None)
        assert (status, lines) == (0, ["interrupted"]), err


SUBINTERPRETER = """
import sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters

code = f'''
import sys
sys.path[:0] = {sys.path!r}
try:
    import fluvio_cffi.sync
except ImportError as error:
    print("refused:", error, flush=True)
else:
    with fluvio_cffi.sync.connect({sys.argv[1]!r}) as client:
        client.admin.topics.list()
        print("works", flush=True)
'''
isolated = sys.argv[2] == "isolated"
for _ in range(2):
    if sys.version_info >= (3, 13):
        made = interpreters.create(sys.argv[2])
        problem = interpreters.exec(made, code)
        assert problem is None, problem
    else:
        made = interpreters.create(isolated=isolated)
        interpreters.run_string(made, code)
    interpreters.destroy(made)
import fluvio_cffi.sync
with fluvio_cffi.sync.connect(sys.argv[1]) as client:
    client.admin.topics.list()
"""


@pytest.mark.skipif(sys.implementation.name == "pypy", reason="PyPy has no subinterpreters")
@pytest.mark.parametrize("kind", ["legacy", "isolated"])
def test_subinterpreters(endpoint: str, kind: str) -> None:
    status, out, err = run_program(SUBINTERPRETER, endpoint, kind)
    assert status == 0, err
    first, second = out.splitlines()
    for line in (first, second):
        if line != "works":
            assert line.startswith("refused: fluvio_cffi works in the main interpreter"), line
