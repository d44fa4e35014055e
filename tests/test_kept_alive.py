"""What the package must not keep alive, and what there can be only one of."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import gc
import os
import pickle
import sys
import warnings
import weakref
from typing import Any, Callable

import anyio
import pytest

import fluvio_cffi
import fluvio_cffi.sync
from fluvio_cffi import Client, Offset
from fluvio_cffi.devserver import DevServer
from tests.conftest import LIVE_OBJECTS
from tests.support import PYPY, collect, eager_loop, eventually, eventually_sync

LOOPS: list[Any] = [pytest.param(asyncio.new_event_loop, id="asyncio")]
if sys.version_info >= (3, 12):
    LOOPS.append(pytest.param(eager_loop, id="asyncio+eager"))
if not PYPY:
    import uvloop

    LOOPS.append(pytest.param(uvloop.new_event_loop, id="asyncio+uvloop"))


def eventfds() -> int:
    """How many there are: each port has one."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        # One of a connection may be closed meanwhile by the library's threads.
        with contextlib.suppress(FileNotFoundError):
            count += "eventfd" in os.readlink(f"/proc/self/fd/{name}")
    return count


@pytest.mark.parametrize("new_loop", LOOPS)
@pytest.mark.parametrize("waits", ["for a record", "for an answer", "for a delivery"])
def test_a_loop_that_was_closed_while_a_task_waited(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    waits: str,
    fluvio_server: DevServer,
    endpoint: str,
    name: str,
) -> None:
    with fluvio_cffi.sync.connect(endpoint) as client:
        client.admin.topics.create(name)

    async def leave() -> None:
        client = await fluvio_cffi.connect(endpoint)
        if waits == "for a record":
            consumer = await client.consumer(name)
            task: asyncio.Future[Any] = asyncio.ensure_future(consumer.receive())
        else:
            producer = await client.producer(name)
            if waits == "for an answer":
                task = asyncio.ensure_future(producer.send(b"x"))
            else:
                task = asyncio.ensure_future(wait(await producer.submit(b"x")))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not task.done()

    async def wait(delivery: fluvio_cffi.Delivery) -> None:
        await delivery

    def run() -> weakref.ref[asyncio.AbstractEventLoop]:
        loop = new_loop()
        loop.run_until_complete(leave())
        loop.close()
        return weakref.ref(loop)

    with warnings.catch_warnings(), fluvio_server.fault("delay", request="produce"):
        # What was left open and waiting says so.
        warnings.simplefilter("ignore", ResourceWarning)
        before = eventfds()
        loops = [run() for _ in range(5)]

        def gone() -> bool:
            gc.collect()
            # All of it: what is finalised later would warn where warnings are errors.
            left = LIVE_OBJECTS() if LIVE_OBJECTS is not None else 0
            return not any(loop() for loop in loops) and eventfds() <= before and not left

        eventually_sync(gone)


async def test_the_context_of_the_first_caller(endpoint: str) -> None:
    class Request:
        pass

    variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable")
    clients: list[Client] = []

    async def first() -> weakref.ref[Request]:
        request = Request()
        variable.set(request)
        clients.append(await fluvio_cffi.connect(endpoint))
        return weakref.ref(request)

    references: list[weakref.ref[Request]] = []

    async def task() -> None:
        references.append(await first())

    async with anyio.create_task_group() as group:
        group.start_soon(task)

    def gone() -> bool:
        collect()
        return references[0]() is None

    try:
        await eventually(gone)
        await clients[0].admin.topics.list()
    finally:
        await clients[0].aclose()


async def test_the_port_goes_where_warnings_are_errors(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: raised.append(args.exc_type))
    first = await fluvio_cffi.connect(endpoint)
    before = eventfds() - 1
    await first.aclose()
    await eventually(lambda: eventfds() == before)
    client: Any = await fluvio_cffi.connect(endpoint)
    assert eventfds() == before + 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del client

        def gone() -> bool:
            collect()
            return bool(raised) and eventfds() <= before

        await eventually(gone)
    assert raised == [ResourceWarning]


def refused(thing: Any) -> None:
    for what in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=f"a {type(thing).__name__} cannot be copied or pickled"):
            what(thing)


async def test_what_is_bound_is_not_copied(client: Client, topic: str) -> None:
    opening = client.producer(topic)
    refused(opening)
    async with (
        opening as producer,
        client.consumer(topic, start=Offset.beginning()) as consumer,
    ):
        delivery = await producer.submit(b"x")
        await delivery
        batch = await consumer.receive_batch()
        for thing in (
            client,
            client.admin,
            client.admin.topics,
            producer,
            consumer,
            consumer.batches(),
            delivery,
            batch,
        ):
            refused(thing)
        collect()
        # What is only data is copied.
        assert pickle.loads(pickle.dumps(batch.records())) == copy.deepcopy(batch.records())
        assert copy.copy(await producer.send_many([b"y"]))[0].offset == 1
        assert [record.value for record in batch.records()] == [b"x"]


def test_what_is_bound_is_not_copied_in_the_twin(endpoint: str, name: str) -> None:
    with fluvio_cffi.sync.connect(endpoint) as client:
        client.admin.topics.create(name)
        with (
            client.producer(name) as producer,
            client.consumer(name, start=Offset.beginning()) as consumer,
        ):
            delivery = producer.submit(b"x")
            delivery.wait()
            for thing in (client, client.admin, producer, consumer, delivery, consumer.receive_batch()):
                refused(thing)
    refused(DevServer())
