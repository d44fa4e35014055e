"""The helper that starts the development server."""

from __future__ import annotations

import asyncio
import math
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable

import anyio
import pytest

import fluvio_cffi
from fluvio_cffi import (
    FluvioError,
    FluvioTimeoutError,
    InvalidArgumentError,
    InvalidTypeError,
    Offset,
    _platform,
    sync,
)
from fluvio_cffi._server_process import find_executable
from fluvio_cffi.devserver import DevServer
from tests.support import TIMEOUT, collect, environment, eventually_sync, run_program, start_program


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_async(anyio_backend: Any, name: str) -> None:
    async with DevServer() as server:
        pid = server.pid
        assert server.endpoint in repr(server)
        async with fluvio_cffi.connect(server.endpoint) as client:
            await client.admin.topics.create(name)
    assert not alive(pid)
    with pytest.raises(FluvioError, match="not running"):
        assert server.endpoint


def test_sync(name: str) -> None:
    with DevServer(platform_version="0.18.1") as server:
        with fluvio_cffi.sync.connect(server.endpoint) as client:
            assert client.platform_version == "0.18.1"
            client.admin.topics.create(name)
        with pytest.raises(FluvioError, match="already running"):
            server.start()
    server.stop()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"listen": 5}, InvalidTypeError, "listen must be a str, not int"),
        ({"listen": ""}, InvalidArgumentError, "listen must not be empty"),
        ({"spus": "2"}, InvalidTypeError, "spus must be an int, not str"),
        ({"spus": True}, InvalidTypeError, "spus must be an int, not bool"),
        ({"spus": 0}, InvalidArgumentError, "spus must be at least 1: 0"),
        ({"data_dir": 5}, InvalidTypeError, "data_dir must be a str or a path, not int"),
        ({"data_dir": b"d"}, InvalidTypeError, "data_dir must be a str or a path, not bytes"),
        ({"tls_cert": True}, InvalidTypeError, "tls_cert must be a str or a path, not bool"),
        ({"tls_key": "a\0b"}, InvalidArgumentError, "tls_key must not contain a NUL"),
        ({"client_ca": ["ca"]}, InvalidTypeError, "client_ca must be a str or a path, not list"),
        ({"fsync": True}, InvalidTypeError, "fsync must be a str, not bool"),
        ({"fsync": "often"}, InvalidArgumentError, "fsync must be one of never, interval, always: 'often'"),
        ({"cut_batches": 1}, InvalidTypeError, "cut_batches must be True or False, not 1"),
        ({"platform_version": 0.18}, InvalidTypeError, "platform_version must be a str, not float"),
        ({"log": 5}, InvalidTypeError, "log must be a str, not int"),
        ({"arguments": "--spus 3"}, InvalidTypeError, "arguments must be a sequence of str, not '--spus 3'"),
        ({"arguments": 5}, InvalidTypeError, "arguments must be a sequence of str, not 5"),
        ({"arguments": ["--spus", 3]}, InvalidTypeError, r"arguments\[1\] must be a str, not int"),
        ({"start_timeout": None}, InvalidTypeError, "start_timeout must be a number of seconds"),
        ({"stop_timeout": -1}, InvalidArgumentError, "stop_timeout must be a positive time: -1"),
        ({"executable": 5}, InvalidTypeError, "executable must be a str or a path, not int"),
    ],
)
def test_wrong_arguments(options: Any, error: type[FluvioError], message: str) -> None:
    with pytest.raises(error, match=message):
        DevServer(**options)


def test_wrong_orders() -> None:
    with DevServer(start_timeout=math.inf, stop_timeout=math.inf) as server:
        orders: list[tuple[Callable[..., Any], Any, str]] = [
            (server.fault, {"kind": 5}, "kind must be a str"),
            (server.fault, {"kind": "delay", "topic": b"t"}, "topic must be a str"),
            (server.fault, {"kind": "delay", "plane": 1.5}, "plane must be a str"),
            (server.fault, {"kind": "delay", "count": "2"}, "count must be an int"),
            (server.fault, {"kind": "delay", "seconds": b"1"}, "seconds must be a number of seconds"),
            (server.move_leader, {"topic": "t", "partition": "0", "spu": 5001}, "partition must be an int"),
            (server.move_leader, {"topic": 5, "partition": 0, "spu": 5001}, "topic must be a str"),
            (server.evict, {"topic": None}, "topic must be a str"),
            (server.stop_spu, {"spu": "5001"}, "spu must be an int"),
            (server.start_spu, {"spu": 5001.0}, "spu must be an int"),
        ]
        for order, arguments, message in orders:
            with pytest.raises(InvalidTypeError, match=message):
                order(**arguments)


