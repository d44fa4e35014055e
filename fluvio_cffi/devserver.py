"""Starts the development server, `fluvio-devserver`, for first steps and tests.

    async with DevServer() as server:                      # or: with DevServer() as server:
        async with fluvio_cffi.connect(server.endpoint) as client:
            ...

It is a process of its own that keeps everything in memory unless told otherwise, listens on the loopback
interface and ends with the program that started it, whatever happens to that, or with the object.

What disturbs it (faults, moved leaders, evictions) is ordered through a socket of this machine. Such a call
blocks until the server has done it: a fraction of a millisecond, longer only where connections have to end or
files to be removed, and 10 seconds at most. It raises `InvalidArgumentError` if the server refuses,
`FluvioConnectionError` if the server does not answer, and `FluvioError` if it was not started.

`python -m fluvio_cffi.devserver` is the program `fluvio-devserver` itself: same options, signals and exit
status (`--help` lists them).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Callable, Literal, NoReturn, Optional, Union

import anyio
import anyio.to_thread

from ._arguments import Duration, boolean, choice, duration, integer, path, sequence, text
from ._bound import Bound
from ._control import Counters, Fault, PlaneCounters, order, read_counters
from ._server_process import ServerProcess, find_executable
from .errors import FluvioError

if TYPE_CHECKING:
    from types import TracebackType

    StrPath = Union[str, os.PathLike[str]]

__all__ = ["Counters", "DevServer", "Fault", "FaultKind", "PlaneCounters", "RequestName"]

FaultKind = Literal[
    "advertised-address",
    "black-hole",
    "close",
    "corrupt-crc",
    "cut-batches",
    "delay",
    "empty-cluster",
    "hold-high-watermark",
    "never-answer",
    "oversized-frame",
    "platform-version",
    "produce-error",
    "smart-module-overflow",
    "split-writes",
    "stall",
    "unadvertised",
]
"""What can go wrong on purpose."""

RequestName = Literal[
    "api-versions",
    "create",
    "delete",
    "delete-consumer-offset",
    "fetch-consumer-offsets",
    "fetch-offsets",
    "list",
    "produce",
    "stream-fetch",
    "update",
    "update-consumer-offset",
    "update-offsets",
    "watch",
]
"""The kinds of requests."""


def _fsync(what: str, value: object) -> str:
    return choice(what, value, ("never", "interval", "always"))


def _integers(**values: object) -> None:
    """Numbers for the server, which knows what is right."""
    for name, value in values.items():
        integer(name, value, 0)


class DevServer(Bound):
    """A development server on a free port; synchronous and asynchronous context manager.

    Args:
        listen: Address to listen on; port 0 takes a free one.
        spus: How many streaming processing units it has.
        data_dir: Where it keeps topics, records and offsets; in memory if not given.
        fsync: When what was written to `data_dir` is made to survive a loss of power; its default is
            "interval", once a second.
        cut_batches: Cut answers in the middle of a batch as the real server does, instead of at its end.
        platform_version: The version that it claims to be.
        tls_cert: The server's certificate, in PEM: clients have to use TLS. `fluvio-devserver certs DIR`
            makes some for tests.
        tls_key: The key of that certificate.
        client_ca: Accept only clients with a certificate of the authorities in this file.
        log: What it writes to stderr: a level, or a filter such as "fluvio_devserver=debug".
        arguments: Further options of `fluvio-devserver`; of an option given twice the last one counts.
        start_timeout: Time until it must be ready.
        stop_timeout: Time until it is killed when it does not end by itself.
        executable: The program; found through FLUVIO_DEVSERVER, beside the package or on PATH if not given.

    Raises:
        InvalidArgumentError, InvalidTypeError: A value that cannot be right; raised by the call itself. What
            only the program knows to be wrong, it says on stderr when it is started.
    """

    def __init__(
        self,
        *,
        listen: str = "127.0.0.1:0",
        spus: int = 1,
        data_dir: Optional[StrPath] = None,
        fsync: Optional[Literal["never", "interval", "always"]] = None,
        cut_batches: bool = False,
        platform_version: Optional[str] = None,
        tls_cert: Optional[StrPath] = None,
        tls_key: Optional[StrPath] = None,
        client_ca: Optional[StrPath] = None,
        log: Optional[str] = None,
        arguments: Sequence[str] = (),
        start_timeout: Duration = 20.0,
        stop_timeout: Duration = 10.0,
        executable: Optional[StrPath] = None,
    ) -> None:
        self._arguments = ["--listen", text("listen", listen), "--spus", str(integer("spus", spus, 1))]
        if boolean("cut_batches", cut_batches):
            self._arguments.append("--cut-batches")
        checks: dict[str, tuple[Callable[[str, Any], str], Any]] = {
            "data_dir": (path, data_dir),
            "fsync": (_fsync, fsync),
            "platform_version": (text, platform_version),
            "tls_cert": (path, tls_cert),
            "tls_key": (path, tls_key),
            "client_ca": (path, client_ca),
            "log": (text, log),
        }
        for name, (check, value) in checks.items():
            if value is not None:
                self._arguments += [f"--{name.replace('_', '-')}", check(name, value)]
        given = sequence("arguments", "a sequence of str", arguments)
        self._arguments += [text(f"arguments[{index}]", value) for index, value in enumerate(given)]
        self._executable = None if executable is None else path("executable", executable)
        self._start_timeout = duration("start_timeout", start_timeout) / 1000
        self._stop_timeout = duration("stop_timeout", stop_timeout) / 1000
        self._running: Optional[ServerProcess] = None

    def __repr__(self) -> str:
        return f"<DevServer {'not running' if self._running is None else self._running.endpoint}>"

    @property
    def endpoint(self) -> str:
        """Its "host:port".

        Raises:
            FluvioError: It is not running.
        """
        return self._server().endpoint

    @property
    def pid(self) -> int:
        """Its process id.

        Raises:
            FluvioError: It is not running.
        """
        return self._server().pid

    def _server(self) -> ServerProcess:
        if self._running is None:
            raise FluvioError("the development server is not running")
        return self._running

    def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            FluvioError: It is running already, or cannot be started.
            FluvioTimeoutError: It was not ready within `start_timeout`.
        """
        if self._running is not None:
            raise FluvioError(f"the development server is already running at {self._running.endpoint}")
        executable = self._executable or find_executable()
        self._running = ServerProcess(executable, self._arguments, self._start_timeout)

    def fault(
        self,
        kind: FaultKind,
        *,
        plane: Union[Literal["controller", "spu"], int, None] = None,
        request: Optional[RequestName] = None,
        topic: Optional[str] = None,
        partition: Optional[int] = None,
        count: Optional[int] = None,
        when: Optional[Literal["before", "after"]] = None,
        seconds: Optional[Duration] = None,
        received_bytes: Optional[int] = None,
        sent_bytes: Optional[int] = None,
        length: Optional[int] = None,
        code: Union[str, int, None] = None,
        version: Optional[str] = None,
        address: Optional[str] = None,
    ) -> Fault:
        """Have something go wrong, from now on until it is cleared or has happened `count` times.

            with server.fault("delay", request="produce", seconds=0.5):
                ...

        docs/devserver.md says what the kinds do and which options each of them takes. Does not wait, and can
        be used within an event loop: it takes a fraction of a millisecond.

        Args:
            kind: What happens.
            plane: To the controller only, to the SPUs only, or to the SPU with this id.
            request: To requests of this kind only.
            topic: To this topic only.
            partition: To this partition only.
            count: How often.
            when: Before the request is handled, or after that to its answer.
            seconds: Length of a delay; until it is cleared if not given.
            received_bytes: At this byte of what clients send.
            sent_bytes: At this byte of what is answered.
            length: Announced length of a frame.
            code: Name or number of an error of the protocol.
            version: Announced version of the platform.
            address: Announced "host:port" of the SPUs.

        Raises:
            InvalidArgumentError: The kind does not take an option, or a value is impossible.
        """
        options = {
            "plane": plane,
            "request": request,
            "topic": topic,
            "partition": partition,
            "count": count,
            "when": when,
            "seconds": None if seconds is None else duration("seconds", seconds, 0) / 1000,
            "received_bytes": received_bytes,
            "sent_bytes": sent_bytes,
            "length": length,
            "code": code,
            "version": version,
            "address": address,
        }
        given = {name: value for name, value in options.items() if value is not None}
        for name, value in given.items():
            if name in ("partition", "count", "received_bytes", "sent_bytes", "length"):
                _integers(**{name: value})
            elif name in ("plane", "code") and isinstance(value, int):
                # The numbers of some errors are negative.
                integer(name, value, -(2**31))
            elif name != "seconds":
                text(name, value)
        control = self._control_path()
        answer = order(control, {"inject": {"kind": text("kind", kind), **given}})
        return Fault(control, answer["id"], kind)

    def clear_faults(self) -> None:
        """Clear all faults.

        Raises:
            FluvioConnectionError: The server does not answer.
            FluvioError: It is not running.
        """
        self._order({"clear": "all"})

    def move_leader(self, topic: str, partition: int, spu: int) -> None:
        """Make an SPU the leader of a partition.

        Raises:
            InvalidArgumentError: The server refuses, and says why.
            FluvioConnectionError: The server does not answer.
            FluvioError: It is not running.
        """
        _integers(partition=partition, spu=spu)
        self._order({"move_leader": {"topic": text("topic", topic), "partition": partition, "spu": spu}})

    def evict(self, topic: str) -> None:
        """Remove all records that a topic has now, as its retention would one day.

        Raises:
            InvalidArgumentError: The server refuses, and says why.
            FluvioConnectionError: The server does not answer.
            FluvioError: It is not running.
        """
        self._order({"evict": {"topic": text("topic", topic)}})

    def stop_spu(self, spu: int) -> None:
        """Take an SPU away: its connections close, other replicas take over what it has led.

        Raises:
            InvalidArgumentError: The server refuses, and says why.
            FluvioConnectionError: The server does not answer.
            FluvioError: It is not running.
        """
        _integers(spu=spu)
        self._order({"stop_spu": spu})

    def start_spu(self, spu: int) -> None:
        """Bring an SPU back on the same address.

        Raises:
            InvalidArgumentError: The server refuses, and says why.
            FluvioConnectionError: The server does not answer.
            FluvioError: It is not running.
        """
        _integers(spu=spu)
        self._order({"start_spu": spu})

    def counters(self) -> Counters:
        """What it has counted since its start: requests, connections, streams and bytes, by server.

        The lists that clients have asked for: `server.counters().controller.requests.get("list", 0)`.
        """
        return read_counters(order(self._control_path(), {"counters": True})["counters"])

    def _order(self, request: dict[str, Any]) -> None:
        order(self._control_path(), request)

    def _control_path(self) -> str:
        return self._server().control

    def close_connections(self) -> None:
        """Close all connections of clients, as a network failure would; new ones are accepted.

        Raises:
            FluvioError: It is not running.
        """
        os.kill(self.pid, signal.SIGUSR1)

    def stop(self) -> None:
        """Stop it and wait for its end. Doing it again does nothing.

        Raises:
            FluvioError: It did not end by itself, or not with status 0.
        """
        # Behind its end: what interrupts this leaves something that can be stopped again.
        if self._running is not None:
            try:
                self._running.stop(self._stop_timeout)
            except FluvioError:
                self._running = None
                raise
            self._running = None

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._running is not None:
            self._running.kill()
            self._running = None

    def __enter__(self) -> DevServer:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.stop()

    async def __aenter__(self) -> DevServer:
        # The thread goes on when this is cancelled: whoever comes last ends the process.
        lock = threading.Lock()
        started = abandoned = False

        def start() -> None:
            nonlocal started
            if abandoned:
                return
            self.start()
            with lock:
                started = True
                if abandoned:
                    self.kill()

        try:
            await anyio.to_thread.run_sync(start)
        except BaseException:
            with lock:
                abandoned = True
                if started:
                    self.kill()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self.stop)


def main() -> NoReturn:
    """The command `fluvio-devserver` of an installed package: becomes the program."""
    try:
        executable = find_executable()
        os.execv(executable, [executable, *sys.argv[1:]])
    except (FluvioError, OSError) as error:
        sys.exit(f"fluvio-devserver: {error}")


if __name__ == "__main__":
    main()
