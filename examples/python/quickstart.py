"""The first steps: start a development server, create a topic, send three records and read them back.

    python examples/python/quickstart.py

The same coroutine runs under asyncio and under trio; against a real cluster only the endpoint changes.
"""

from __future__ import annotations

import asyncio
import sys

import trio

import fluvio_cffi
from fluvio_cffi import Offset
from fluvio_cffi.devserver import DevServer


async def greet(endpoint: str, topic: str) -> list[bytes]:
    """Writes three greetings and returns what the topic holds afterwards."""
    async with fluvio_cffi.connect(endpoint) as client:
        await client.admin.topics.create(topic)
        async with client.producer(topic) as producer:
            for name in (b"Ada", b"Grace", b"Karen"):
                ack = await producer.send(b"hello, " + name, key=name)
                print(f"{name.decode()} is at offset {ack.offset} of partition {ack.partition}")
        received: list[bytes] = []
        async with client.consumer(topic, start=Offset.beginning()) as records:
            async for record in records:
                received.append(record.value)
                if len(received) == 3:
                    break
        return received


def main() -> int:
    """Runs it on both event loops."""
    expected = [b"hello, Ada", b"hello, Grace", b"hello, Karen"]
    with DevServer() as server:
        from_asyncio = asyncio.run(greet(server.endpoint, "greetings-asyncio"))
        from_trio = trio.run(greet, server.endpoint, "greetings-trio")
    return 0 if from_asyncio == from_trio == expected else 1


if __name__ == "__main__":
    sys.exit(main())
