"""How long others wait while the development server is busy with its metadata.

    .venv/bin/python bench/stalls.py

A process of its own sends record after record and times the acknowledgements; meanwhile this one creates
1 000 topics of 10 partitions, lists them, connects clients that watch everything, and creates and deletes
more. One line per phase: the phase's own time, and what the bystander saw.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable
from contextlib import AsyncExitStack

import fluvio_cffi
from fluvio_cffi.devserver import DevServer

TOPICS = 1000
PARTITIONS = 10
MORE_TOPICS = 200
LISTS = 20
WATCHERS = 20
# Seconds between two records of the bystander.
PAUSE = 0.002


async def bystand(endpoint: str) -> None:
    """Sends until stdin ends; for each line there prints what was seen since the last one."""
    seconds: list[float] = []

    async def send() -> None:
        async with fluvio_cffi.connect(endpoint) as client, client.producer("bystander") as producer:
            while True:
                started = time.perf_counter()
                await producer.send(b"x")
                seconds.append(time.perf_counter() - started)
                await asyncio.sleep(PAUSE)

    sending = asyncio.ensure_future(send())
    while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
        seen, seconds[:] = sorted(seconds), []
        p50, p99 = statistics.median(seen), seen[len(seen) * 99 // 100]
        milliseconds = f"p50 {p50 * 1e3:.2f}, p99 {p99 * 1e3:.2f}, max {seen[-1] * 1e3:.2f} ms"
        print(f"{line}: {len(seen)} acknowledgements, {milliseconds}", flush=True)
    sending.cancel()
    await asyncio.wait([sending])
    if not sending.cancelled():
        sending.result()


async def main() -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(DevServer())
        client = await stack.enter_async_context(fluvio_cffi.connect(server.endpoint))
        topics = client.admin.topics
        await topics.create("bystander")
        bystander = await asyncio.create_subprocess_exec(
            sys.executable, __file__, server.endpoint, stdin=asyncio.subprocess.PIPE
        )
        assert bystander.stdin is not None

        async def phase(name: str, work: Awaitable[None]) -> None:
            started = time.perf_counter()
            await work
            line = f"{name} ({time.perf_counter() - started:.2f} s)\n"
            # What is under way belongs to the phase.
            await asyncio.sleep(0.3)
            assert bystander.stdin is not None
            bystander.stdin.write(line.encode())
            await bystander.stdin.drain()

        async def create(prefix: str, count: int) -> None:
            for number in range(count):
                await topics.create(f"{prefix}-{number}", partitions=PARTITIONS)

        async def list_all() -> None:
            for _ in range(LISTS):
                assert len(await topics.list()) == TOPICS + 1

        async def watch() -> None:
            for _ in range(WATCHERS):
                await stack.enter_async_context(fluvio_cffi.connect(server.endpoint))

        async def delete() -> None:
            for number in range(TOPICS):
                await topics.delete(f"one-{number}")

        await phase("nothing else", asyncio.sleep(3))
        await phase(f"{TOPICS} topics of {PARTITIONS} partitions are created", create("one", TOPICS))
        await phase(f"they are listed {LISTS} times", list_all())
        await phase(f"{WATCHERS} clients connect and watch", watch())
        await phase(f"{MORE_TOPICS} more are created under their eyes", create("two", MORE_TOPICS))
        await phase(f"{TOPICS} topics are deleted", delete())
        bystander.stdin.close()
        await bystander.wait()


if __name__ == "__main__":
    asyncio.run(bystand(sys.argv[1]) if len(sys.argv) > 1 else main())
