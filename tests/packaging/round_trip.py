"""Runs inside a clean environment: records through the development server of the installed wheel.

Called with the environment's folder, to prove that package, library and server are those of the wheel.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import trio

import fluvio_cffi
import fluvio_cffi.sync
from fluvio_cffi import Offset
from fluvio_cffi.devserver import DevServer

RECORDS = [(None, b"no key"), (b"", b"empty key"), (b"key", b""), (b"key", b"value \x00\xff")]


async def there_and_back(endpoint: str, topic: str) -> None:
    async with fluvio_cffi.connect(endpoint) as client:
        await client.admin.topics.create(topic)
        async with client.producer(topic) as producer:
            for offset, (key, value) in enumerate(RECORDS):
                ack = await producer.send(value, key=key)
                assert (ack.partition, ack.offset) == (0, offset), ack
        received = []
        async with client.consumer(topic, start=Offset.beginning()) as records:
            async for record in records:
                received.append((record.key, record.value))
                if len(received) == len(RECORDS):
                    break
        assert received == RECORDS, received


def there_and_back_synchronously(endpoint: str, topic: str) -> None:
    with fluvio_cffi.sync.connect(endpoint) as client:
        client.admin.topics.create(topic)
        with client.producer(topic) as producer:
            for key, value in RECORDS:
                producer.send(value, key=key)
        received = []
        with client.consumer(topic, start=Offset.beginning()) as records:
            for record in records:
                received.append((record.key, record.value))
                if len(received) == len(RECORDS):
                    break
        assert received == RECORDS, received


def main() -> None:
    environment = Path(sys.argv[1]).resolve()
    package = Path(fluvio_cffi.__file__ or "").resolve()
    assert environment in package.parents, package
    with DevServer() as server:
        asyncio.run(there_and_back(server.endpoint, "by-asyncio"))
        print("asyncio ok")
        trio.run(there_and_back, server.endpoint, "by-trio")
        print("trio ok")
        there_and_back_synchronously(server.endpoint, "by-sync")
        print("sync ok")
        maps = Path("/proc/self/maps").read_text()
    loaded = {line.split(None, 5)[-1] for line in maps.splitlines() if "libfluvio_cffi" in line}
    assert loaded == {str(package.with_name("libfluvio_cffi.so"))}, loaded


if __name__ == "__main__":
    main()
