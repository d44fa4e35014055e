"""Every await is a checkpoint: others get their turn, and a cancelled task does nothing more."""

from __future__ import annotations

from typing import Any, Callable

import anyio
import pytest

import fluvio_cffi
from fluvio_cffi import Client, Offset
from tests.support import ON_ASYNCIO

Case = Callable[[Client, Any, Any], Any]
CASES: dict[str, Case] = {
    "send": lambda client, producer, consumer: producer.send(b"x"),
    "submit": lambda client, producer, consumer: producer.submit(b"x"),
    "send_many": lambda client, producer, consumer: producer.send_many([b"x"] * 10),
    "send_nothing": lambda client, producer, consumer: producer.send_many([]),
    "flush": lambda client, producer, consumer: producer.flush(),
    "list": lambda client, producer, consumer: client.admin.topics.list(),
    "first record": lambda client, producer, consumer: consumer.receive(),
    "batch": lambda client, producer, consumer: consumer.receive_batch(),
    "connect": lambda client, producer, consumer: connect_and_close(client.endpoint),
    "close twice": lambda client, producer, consumer: close_twice(consumer),
}


async def connect_and_close(endpoint: str) -> None:
    client = await fluvio_cffi.connect(endpoint)
    await client.aclose()


async def close_twice(consumer: Any) -> None:
    await consumer.aclose()
    await consumer.aclose()


@pytest.mark.parametrize("anyio_backend", ON_ASYNCIO, indirect=True)
@pytest.mark.parametrize("case", CASES)
async def test_others_get_their_turn(client: Client, topic: str, case: str) -> None:
    async with (
        client.producer(topic) as producer,
        client.consumer(topic, start=Offset.beginning()) as consumer,
    ):
        await producer.send_many([b""] * 5)
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                await anyio.lowlevel.checkpoint()
                turns += 1

        async with anyio.create_task_group() as group:
            group.start_soon(other)
            while not turns:
                await anyio.lowlevel.checkpoint()
            before = turns
            await CASES[case](client, producer, consumer)
            assert turns > before
            group.cancel_scope.cancel()


@pytest.mark.parametrize("case", CASES)
async def test_cancelled_before_it_begins(client: Client, topic: str, case: str) -> None:
    async with (
        client.producer(topic) as producer,
        client.consumer(topic, start=Offset.beginning()) as consumer,
    ):
        await producer.send_many([b""] * 5)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await CASES[case](client, producer, consumer)
        assert scope.cancelled_caught


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_trio_agrees(client: Client, topic: str) -> None:
    import trio.testing

    async with (
        client.producer(topic) as producer,
        client.consumer(topic, start=Offset.beginning()) as consumer,
    ):
        await producer.send_many([b""] * 5)
        for case in CASES.values():
            with trio.testing.assert_checkpoints():
                await case(client, producer, consumer)


@pytest.mark.parametrize("case", ["submit", "delivery"])
async def test_what_need_not_wait_lets_others_run(client: Client, topic: str, case: str) -> None:
    """Submitting, and asking for answers that are there, neither hold up the loop nor outlive a cancel."""
    async with client.producer(topic) as producer:
        delivery = await producer.submit(b"x")
        await delivery
        turns = 0

        async def other(scope: anyio.CancelScope) -> None:
            nonlocal turns
            while turns < 10:
                await anyio.lowlevel.checkpoint()
                turns += 1
            scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(other, group.cancel_scope)
            while True:
                if case == "submit":
                    await producer.submit(b"x")
                else:
                    await delivery
        assert turns == 10
        with anyio.CancelScope() as scope:
            await producer.submit(b"x")
            scope.cancel()
            await producer.submit(b"y")
        assert scope.cancelled_caught