async def test_connections_are_restored(anyio_backend: Any, name: str) -> None:
    async with DevServer() as server, fluvio_cffi.connect(server.endpoint) as client:
        await client.admin.topics.create(name)
        async with client.producer(name) as producer, client.consumer(name) as consumer:
            for number in range(20):
                server.close_connections()
                await producer.send(b"%d" % number)
                with anyio.fail_after(30):
                    while (await consumer.receive()).value != b"%d" % number:
                        pass


def test_counters(name: str) -> None:
    with DevServer() as server:
        with sync.connect(server.endpoint) as client:
            before = server.counters().controller.requests.get("create", 0)
            client.admin.topics.create(name)
            assert server.counters().controller.requests["create"] == before + 1
            with client.producer(name) as producer, client.consumer(name) as consumer:
                producer.send(b"value")
                consumer.receive(timeout=TIMEOUT)
                spu = server.counters().spus[5001]
                assert spu.requests["produce"] == 1
                assert spu.streams_open == 1
                assert spu.connections_open >= 1
                assert spu.received_bytes > 0
                assert spu.sent_bytes > 0
        eventually_sync(lambda: server.counters().spus[5001].streams_open == 0)
        assert server.counters().spus[5001].streams_opened == 1


def test_cancelled_while_it_starts(anyio_backend: Any) -> None:
    async def main() -> None:
        for delay in (0.0, 0.001, 0.005, 0.02):
            with anyio.move_on_after(delay):
                async with DevServer():
                    await anyio.sleep_forever()

    backend, options = anyio_backend
    anyio.run(main, backend=backend, backend_options=options)


def test_a_native_cancellation_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # anyio shields the thread that starts the server from its own cancel scopes only.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    async def main() -> None:
        for delay in (0.0, 0.001, 0.003, 0.01, 0.02, 0.05):
            task = asyncio.ensure_future(DevServer().__aenter__())
            await asyncio.sleep(delay)
            task.cancel()
            try:
                server = await task
            except asyncio.CancelledError:
                pass
            else:
                server.stop()

    asyncio.run(main())
    eventually_sync(lambda: not list(tmp_path.iterdir()))


async def test_starting_it_twice_leaves_it_running(anyio_backend: Any) -> None:
    async with DevServer() as server:
        with pytest.raises(FluvioError, match="already running"):
            async with server:
                pass
        async with fluvio_cffi.connect(server.endpoint) as client:
            assert await client.admin.topics.list() == []


def test_many_open_files_and_a_long_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1200:
        pytest.skip(f"no more than {hard} open files are allowed here")
    folder = tmp_path / ("long" * 25)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1030)]
    try:
        with DevServer() as server:
            server.clear_faults()
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_fault_goes_with_its_server() -> None:
    with DevServer() as server, server.fault("black-hole"):
        server.kill()


def test_it_ends_with_its_parent() -> None:
    process = start_program(
        """
        import time
        from fluvio_cffi.devserver import DevServer
        server = DevServer()
        server.start()
        print(server.pid, flush=True)
        time.sleep(60)
        """
    )
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    assert alive(pid)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    eventually_sync(lambda: not alive(pid) or state(pid) == "Z")


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


