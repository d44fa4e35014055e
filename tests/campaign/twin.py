"""The actors of the synchronous twin: threads that share a client, and calls that are given up soon."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from typing import Any, Callable, Optional

import anyio

from fluvio_cffi import (
    FluvioError,
    FluvioTimeoutError,
    PartialDeliveryError,
    TopicDeletedError,
    sync,
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

PRODUCERS = 2
CONSUMERS = 2


def threads(stage: Stage, seed: str) -> list[threading.Thread]:
    """One thread that opens the client and waits for the others."""

    def play() -> None:
        client = _connect(stage)
        if client is None:
            return
        with client:
            players = [
                *(
                    _thread(stage, client, _produce, f"producer {n} of the twin", seed)
                    for n in range(PRODUCERS)
                ),
                *(
                    _thread(stage, client, _consume, f"consumer {n} of the twin", seed)
                    for n in range(CONSUMERS)
                ),
            ]
            for player in players:
                player.start()
            for player in players:
                player.join()

    return [stage.thread("the twin", play)]


def _thread(stage: Stage, client: sync.Client, play: Any, who: str, seed: str) -> threading.Thread:
    return stage.thread(who, lambda: play(client, stage, who, random.Random(f"{seed} {who}")))


def _connect(stage: Stage) -> Optional[sync.Client]:
    while not stage.stopping.is_set():
        try:
            return sync.connect(stage.endpoint, **CLIENT)
        except FluvioError:
            time.sleep(0.1)
    return None


def _open(stage: Stage, topic: Topic, opening: Callable[..., Any], options: dict[str, Any]) -> Any:
    """A handle and the incarnation that it is of; None if that failed, or is not known."""
    before = topic.current
    if before is None:
        time.sleep(0.02)
        return None
    try:
        handle = opening(topic.name, **options)
    except FluvioError as error:
        stage.take_failed_opening(topic, before, error)
        time.sleep(0.05)
        return None
    if topic.current is not before:
        handle.close()
        return None
    return handle, before


# --- Producers ----------------------------------------------------------------------------------------


def _produce(client: sync.Client, stage: Stage, who: str, rng: random.Random) -> None:
    with stage.producing():
        while not stage.stopping.is_set():
            topic = rng.choice(stage.topics)
            options = producer_options(rng)
            opened = _open(stage, topic, client.producer, options)
            if opened is None:
                continue
            producer, incarnation = opened
            source = incarnation.source(who)
            _Feeding(producer, source, stage, rng).run(rng.choice((5, 50, 500)))
            try:
                producer.close()
            except FluvioError as error:
                stage.take_failed_closing(source, error)


class _Feeding:
    """What one thread hands to one producer."""

    def __init__(self, producer: sync.Producer, source: Source, stage: Stage, rng: random.Random) -> None:
        self._producer = producer
        self._source = source
        self._stage = stage
        self._rng = rng
        self._deliveries: deque[tuple[int, sync.Delivery]] = deque()
        self._over = False

    def run(self, calls: int) -> None:
        ways = {"send": self._send, "submit": self._submit, "send_many": self._send_many}
        rng = self._rng
        for _ in range(calls):
            if self._over or self._stage.stopping.is_set():
                break
            ways[rng.choice(WAYS)]()
            time.sleep(rng.choice((0, 0, 0.002, 0.03)))
        self._settle(0)

    def _timeout(self) -> float:
        """One that is too short, now and then."""
        return self._rng.choice((0.0005, 0.005)) if self._rng.random() < 0.1 else PATIENCE

    def _failed(self, numbers: list[int], error: FluvioError) -> None:
        fail(self._source, numbers, error)
        self._stage.take_error(self._source.incarnation, self._source.name, error)
        self._over = self._over or isinstance(error, TopicDeletedError)

    def _given_up(self, numbers: list[int], timeout: float, error: FluvioError) -> None:
        """A call that took longer than it was given may have sent all the same."""
        if timeout < PATIENCE and isinstance(error, FluvioTimeoutError):
            for number in numbers:
                self._source.given_up(number)
        else:
            self._failed(numbers, error)

    def _send(self) -> None:
        rng, source, timeout = self._rng, self._source, self._timeout()
        number, value = source.value(record_size(rng))
        try:
            ack = self._producer.send(value, timeout=timeout, **target(rng, source.incarnation))
        except FluvioError as error:
            self._given_up([number], timeout, error)
        else:
            source.acked(number, ack.partition, ack.offset)

    def _submit(self) -> None:
        rng, source = self._rng, self._source
        for _ in range(rng.choice((1, 10, 100))):
            number, value = source.value(record_size(rng))
            try:
                delivery = self._producer.submit(value, timeout=PATIENCE, **target(rng, source.incarnation))
            except FluvioError as error:
                self._failed([number], error)
                if self._over:
                    return
            else:
                self._deliveries.append((number, delivery))
        self._settle(rng.choice((0, 50, 500)))

    def _settle(self, left: int) -> None:
        """Take the outcomes of what was submitted, but of the last ones."""
        while len(self._deliveries) > left:
            number, delivery = self._deliveries[0]
            timeout = self._timeout()
            try:
                ack = delivery.wait(timeout=timeout)
            except FluvioError as error:
                if timeout < PATIENCE and isinstance(error, FluvioTimeoutError):
                    # Waiting again takes nothing away.
                    continue
                self._failed([number], error)
            else:
                self._source.acked(number, ack.partition, ack.offset)
            self._deliveries.popleft()

    def _send_many(self) -> None:
        rng, source, timeout = self._rng, self._source, self._timeout()
        size = record_size(rng)
        numbers, values = zip(*(source.value(size) for _ in range(rng.choice((1, 20, 300)))))
        where: dict[str, Any] = target(rng, source.incarnation)
        if "key" in where:
            where = {"keys": [where["key"]] * len(values)}
        try:
            deliveries = self._producer.send_many(values, timeout=timeout, **where)
        except PartialDeliveryError as error:
            deliveries = error.deliveries
        except FluvioError as error:
            self._given_up(list(numbers), timeout, error)
            return
        for index, number in enumerate(numbers):
            if deliveries.offsets[index] >= 0:
                source.acked(number, deliveries.partitions[index], deliveries.offsets[index])
            else:
                self._failed([number], deliveries.errors[index])


# --- Consumers ----------------------------------------------------------------------------------------


def _consume(client: sync.Client, stage: Stage, who: str, rng: random.Random) -> None:
    while not stage.finished.is_set():
        topic = rng.choice(stage.topics)
        options = consumer_options(rng)
        opened = _open(stage, topic, client.consumer, options)
        if opened is None:
            continue
        consumer, incarnation = opened
        reading = incarnation.reading(f"{who} ({options['prefetch'] // 1024} KiB)")
        _read(consumer, reading, incarnation, stage, rng)
        consumer.close()


def _read(
    consumer: sync.Consumer, reading: Reading, incarnation: Incarnation, stage: Stage, rng: random.Random
) -> None:
    left = rng.choice((20, 500, 1_000_000))
    slow = rng.random() < 0.3
    told = False
    while left > 0 or stage.finished.is_set():
        if stage.is_read(reading):
            return
        if slow and not stage.finished.is_set():
            time.sleep(rng.choice((0.0, 0.05, 0.5)))
        left -= 1
        try:
            timeout = rng.choice((0.0001, 0.001, 0.05, 0.2))
            if rng.random() < 0.3:
                record = consumer.receive(timeout=timeout)
                reading.add(record.partition, record.offset, record.value)
            else:
                batch = consumer.receive_batch(timeout=timeout)
                for offset, value in zip(batch.offsets(), batch.values()):
                    reading.add(batch.partition, offset, value)
        except FluvioTimeoutError:
            pass
        except FluvioError as error:
            stage.take_error(incarnation, reading.name, error)
            told = told or isinstance(error, TopicDeletedError)
        except anyio.EndOfStream:
            if incarnation.ended is None and not told:
                stage.report.find("ended early", f"{reading.name} of {incarnation}")
            return
