"""The actors of a loop, asyncio's or trio's: producers and consumers that are cancelled now and then."""

from __future__ import annotations

import random
from collections import deque
from typing import Any, Callable, Optional

import anyio

import fluvio_cffi
from fluvio_cffi import (
    Client,
    Consumer,
    Delivery,
    FluvioError,
    Opening,
    PartialDeliveryError,
    Producer,
    TopicDeletedError,
)
from tests.campaign.model import Incarnation, Reading, Source
from tests.campaign.stage import (
    CLIENT,
    PATIENCE,
    WAYS,
    Stage,
    Topic,
    consumer_options,
    fail,
    producer_options,
    record_size,
    target,
)


async def play(stage: Stage, name: str, seed: str, producers: int, consumers: int) -> None:
    """One client with its producers and consumers, until the round ends."""
    client = await _connect(stage)
    if client is None:
        return
    async with client, anyio.create_task_group() as group:
        for number in range(producers):
            who = f"producer {number} of {name}"
            group.start_soon(_produce, client, stage, who, random.Random(f"{seed} {who}"))
        for number in range(consumers):
            who = f"consumer {number} of {name}"
            group.start_soon(_consume, client, stage, who, random.Random(f"{seed} {who}"))


async def _connect(stage: Stage) -> Optional[Client]:
    while not stage.stopping.is_set():
        try:
            return await fluvio_cffi.connect(stage.endpoint, **CLIENT)
        except FluvioError:
            await anyio.sleep(0.1)
    return None


async def _open(
    stage: Stage, topic: Topic, opening: Callable[..., Opening[Any]], options: dict[str, Any]
) -> Any:
    """A handle and the incarnation that it is of; None if that failed, or is not known."""
    before = topic.current
    if before is None:
        await anyio.sleep(0.02)
        return None
    try:
        with anyio.fail_after(PATIENCE):
            handle = await opening(topic.name, **options)
    except FluvioError as error:
        stage.take_failed_opening(topic, before, error)
        await anyio.sleep(0.05)
        return None
    except TimeoutError:
        stage.report.find("hung", f"opening {topic.name}")
        return None
    if topic.current is not before:
        with anyio.move_on_after(PATIENCE):
            await handle.aclose()
        return None
    return handle, before


# --- Producers ----------------------------------------------------------------------------------------


async def _produce(client: Client, stage: Stage, who: str, rng: random.Random) -> None:
    with stage.producing():
        while not stage.stopping.is_set():
            topic = rng.choice(stage.topics)
            options = producer_options(rng)
            opened = await _open(stage, topic, client.producer, options)
            if opened is None:
                continue
            producer, incarnation = opened
            source = incarnation.source(who)
            feeding = _Feeding(producer, source, stage, rng)
            await feeding.run(rng.choice((5, 50, 500)))
            try:
                with anyio.fail_after(PATIENCE):
                    await producer.aclose()
            except FluvioError as error:
                stage.take_failed_closing(source, error)
            except TimeoutError:
                stage.report.find("hung", f"{who}, closing")


