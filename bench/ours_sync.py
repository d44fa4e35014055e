"""Runs one case with the synchronous twin of fluvio_cffi, in one thread."""

from __future__ import annotations

import time
from typing import Any, Callable

import measure

import fluvio_cffi.sync
from fluvio_cffi import Offset
from fluvio_cffi.sync import Client, Consumer, Producer

Task = dict[str, Any]
Result = dict[str, Any]


def send_all(producer: Producer, pool: list[bytes], count: int) -> int:
    return sum(len(producer.send_many(chunk)) for chunk in measure.chunks(pool, count))


def submit_all(producer: Producer, pool: list[bytes], count: int) -> int:
    sent = 0
    for chunk in measure.chunks(pool, count):
        deliveries = [producer.submit(value) for value in chunk]
        for delivery in deliveries:
            delivery.wait()
        sent += len(deliveries)
    return sent


def produce(client: Client, task: Task) -> Result:
    way = submit_all if task.get("way") == "submit" else send_all
    pool = measure.values(task["chunk"], task["size"])
    with client.producer(task["topic"]) as producer:
        way(producer, pool, task["warm"])
        clock = measure.Clock(task.get("server_pid"))
        return clock.stop(way(producer, pool, task["count"]))


def read_records(consumer: Consumer, limit: int) -> int:
    count = size = 0
    for record in consumer:
        size += len(record.value)
        count += 1
        if count == limit:
            break
    return count


def read_batches(consumer: Consumer, limit: int) -> int:
    count = size = 0
    for batch in consumer.batches():
        values = batch.values()
        size += sum(map(len, values))
        count += len(values)
        if count >= limit:
            break
    return count


def consume(client: Client, task: Task) -> Result:
    way = read_batches if task["case"] == "batches" else read_records
    with client.consumer(task["topic"], start=Offset.beginning()) as consumer:
        way(consumer, task["warm"])
    clock = measure.Clock(task.get("server_pid"))
    with client.consumer(task["topic"], start=Offset.beginning()) as consumer:
        return clock.stop(way(consumer, task["count"]))


def ack(client: Client, task: Task) -> Result:
    value = measure.values(1, task["size"])[0]
    now = time.perf_counter
    with client.producer(task["topic"]) as producer:

        def acknowledged(count: int) -> list[float]:
            samples = []
            for _ in range(count):
                started = now()
                producer.send(value)
                samples.append(now() - started)
            return samples

        acknowledged(task["warm"])
        clock = measure.Clock(task.get("server_pid"))
        samples = acknowledged(task["count"])
        return clock.stop(len(samples), samples)


def live(client: Client, task: Task) -> Result:
    value = measure.values(1, task["size"])[0]
    now = time.perf_counter
    consumer = client.consumer(task["topic"], start=Offset.beginning())
    with client.producer(task["topic"]) as producer, consumer:

        def travel(count: int) -> list[float]:
            samples = []
            for _ in range(count):
                started = now()
                delivery = producer.submit(value)
                consumer.receive()
                samples.append(now() - started)
                delivery.wait()
            return samples

        travel(task["warm"])
        clock = measure.Clock(task.get("server_pid"))
        samples = travel(task["count"])
        return clock.stop(len(samples), samples)


CASES: dict[str, Callable[[Client, Task], Result]] = {
    "produce": produce,
    "records": consume,
    "batches": consume,
    "ack": ack,
    "live": live,
}


def main() -> None:
    task = measure.task()
    with fluvio_cffi.sync.connect(task["endpoint"]) as client:
        measure.report(CASES[task["case"]](client, task))


if __name__ == "__main__":
    main()