def test_tls(tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    subprocess.run([find_executable(), "certs", str(folder)], check=True, stdout=subprocess.DEVNULL)
    cert, key, ca = folder / "server.crt", folder / "server.key", folder / "ca.crt"
    with DevServer(tls_cert=cert, tls_key=key, client_ca=ca) as server:
        context = ssl.create_default_context(cafile=str(ca))
        context.load_cert_chain(str(folder / "client.crt"), str(folder / "client.key"))
        host, _, port = server.endpoint.rpartition(":")
        for name in ("fluvio.local", "custom-spu-5001.fluvio.local", "127.0.0.1"):
            with socket.create_connection((host, int(port))) as plain:
                with context.wrap_socket(plain, server_hostname=name) as encrypted:
                    assert encrypted.version() == "TLSv1.3"
        with socket.create_connection((host, int(port))) as plain:
            with pytest.raises(ssl.SSLCertVerificationError):
                context.wrap_socket(plain, server_hostname="example.com")
    with pytest.raises(FluvioError, match="says why on stderr"):
        DevServer(tls_cert=cert, tls_key=folder / "client.key").start()


def test_options(name: str) -> None:
    # The last of two counts.
    arguments = ["--spus", "3", "--platform-version", "0.17.0"]
    with DevServer(spus=2, platform_version="0.18.1", arguments=arguments) as server:
        with fluvio_cffi.sync.connect(server.endpoint) as client:
            assert client.platform_version == "0.17.0"
            client.admin.topics.create(name, assignment=[[5003]])


def run_module(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "fluvio_cffi.devserver", *arguments],
        env={**environment(), **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_module_is_the_program() -> None:
    command = [sys.executable, "-W", "error", "-m", "fluvio_cffi.devserver", "--listen", "127.0.0.1:0"]
    for number in (signal.SIGTERM, signal.SIGINT):
        with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            endpoint = process.stdout.readline().rpartition("endpoint=")[2].strip()
            with fluvio_cffi.sync.connect(endpoint) as client:
                client.admin.topics.list()
            process.send_signal(number)
            assert process.wait(30) == 0
    # The same environment, because COLUMNS matters and readline sets it behind os.environ.
    program = subprocess.run([find_executable(), "--help"], env=environment(), capture_output=True, text=True)
    assert run_module("--help").stdout == program.stdout
    wrong = run_module("--no-such-option")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "--no-such-option" in wrong.stderr
    missing = run_module(FLUVIO_DEVSERVER="/nowhere")
    assert missing.returncode == 1
    assert missing.stderr == (
        "fluvio-devserver: FLUVIO_DEVSERVER names '/nowhere', which cannot be executed\n"
    )


def test_errors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(FluvioError, match="ended with status"):
        DevServer(platform_version="nonsense").start()
    with pytest.raises(FluvioError, match="cannot be started"):
        DevServer(executable="/nowhere").start()
    mute = tmp_path / "mute"
    mute.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    mute.chmod(0o755)
    with pytest.raises(FluvioTimeoutError, match=r"not ready within 0\.3 s"):
        DevServer(executable=str(mute), start_timeout=0.3).start()
    monkeypatch.setenv("FLUVIO_DEVSERVER", "/nowhere")
    with pytest.raises(FluvioError, match="/nowhere"):
        find_executable()
    # The command that comes with the package is a script, which would only call itself.
    monkeypatch.delenv("FLUVIO_DEVSERVER")
    monkeypatch.setattr(_platform, "SERVER_NAME", "mute")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FluvioError, match="was not found"):
        find_executable()


def test_a_data_directory_survives_a_crash(tmp_path: Path) -> None:
    server = DevServer(data_dir=tmp_path / "data", fsync="always")
    with server:
        with sync.connect(server.endpoint) as client:
            client.admin.topics.create("kept")
            with client.producer("kept") as producer:
                producer.send_many([b"%d" % number for number in range(1000)])
        server.kill()
    with server, sync.connect(server.endpoint) as client:
        with client.consumer("kept", start=Offset.beginning()) as consumer:
            values = [consumer.receive(timeout=TIMEOUT).value for _ in range(1000)]
    assert values == [b"%d" % number for number in range(1000)]


def test_one_that_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    server: Any = DevServer()
    server.start()
    pid = server.pid
    assert os.listdir(tmp_path)
    with pytest.warns(ResourceWarning, match=f"DevServer was dropped while its server ran .process {pid}."):
        del server
        collect()
    assert not alive(pid)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("end", ["pass", "1 / 0", "os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_program_that_ends_without_stopping_it(
    end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither process nor folder is left."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    _, out, _ = run_program(
        f"""
        import os, signal
        from fluvio_cffi.devserver import DevServer
        server = DevServer()
        server.start()
        print(server.pid, len(os.listdir({str(tmp_path)!r})), flush=True)
        {end}
        """
    )
    pid, folders = map(int, out.split())
    assert folders == 1
    eventually_sync(lambda: not alive(pid))
    assert not os.listdir(tmp_path)