class _Feeding:
    """What one task hands to one producer."""

    def __init__(self, producer: Producer, source: Source, stage: Stage, rng: random.Random) -> None:
        self._producer = producer
        self._source = source
        self._stage = stage
        self._rng = rng
        self._deliveries: deque[tuple[int, Delivery]] = deque()
        self._over = False

    async def run(self, calls: int) -> None:
        ways = {"send": self._send, "submit": self._submit, "send_many": self._send_many}
        rng = self._rng
        try:
            for _ in range(calls):
                if self._over or self._stage.stopping.is_set():
                    break
                with anyio.fail_after(PATIENCE):
                    await ways[rng.choice(WAYS)]()
                await anyio.sleep(rng.choice((0, 0, 0.002, 0.03)))
            with anyio.fail_after(PATIENCE):
                await self._settle(0)
        except TimeoutError:
            self._stage.report.find("hung", f"{self._source.name} at {self._source.incarnation}")

    def _cancelled(self) -> anyio.CancelScope:
        """A scope that is cancelled soon, now and then."""
        delay = self._rng.choice((0.0, 0.0005, 0.005)) if self._rng.random() < 0.1 else float("inf")
        return anyio.move_on_after(delay)

    def _failed(self, numbers: list[int], error: FluvioError) -> None:
        fail(self._source, numbers, error)
        self._stage.take_error(self._source.incarnation, self._source.name, error)
        self._over = self._over or isinstance(error, TopicDeletedError)

    async def _send(self) -> None:
        rng, source = self._rng, self._source
        number, value = source.value(record_size(rng))
        with self._cancelled():
            try:
                ack = await self._producer.send(value, **target(rng, source.incarnation))
            except FluvioError as error:
                self._failed([number], error)
            else:
                source.acked(number, ack.partition, ack.offset)
            return
        source.given_up(number)

    async def _submit(self) -> None:
        rng, source = self._rng, self._source
        for _ in range(rng.choice((1, 10, 100))):
            number, value = source.value(record_size(rng))
            try:
                delivery = await self._producer.submit(value, **target(rng, source.incarnation))
            except FluvioError as error:
                self._failed([number], error)
                if self._over:
                    return
            else:
                self._deliveries.append((number, delivery))
        await self._settle(rng.choice((0, 50, 500)))

    async def _settle(self, left: int) -> None:
        """Take the outcomes of what was submitted, but of the last ones."""
        while len(self._deliveries) > left:
            number, delivery = self._deliveries[0]
            with self._cancelled():
                try:
                    ack = await delivery
                except FluvioError as error:
                    self._failed([number], error)
                else:
                    self._source.acked(number, ack.partition, ack.offset)
                self._deliveries.popleft()

    async def _send_many(self) -> None:
        rng, source = self._rng, self._source
        size = record_size(rng)
        numbers, values = zip(*(source.value(size) for _ in range(rng.choice((1, 20, 300)))))
        where: dict[str, Any] = target(rng, source.incarnation)
        if "key" in where:
            where = {"keys": [where["key"]] * len(values)}
        with self._cancelled():
            try:
                deliveries = await self._producer.send_many(values, **where)
            except PartialDeliveryError as error:
                deliveries = error.deliveries
            except FluvioError as error:
                self._failed(list(numbers), error)
                return
            for index, number in enumerate(numbers):
                if deliveries.offsets[index] >= 0:
                    source.acked(number, deliveries.partitions[index], deliveries.offsets[index])
                else:
                    self._failed([number], deliveries.errors[index])
            return
        for number in numbers:
            source.given_up(number)


# --- Consumers ----------------------------------------------------------------------------------------


async def _consume(client: Client, stage: Stage, who: str, rng: random.Random) -> None:
    while not stage.finished.is_set():
        topic = rng.choice(stage.topics)
        options = consumer_options(rng)
        opened = await _open(stage, topic, client.consumer, options)
        if opened is None:
            continue
        consumer, incarnation = opened
        reading = incarnation.reading(f"{who} ({options['prefetch'] // 1024} KiB)")
        await _read(consumer, reading, incarnation, stage, rng)
        with anyio.move_on_after(PATIENCE) as scope:
            await consumer.aclose()
        if scope.cancelled_caught:
            stage.report.find("hung", f"{who}, closing")


async def _read(
    consumer: Consumer, reading: Reading, incarnation: Incarnation, stage: Stage, rng: random.Random
) -> None:
    left = rng.choice((20, 500, 1_000_000))
    slow = rng.random() < 0.3
    told = False
    while left > 0 or stage.finished.is_set():
        if stage.is_read(reading):
            return
        if slow and not stage.finished.is_set():
            await anyio.sleep(rng.choice((0.0, 0.05, 0.5)))
        left -= 1
        try:
            with anyio.move_on_after(rng.choice((0.0, 0.001, 0.05, 0.2))):
                if rng.random() < 0.3:
                    record = await consumer.receive()
                    reading.add(record.partition, record.offset, record.value)
                else:
                    batch = await consumer.receive_batch()
                    for offset, value in zip(batch.offsets(), batch.values()):
                        reading.add(batch.partition, offset, value)
        except FluvioError as error:
            stage.take_error(incarnation, reading.name, error)
            told = told or isinstance(error, TopicDeletedError)
        except anyio.EndOfStream:
            if incarnation.ended is None and not told:
                stage.report.find("ended early", f"{reading.name} of {incarnation}")
            return
