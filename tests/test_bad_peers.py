"""Peers that are not there, do not answer or are no Fluvio server: a typed error in the configured time."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Callable

import pytest

import fluvio_cffi
from fluvio_cffi import (
    FluvioConnectionError,
    FluvioError,
    FluvioTimeoutError,
    InvalidArgumentError,
    ProtocolError,
    UnsupportedVersionError,
)
from fluvio_cffi.devserver import DevServer


@contextmanager
def peer(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that talks like this to everybody."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()
    connections: list[socket.socket] = []

    def handle(connection: socket.socket) -> None:
        try:
            talk(connection)
            while connection.recv(65536):
                pass
        except OSError:
            return

    def serve() -> None:
        while not ended.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connections.append(connection)
            threading.Thread(target=handle, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            connection.close()
        thread.join(10)


def silent(connection: socket.socket) -> None:
    """Accepts and says nothing."""


def http(connection: socket.socket) -> None:
    connection.recv(10)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def hangs_up(connection: socket.socket) -> None:
    connection.recv(10)
    connection.shutdown(socket.SHUT_RDWR)


def nonsense(connection: socket.socket) -> None:
    request = connection.recv(65536)
    correlation = request[8:12]
    body = correlation + b"\xff" * 60
    connection.sendall(struct.pack(">i", len(body)) + body)


def negative_length(connection: socket.socket) -> None:
    connection.recv(10)
    connection.sendall(struct.pack(">i", -5) + b"x" * 100)


def endless(connection: socket.socket) -> None:
    """A frame that claims 2 GiB and never ends."""
    connection.recv(10)
    connection.sendall(struct.pack(">i", 2**31 - 1))
    while True:
        connection.sendall(b"\0" * 65536)


def slow(connection: socket.socket) -> None:
    """A byte at a time, for ever."""
    connection.recv(10)
    connection.sendall(struct.pack(">i", 1000))
    while True:
        connection.sendall(b"\0")
        time.sleep(0.05)


PEERS: list[tuple[Callable[[socket.socket], None], Any]] = [
    (silent, FluvioTimeoutError),
    (slow, FluvioTimeoutError),
    (http, (ProtocolError, FluvioTimeoutError, FluvioConnectionError)),
    (nonsense, (ProtocolError, FluvioTimeoutError, FluvioConnectionError)),
    (hangs_up, (FluvioConnectionError, ProtocolError)),
    (negative_length, ProtocolError),
    (endless, ProtocolError),
]


@pytest.mark.parametrize(("talk", "error"), PEERS, ids=[talk.__name__ for talk, _ in PEERS])
async def test_peers(anyio_backend: Any, talk: Callable[[socket.socket], None], error: Any) -> None:
    with peer(talk) as endpoint:
        started = time.monotonic()
        with pytest.raises(error) as caught:
            await fluvio_cffi.connect(endpoint, connect_timeout=0.5, request_timeout=0.5)
        assert time.monotonic() - started < 5
        assert isinstance(caught.value, FluvioError)
        assert endpoint in str(caught.value)


@pytest.mark.parametrize(("talk", "error"), PEERS[:1], ids=["silent"])
def test_peers_of_the_twin(talk: Callable[[socket.socket], None], error: Any) -> None:
    with peer(talk) as endpoint:
        with pytest.raises(error):
            fluvio_cffi.sync.connect(endpoint, connect_timeout=0.3)
        started = time.monotonic()
        with pytest.raises(FluvioTimeoutError, match=r"timed out after 0\.2 s"):
            fluvio_cffi.sync.connect(endpoint, timeout=0.2)
        assert time.monotonic() - started < 3


async def test_nobody_there(anyio_backend: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(FluvioConnectionError, match=str(port)) as caught:
        await fluvio_cffi.connect(f"127.0.0.1:{port}", connect_timeout=2)
    assert isinstance(caught.value, ConnectionError)


@pytest.mark.parametrize(
    "endpoint",
    ["nonsense", "host:", ":9003", "host:port", "host:70000", "host:-1", "127.0.0.1:1:2", " ", "a b:1"],
)
async def test_garbage_endpoints(anyio_backend: Any, endpoint: str) -> None:
    with pytest.raises((InvalidArgumentError, FluvioConnectionError)) as caught:
        await fluvio_cffi.connect(endpoint, connect_timeout=2)
    assert endpoint.strip() in str(caught.value)


async def test_unknown_host(anyio_backend: Any) -> None:
    with pytest.raises((FluvioConnectionError, FluvioTimeoutError), match=r"does-not-exist\.invalid"):
        await fluvio_cffi.connect("does-not-exist.invalid:9003", connect_timeout=5)


async def test_an_old_platform(anyio_backend: Any) -> None:
    async with DevServer(platform_version="0.8.9") as server:
        with pytest.raises(UnsupportedVersionError, match=r"0\.8\.9"):
            await fluvio_cffi.connect(server.endpoint)


async def test_a_server_that_goes_away(anyio_backend: Any, name: str) -> None:
    async with DevServer() as server:
        async with fluvio_cffi.connect(server.endpoint, request_timeout=1, close_timeout=1) as client:
            await client.admin.topics.create(name)
            async with client.producer(name, delivery_timeout=1) as producer:
                await producer.send(b"")
                server.kill()
                with pytest.raises(FluvioError) as caught:
                    await producer.send(b"")
                assert caught.value.kind in (fluvio_cffi.ErrorKind.TIMEOUT, fluvio_cffi.ErrorKind.CONNECTION)
                with pytest.raises(FluvioError):
                    await client.admin.topics.list()
