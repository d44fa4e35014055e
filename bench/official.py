"""Runs one case with the official Python client, in its own environment; imports nothing of this project.

`way` says which of its interfaces: "sync", "async", and for producing "send_all" or "send" with either. A
chunk is acknowledged when every output has been awaited, as with the other clients.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from typing import Any

import fluvio
import measure

Task = dict[str, Any]
Result = dict[str, Any]
# A stream that has given nothing for this long has nothing more: this client can lose what is waited for.
SILENCE = 5.0
NO_KEY = b""


def connect(task: Task) -> Any:
    config = fluvio.FluvioConfig.new(task["endpoint"])
    config.disable_tls()
    return fluvio.Fluvio.connect_with_config(config)


def produce(client: Any, task: Task) -> Result:
    producer = client.topic_producer(task["topic"])
    pool = [(NO_KEY, value) for value in measure.values(task["chunk"], task["size"])]

    def run(count: int) -> int:
        sent = 0
        for chunk in measure.chunks(pool, count):
            if task["way"] == "send_all":
                outputs = producer.send_all(chunk)
            else:
                outputs = [producer.send(key, value) for key, value in chunk]
            producer.flush()
            for output in outputs:
                output.wait()
            sent += len(outputs)
        return sent

    run(task["warm"])
    clock = measure.Clock(task.get("server_pid"))
    return clock.stop(run(task["count"]))


async def produce_async(client: Any, task: Task) -> Result:
    producer = client.topic_producer(task["topic"])
    pool = [(NO_KEY, value) for value in measure.values(task["chunk"], task["size"])]

    async def run(count: int) -> int:
        sent = 0
        for chunk in measure.chunks(pool, count):
            if task["way"] == "send_all":
                outputs = await producer.async_send_all(chunk)
            else:
                outputs = [await producer.async_send(key, value) for key, value in chunk]
            await producer.async_flush()
            for output in outputs:
                await output.async_wait()
            sent += len(outputs)
        return sent

    await run(task["warm"])
    clock = measure.Clock(task.get("server_pid"))
    return clock.stop(await run(task["count"]))


def records(client: Any, task: Task) -> Result:
    def run(limit: int) -> int:
        builder = fluvio.ConsumerConfigExtBuilder(task["topic"])
        builder.partition(0)
        builder.offset_start(fluvio.Offset.beginning())
        builder.disable_continuous()
        count = size = 0
        for record in client.consumer_with_config(builder.build()):
            size += len(record.value())
            count += 1
            if count == limit:
                break
        return count

    run(task["warm"])
    clock = measure.Clock(task.get("server_pid"))
    return clock.stop(run(task["count"]))


async def records_async(client: Any, task: Task) -> Result:
    async def run(limit: int) -> tuple[int, float]:
        # Its end panics when the stream is not continuous, so it ends with silence.
        stream: AsyncIterator[Any] = await client.partition_consumer(task["topic"], 0).async_stream(
            fluvio.Offset.beginning()
        )
        count = size = 0
        seen = [time.perf_counter(), 0]
        me = asyncio.current_task()
        assert me is not None

        async def watch() -> None:
            while True:
                before = seen[1]
                await asyncio.sleep(SILENCE)
                if seen[1] == before:
                    me.cancel()

        watcher = asyncio.create_task(watch())
        try:
            async for record in stream:
                size += len(record.value())
                count += 1
                seen[1] = count
                if not count % 64:
                    seen[0] = time.perf_counter()
                if count == limit:
                    break
        except asyncio.CancelledError:
            return count, seen[0]
        finally:
            watcher.cancel()
        return count, time.perf_counter()

    await run(task["warm"])
    clock = measure.Clock(task.get("server_pid"))
    count, end = await run(task["count"])
    return clock.stop(count, end=end)


def ack(client: Any, task: Task) -> Result:
    producer = client.topic_producer(task["topic"])
    value = measure.values(1, task["size"])[0]

    def run(count: int) -> list[float]:
        samples = []
        for _ in range(count):
            started = time.perf_counter()
            producer.send(NO_KEY, value).wait()
            samples.append(time.perf_counter() - started)
        return samples

    run(task["warm"])
    clock = measure.Clock(task.get("server_pid"))
    samples = run(task["count"])
    return clock.stop(len(samples), samples)


async def acknowledged(producer: Any, value: bytes, count: int) -> list[float]:
    samples = []
    for _ in range(count):
        started = time.perf_counter()
        output = await producer.async_send(NO_KEY, value)
        await output.async_wait()
        samples.append(time.perf_counter() - started)
    return samples


async def tasks_async(client: Any, task: Task) -> Result:
    producer = client.topic_producer(task["topic"])
    value = measure.values(1, task["size"])[0]

    async def run(count: int) -> list[float]:
        tasks = task.get("tasks", 1)
        parts = await asyncio.gather(*(acknowledged(producer, value, count // tasks) for _ in range(tasks)))
        return [sample for part in parts for sample in part]

    await run(task["warm"])
    clock = measure.Clock(task.get("server_pid"))
    samples = await run(task["count"])
    return clock.stop(len(samples), samples)


def live(client: Any, task: Task) -> Result:
    producer = client.topic_producer(task["topic"])
    value = measure.values(1, task["size"])[0]
    builder = fluvio.ConsumerConfigExtBuilder(task["topic"])
    builder.partition(0)
    builder.offset_start(fluvio.Offset.beginning())
    stream = client.consumer_with_config(builder.build())

    def travel(count: int) -> list[float]:
        samples = []
        for _ in range(count):
            started = time.perf_counter()
            output = producer.send(NO_KEY, value)
            next(stream).value()
            samples.append(time.perf_counter() - started)
            output.wait()
        return samples

    travel(task["warm"])
    clock = measure.Clock(task.get("server_pid"))
    samples = travel(task["count"])
    return clock.stop(len(samples), samples)


async def live_async(client: Any, task: Task) -> Result:
    producer = client.topic_producer(task["topic"])
    value = measure.values(1, task["size"])[0]
    stream = await client.partition_consumer(task["topic"], 0).async_stream(fluvio.Offset.beginning())

    async def travel(count: int) -> list[float]:
        samples = []
        for _ in range(count):
            started = time.perf_counter()
            output = await producer.async_send(NO_KEY, value)
            (await stream.__anext__()).value()
            samples.append(time.perf_counter() - started)
            await output.async_wait()
        return samples

    await travel(task["warm"])
    clock = measure.Clock(task.get("server_pid"))
    samples = await travel(task["count"])
    return clock.stop(len(samples), samples)


def threads(client: Any, task: Task) -> Result:
    producer = client.topic_producer(task["topic"])
    producer.send(NO_KEY, b"one").wait()
    stream = client.partition_consumer(task["topic"], 0).stream(fluvio.Offset.beginning())
    next(iter(stream))
    return {"count": 0, "threads": measure.threads() - task["idle_threads"]}


SYNC = {"produce": produce, "records": records, "ack": ack, "live": live, "threads": threads}
ASYNC = {
    "produce": produce_async,
    "records": records_async,
    "ack": tasks_async,
    "tasks": tasks_async,
    "live": live_async,
}


def main() -> None:
    task = measure.task()
    task["idle_threads"] = measure.threads()
    client = connect(task)
    if task["backend"] == "async":
        measure.report(asyncio.run(ASYNC[task["case"]](client, task)))
    else:
        measure.report(SYNC[task["case"]](client, task))


if __name__ == "__main__":
    main()
    # Its threads crash the interpreter at exit now and then ("FATAL: exception not rethrown").
    os._exit(0)
