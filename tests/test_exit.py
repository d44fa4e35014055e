"""What a program has submitted and never waited for is still sent when it ends, or it says what was lost."""

from __future__ import annotations

import fluvio_cffi.sync
from fluvio_cffi import Offset
from fluvio_cffi.devserver import DevServer
from tests.support import run_program

SUBMIT = """
import asyncio, sys
import fluvio_cffi

async def main():
    client = await fluvio_cffi.connect(sys.argv[1])
    producer = await client.producer(sys.argv[2], linger=30)
    for number in range(10):
        await producer.submit(b"%d" % number)
    if sys.argv[3] == "gone":
        import os, signal
        os.kill(int(sys.argv[4]), signal.SIGKILL)
    return client, producer

import warnings
warnings.simplefilter("always", ResourceWarning)
kept = asyncio.run(main())
"""


def test_what_lingers_is_sent_at_exit() -> None:
    with DevServer(cut_batches=True) as server, fluvio_cffi.sync.connect(server.endpoint) as client:
        client.admin.topics.create("exit")
        code, _, errors = run_program(SUBMIT, server.endpoint, "exit", "there")
        assert code == 0, errors
        assert "not acknowledged" not in errors
        with client.consumer("exit", start=Offset.beginning()) as records:
            received = [record.value for _, record in zip(range(10), records)]
    assert received == [b"%d" % number for number in range(10)]


def test_what_cannot_be_sent_at_exit_is_named() -> None:
    with DevServer(cut_batches=True) as server:
        with fluvio_cffi.sync.connect(server.endpoint) as client:
            client.admin.topics.create("exit")
        code, _, errors = run_program(SUBMIT, server.endpoint, "exit", "gone", str(server.pid))
        server.kill()
        assert code == 0, errors
        assert "10 records were not acknowledged when the program ended" in errors
