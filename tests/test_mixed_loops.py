"""Programs with more than one kind of loop: trio-asyncio, trio as a guest of asyncio, gevent."""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from typing import Any

import pytest
import trio

import fluvio_cffi
from fluvio_cffi import Client, Offset
from tests.support import run_program


def needs(module: str) -> None:
    """Skip where it is not installed. Not imported here: both change what asyncio or the interpreter does."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"needs {module}")


async def round_trip(client: Client, topic: str, count: int) -> None:
    async with (
        client.producer(topic) as producer,
        client.consumer(topic, start=Offset.beginning()) as consumer,
    ):
        for number in range(count):
            await producer.send(b"%d" % number)
        await producer.send_many([b"x"] * 1000)
        values = [(await consumer.receive()).value for _ in range(count)]
        assert values == [b"%d" % number for number in range(count)]


async def all_of_it(endpoint: str, topic: str) -> str:
    async with fluvio_cffi.connect(endpoint) as client:
        await client.admin.topics.create(topic)
        await round_trip(client, topic, 10)
        return type(client._port).__name__


def test_trio_as_a_guest_of_asyncio(endpoint: str, name: str) -> None:
    """Both loops run in one thread at the same time, each with a client of its own."""

    async def host() -> tuple[str, str]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        trio.lowlevel.start_guest_run(
            all_of_it,
            endpoint,
            f"{name}-guest",
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=done.set_result,
        )
        ours = [await all_of_it(endpoint, f"{name}-host-{number}") for number in range(2)]
        guest = await done
        return ours[0], guest.unwrap()

    assert asyncio.run(host()) == ("AsyncioPort", "TrioPort")


def test_a_client_of_the_guest_is_refused_in_the_host(endpoint: str) -> None:
    async def host() -> None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        clients: asyncio.Queue[Client] = asyncio.Queue()
        ended = threading.Event()

        async def guest() -> None:
            async with fluvio_cffi.connect(endpoint) as client:
                clients.put_nowait(client)
                while not ended.is_set():  # noqa: ASYNC110 (set by another loop)
                    await trio.sleep(0.001)

        trio.lowlevel.start_guest_run(
            guest, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=done.set_result
        )
        client = await clients.get()
        try:
            with pytest.raises(RuntimeError, match="belongs to another event loop"):
                await client.admin.topics.list()
        finally:
            ended.set()
            (await done).unwrap()

    asyncio.run(host())


def test_trio_asyncio(endpoint: str, name: str) -> None:
    needs("trio_asyncio")
    status, out, err = run_program(
        """
        import asyncio, sys, warnings
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # trio-asyncio uses what asyncio deprecates.
            import trio, trio_asyncio
        import fluvio_cffi
        from fluvio_cffi import Offset

        async def round_trip(name):
            async with fluvio_cffi.connect(sys.argv[1]) as client:
                await client.admin.topics.create(name)
                async with client.producer(name) as producer:
                    await producer.send(b"x")
                    await producer.send_many([b"y"] * 100)
                async with client.consumer(name, start=Offset.beginning()) as consumer:
                    assert (await consumer.receive()).value == b"x"
                return type(client._port).__name__

        async def as_asyncio():
            await asyncio.sleep(0)
            return await round_trip(sys.argv[2] + "-asyncio")

        async def main():
            async with trio_asyncio.open_loop():
                print(await trio_asyncio.aio_as_trio(as_asyncio)())
                print(await round_trip(sys.argv[2] + "-trio"))

        trio.run(main)
        """,
        endpoint,
        name,
    )
    assert (status, out) == (0, "AsyncioPort\nTrioPort\n"), err


GEVENT = """
    import warnings
    warnings.simplefilter("ignore")  # gevent's own.
    import gevent.monkey
    gevent.monkey.patch_all()
    warnings.resetwarnings()
    warnings.simplefilter("error")
    import sys
    import gevent
    import fluvio_cffi.sync

    def work():
        with fluvio_cffi.sync.connect(sys.argv[1]) as client:
            return client.admin.topics.list() is not None
"""


def test_gevent(endpoint: str) -> None:
    """A wait would stop every greenlet of the hub: it is refused, with what to do instead, which works."""
    needs("gevent")
    status, out, err = run_program(
        GEVENT
        + """
    try:
        work()
    except RuntimeError as error:
        print(error)
    print(gevent.get_hub().threadpool.apply(work))
        """,
        endpoint,
    )
    assert status == 0, err
    refusal, answer = out.splitlines()
    assert "gevent" in refusal
    assert "threadpool" in refusal
    assert answer == "True"
