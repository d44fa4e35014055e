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
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
import weakref
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Callable, Literal, NoReturn, Optional, Union

import anyio
import anyio.to_thread

from . import _platform
from ._arguments import Duration, boolean, choice, duration, integer, path, sequence, text
from ._bound import Bound
from ._control import Counters, Fault, PlaneCounters, order, read_counters
from .errors import FluvioError, FluvioTimeoutError, InvalidArgumentError

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

READY = "fluvio-devserver ready endpoint="
# A Unix socket's path has at most 107 bytes.
MAX_SOCKET_PATH = 107
# poll() knows no longer time.
MAX_POLL_MS = 2**31 - 1


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
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._endpoint: Optional[str] = None
        self._folder: Optional[str] = None
        self._finalizer: Optional[weakref.finalize[..., DevServer]] = None

    def __repr__(self) -> str:
        return f"<DevServer {self._endpoint or 'not running'}>"

    @property
    def endpoint(self) -> str:
        """Its "host:port".

        Raises:
            FluvioError: It is not running.
        """
        if self._endpoint is None:
            raise FluvioError("the development server is not running")
        return self._endpoint

    @property
    def pid(self) -> int:
        """Its process id.

        Raises:
            FluvioError: It is not running.
        """
        if self._process is None:
            raise FluvioError("the development server is not running")
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            FluvioError: It is running already, or cannot be started.
            FluvioTimeoutError: It was not ready within `start_timeout`.
        """
        if self._process is not None:
            raise FluvioError(f"the development server is already running at {self._endpoint}")
        command = [self._executable or find_executable(), "--exit-with-parent", *self._arguments]
        # Readable by this user alone, as is the control socket in it.
        self._folder = tempfile.mkdtemp(prefix="fluvio-devserver-")
        if len(os.fsencode(self._control_path())) > MAX_SOCKET_PATH:
            self._remove_folder()
            self._folder = tempfile.mkdtemp(prefix="fluvio-devserver-", dir="/tmp")
        command += ["--control", self._control_path()]
        try:
            # A session of its own: the terminal's Ctrl-C is for the program, which still needs its server to
            # close its producers.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
            )
        except OSError as error:
            self._remove_folder()
            raise FluvioError(f"{command[0]} cannot be started: {error}") from error
        except BaseException:
            self._remove_folder()
            raise
        # Not at exit: the server ends with this process, after producers had the time to send what they have.
        self._finalizer = weakref.finalize(self, _dropped, self._process, self._folder, os.getpid())
        self._finalizer.atexit = False
        try:
            self._endpoint = self._read_ready_line()
        except BaseException:
            self.kill()
            raise

    def _read_ready_line(self) -> str:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        # select() knows no descriptor above 1023.
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        deadline = monotonic() + self._start_timeout
        received = b""
        late = FluvioTimeoutError(f"the development server was not ready within {self._start_timeout:g} s")
        while not received.endswith(b"\n"):
            left = deadline - monotonic()
            if left <= 0:
                raise late
            if not poll.poll(min(left * 1000, MAX_POLL_MS)):
                continue
            piece = os.read(descriptor, 4096)
            if not piece:
                try:
                    status = process.wait(max(0.0, deadline - monotonic()))
                except subprocess.TimeoutExpired:
                    raise late from None
                raise FluvioError(
                    f"the development server ended with status {status} before it was ready; "
                    "it says why on stderr"
                )
            received += piece
        line = received.decode("utf-8", "replace").strip()
        if not line.startswith(READY):
            raise FluvioError(f"the development server said {line!r} instead of {READY!r}")
        return line[len(READY) :]

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
        if self._folder is None:
            raise FluvioError("the development server is not running")
        return os.path.join(self._folder, "control")

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
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            status = process.wait(self._stop_timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise FluvioTimeoutError(
                f"the development server did not end within {self._stop_timeout:g} s and was killed"
            ) from None
        self._forget(process)
        if status != 0:
            raise FluvioError(f"the development server ended with status {status}")

    def kill(self) -> None:
        """End it at once, as a crash would."""
        process = self._process
        if process is None:
            return
        process.kill()
        process.wait()
        self._forget(process)

    def _forget(self, process: subprocess.Popen[bytes]) -> None:
        if process.stdout is not None:
            process.stdout.close()
        if self._finalizer is not None:
            self._finalizer.detach()
        self._process = None
        self._endpoint = None
        self._remove_folder()

    def _remove_folder(self) -> None:
        if self._folder is not None:
            _remove(self._folder)
            self._folder = None

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


def _remove(folder: str) -> None:
    # Somebody may have cleared the folder for temporary files.
    shutil.rmtree(folder, ignore_errors=True)


def _dropped(process: subprocess.Popen[bytes], folder: str, owner: int) -> None:
    """The object is gone and its server was not stopped."""
    if os.getpid() != owner:
        return  # After a fork: it is the parent's.
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
    _remove(folder)
    warnings.warn(
        f"a DevServer was dropped while its server ran (process {process.pid}), which was killed: leave its "
        "block or stop() it",
        ResourceWarning,
        stacklevel=2,
    )


def find_executable() -> str:
    """The `fluvio-devserver` program: named by FLUVIO_DEVSERVER, beside the package, or on PATH."""
    named = os.environ.get("FLUVIO_DEVSERVER")
    if named:
        if not os.access(named, os.X_OK):
            raise InvalidArgumentError(f"FLUVIO_DEVSERVER names {named!r}, which cannot be executed")
        return named
    package = Path(__file__).resolve().parent
    places: list[Path] = [package / "bin" / _platform.SERVER_NAME, package / _platform.SERVER_NAME]
    for place in places:
        if os.access(place, os.X_OK):
            return str(place)
    found = shutil.which(_platform.SERVER_NAME)
    # The command of the same name that comes with this package, a script, only calls this function again.
    if found is None or Path(found).read_bytes()[:2] == b"#!":
        raise FluvioError(
            f"{_platform.SERVER_NAME} was not found: install a wheel, run `make build` in the source tree, "
            "or name it with FLUVIO_DEVSERVER"
        )
    return found


def main() -> NoReturn:
    """The command `fluvio-devserver` of an installed package: becomes the program."""
    try:
        executable = find_executable()
        os.execv(executable, [executable, *sys.argv[1:]])
    except (FluvioError, OSError) as error:
        sys.exit(f"fluvio-devserver: {error}")


if __name__ == "__main__":
    main()
