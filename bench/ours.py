"""Runs one case with fluvio_cffi on an event loop: asyncio, uvloop or trio, on whichever Python runs this.

The cases are written as a user would write them, without timeouts: a record that got lost would make a
reader wait for ever, and the run is then ended from outside and counts as failed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any, Callable

import measure

import fluvio_cffi
from fluvio_cffi import Client, Consumer, Offset, Producer

Task = dict[str, Any]
Result = dict[str, Any]
Worker = Callable[[], Awaitable[None]]


async def send_all(producer: Producer, pool: list[bytes], count: int) -> int:
    sent = 0
    for chunk in measure.chunks(pool, count):
        sent += len(await producer.send_many(chunk))
    return sent


async def submit_all(producer: Producer, pool: list[bytes], count: int) -> int:
    sent = 0
    for chunk in measure.chunks(pool, count):
        deliveries = [await producer.submit(value) for value in chunk]
        for delivery in deliveries:
            await delivery
        sent += len(deliveries)
    return sent


async def produce(client: Client, task: Task) -> Result:
    way = submit_all if task.get("way") == "submit" else send_all
    pool = measure.values(task["chunk"], task["size"])
    async with client.producer(task["topic"]) as producer:
        await way(producer, pool, task["warm"])
        clock = measure.Clock(task.get("server_pid"))
        return clock.stop(await way(producer, pool, task["count"]))


async def read_records(consumer: Consumer, limit: int) -> int:
    count = size = 0
    async for record in consumer:
        size += len(record.value)
        count += 1
        if count == limit:
            break
    return count


async def read_batches(consumer: Consumer, limit: int) -> int:
    count = size = 0
    async for batch in consumer.batches():
        values = batch.values()
        size += sum(map(len, values))
        count += len(values)
        if count >= limit:
            break
    return count


async def consume(client: Client, task: Task) -> Result:
    way = read_batches if task["case"] == "batches" else read_records
    async with client.consumer(task["topic"], start=Offset.beginning()) as consumer:
        await way(consumer, task["warm"])
    clock = measure.Clock(task.get("server_pid"))
    async with client.consumer(task["topic"], start=Offset.beginning()) as consumer:
        return clock.stop(await way(consumer, task["count"]))


async def acknowledged(producer: Producer, value: bytes, count: int, samples: list[float]) -> None:
    now = time.perf_counter
    for _ in range(count):
        started = now()
        await producer.send(value)
        samples.append(now() - started)


async def ack(client: Client, task: Task) -> Result:
    value = measure.values(1, task["size"])[0]
    samples: list[float] = []
    async with client.producer(task["topic"]) as producer:
        await acknowledged(producer, value, task["warm"], [])
        clock = measure.Clock(task.get("server_pid"))
        await acknowledged(producer, value, task["count"], samples)
        return clock.stop(len(samples), samples)


async def together(workers: list[Worker]) -> None:
    """Run them as tasks of the loop's own kind."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        import trio

        async with trio.open_nursery() as nursery:
            for worker in workers:
                nursery.start_soon(worker)
    else:
        await asyncio.gather(*(worker() for worker in workers))


async def tasks(client: Client, task: Task) -> Result:
    value = measure.values(1, task["size"])[0]
    samples: list[float] = []
    async with client.producer(task["topic"]) as producer:

        async def run(count: int, samples: list[float]) -> None:
            async def worker() -> None:
                await acknowledged(producer, value, count // task["tasks"], samples)

            await together([worker] * task["tasks"])

        await run(task["warm"], [])
        clock = measure.Clock(task.get("server_pid"))
        await run(task["count"], samples)
        return clock.stop(len(samples), samples)


async def border(client: Client, task: Task) -> Result:
    """What passes the border and the library's runtime without I/O: flushing an idle producer."""
    async with client.producer(task["topic"]) as producer:

        async def run(count: int) -> int:
            async def worker() -> None:
                for _ in range(count // task["tasks"]):
                    await producer.flush()

            await together([worker] * task["tasks"])
            return count

        await run(task["warm"])
        clock = measure.Clock(task.get("server_pid"))
        return clock.stop(await run(task["count"]))


async def live(client: Client, task: Task) -> Result:
    value = measure.values(1, task["size"])[0]
    now = time.perf_counter
    opening = client.consumer(task["topic"], start=Offset.beginning())
    async with client.producer(task["topic"]) as producer, opening as consumer:

        async def travel(count: int) -> list[float]:
            samples = []
            for _ in range(count):
                started = now()
                delivery = await producer.submit(value)
                await consumer.receive()
                samples.append(now() - started)
                await delivery
            return samples

        await travel(task["warm"])
        clock = measure.Clock(task.get("server_pid"))
        samples = await travel(task["count"])
        return clock.stop(len(samples), samples)


async def threads(client: Client, task: Task) -> Result:
    async with client.producer(task["topic"]) as producer:
        await producer.send(b"one")
        async with client.consumer(task["topic"], start=Offset.beginning()) as consumer:
            await consumer.receive()
            return {"count": 0, "threads": measure.threads() - task["idle_threads"]}


CASES: dict[str, Callable[[Client, Task], Awaitable[Result]]] = {
    "produce": produce,
    "records": consume,
    "batches": consume,
    "ack": ack,
    "tasks": tasks,
    "border": border,
    "live": live,
    "threads": threads,
}


async def run(task: Task) -> Result:
    async with fluvio_cffi.connect(task["endpoint"]) as client:
        return await CASES[task["case"]](client, task)


def main() -> None:
    task = measure.task()
    task["idle_threads"] = measure.threads()
    backend = task["backend"]
    if backend == "trio":
        import trio

        measure.report(trio.run(run, task))
    elif backend == "uvloop":
        import uvloop

        measure.report(uvloop.run(run(task)))
    else:
        measure.report(asyncio.run(run(task)))


if __name__ == "__main__":
    main()
