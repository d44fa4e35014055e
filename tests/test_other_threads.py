"""A client of one event loop that is used in another thread's while its own is at work: always refused."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any, Callable

import anyio
import anyio.to_thread
import pytest

import fluvio_cffi
from fluvio_cffi import Client, Consumer, Offset, PartitionNotFoundError, Producer, Record

TIMES = 300
RECORDS = 200


@pytest.mark.parametrize("other", ["asyncio", "trio"])
async def test_while_its_own_loop_is_at_work(
    client: Client, anyio_backend: Any, topic: str, other: str
) -> None:
    async with await client.producer(topic) as producer:
        await producer.send_many([b"%d" % number for number in range(RECORDS)])
        async with await client.consumer(topic, start=Offset.beginning()) as consumer:
            foreign = await _beside(other, producer, consumer)
            assert foreign == []
            # What was refused was not written, and nothing of it was read.
            seen = [record.value async for record in _first(consumer, RECORDS)]
            assert seen == [b"%d" % number for number in range(RECORDS)]


async def _first(consumer: Consumer, count: int) -> AsyncIterator[Record]:
    async for record in consumer:
        yield record
        count -= 1
        if not count:
            return


async def _beside(other: str, producer: Producer, consumer: Consumer) -> list[str]:
    """What another thread's loop was not refused, while this one's refusals use the same place."""
    wrong: list[str] = []
    over = threading.Event()
    calls: list[Callable[[], Any]] = [
        lambda: producer.submit(b"foreign", partition=99),
        lambda: producer.submit(b"foreign"),
        lambda: producer.send(b"foreign"),
        lambda: producer.send_many([b"foreign"]),
        lambda: producer.flush(),
        lambda: consumer.__anext__(),
        lambda: consumer.receive(),
        lambda: consumer.receive_batch(),
    ]

    async def use() -> None:
        for _ in range(TIMES):
            for number, call in enumerate(calls):
                try:
                    await call()
                except RuntimeError as error:
                    if "belongs to another event loop" in str(error):
                        continue
                    wrong.append(f"{number}: {error!r}")
                except Exception as error:
                    wrong.append(f"{number}: {error!r}")
                else:
                    wrong.append(f"{number} was not refused")

    def run() -> None:
        try:
            anyio.run(use, backend=other)
        finally:
            over.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, run)
        while not over.is_set():
            with pytest.raises(PartitionNotFoundError, match="99"):
                await producer.submit(b"", partition=99)
    return wrong


async def test_a_loop_may_move_to_another_thread(endpoint: str, anyio_backend: Any) -> None:
    """Nothing of it is bound to the thread that made it."""

    def steps() -> None:
        loop = asyncio.new_event_loop()
        try:
            clients = []

            async def opened() -> Client:
                return await fluvio_cffi.connect(endpoint)

            clients.append(loop.run_until_complete(opened()))
            for step in (clients[0].admin.topics.list, clients[0].aclose):
                errors: list[BaseException] = []

                def there(step: Any = step, errors: list[BaseException] = errors) -> None:
                    try:
                        loop.run_until_complete(step())
                    except BaseException as error:
                        errors.append(error)

                thread = threading.Thread(target=there)
                thread.start()
                thread.join()
                assert errors == []
        finally:
            loop.close()

    await anyio.to_thread.run_sync(steps)
