"""What a program has submitted and never waited for is still sent when it ends, or it says what was lost."""

from __future__ import annotations

from pathlib import Path

import pytest

import fluvio_cffi.sync
from fluvio_cffi import Offset
from fluvio_cffi.devserver import DevServer
from tests.support import run_file, run_program

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
        # Although nobody asked for warnings.
        assert "fluvio_cffi: 10 records were not acknowledged when the program ended" in errors


CHILD = """
import multiprocessing, sys
import fluvio_cffi.sync

def child(endpoint, topic, keep):
    client = fluvio_cffi.sync.connect(endpoint)
    producer = client.producer(topic, linger=1)
    for number in range(1000):
        producer.submit(b"%d" % number)
    if keep:
        globals().update(client=client, producer=producer)

if __name__ == "__main__":
    endpoint, topic, method, keep = sys.argv[1:]
    with fluvio_cffi.sync.connect(endpoint):
        context = multiprocessing.get_context(method)
        process = context.Process(target=child, args=(endpoint, topic, keep == "kept"))
        process.start()
        process.join()
    sys.exit(process.exitcode)
"""


@pytest.mark.parametrize("keep", ["kept", "dropped"])
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_children_of_multiprocessing_send_what_they_have(tmp_path: Path, method: str, keep: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(CHILD)
    with DevServer(cut_batches=True) as server, fluvio_cffi.sync.connect(server.endpoint) as client:
        client.admin.topics.create("exit")
        code, _, errors = run_file(program, server.endpoint, "exit", method, keep)
        assert code == 0, errors
        assert "not acknowledged" not in errors
        with client.consumer("exit", start=Offset.beginning()) as records:
            received = [records.receive(timeout=10).value for _ in range(1000)]
    assert received == [b"%d" % number for number in range(1000)]


def test_what_a_child_of_multiprocessing_cannot_send_is_named(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    kill = "    import os, signal\n    os.kill(int(keep), signal.SIGKILL)\n"
    program.write_text(CHILD.replace("    if keep:", kill + "    if keep:").replace('keep == "kept"', "keep"))
    with DevServer(cut_batches=True) as server:
        with fluvio_cffi.sync.connect(server.endpoint) as client:
            client.admin.topics.create("exit")
        # The server goes in between: what is left when the child ends is told by the child.
        code, _, errors = run_file(program, server.endpoint, "exit", "fork", str(server.pid))
        server.kill()
        assert code == 0, errors
        assert "records were not acknowledged when the program ended" in errors


CALLBACKS = """
import atexit, sys
# Run last, as it was registered first.
called = []
atexit.register(lambda: print(len(called)))
import fluvio_cffi.sync

client = fluvio_cffi.sync.connect(sys.argv[1])
producer = client.producer(sys.argv[2], linger="20ms")
for _ in range(100):
    producer.submit(b"").add_done_callback(called.append)
if sys.argv[3] == "closed":
    client.close()
"""


@pytest.mark.parametrize("how", ["closed", "left"])
def test_callbacks_of_the_twin_are_called_before_the_end(endpoint: str, name: str, how: str) -> None:
    with fluvio_cffi.sync.connect(endpoint) as client:
        client.admin.topics.create(name)
        for _ in range(5):
            code, output, errors = run_program(CALLBACKS, endpoint, name, how)
            assert (code, output.strip()) == (0, "100"), errors
        client.admin.topics.delete(name)
