"""The process of a `DevServer`: from its start until its end, which is also that of its folder."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import tempfile
import warnings
import weakref
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

from . import _platform
from .errors import FluvioError, FluvioTimeoutError, InvalidArgumentError

READY = "fluvio-devserver ready endpoint="
# A Unix socket's path has at most 107 bytes.
MAX_SOCKET_PATH = 107
# poll() knows no longer time.
MAX_POLL_MS = 2**31 - 1


class ServerProcess:
    """A server that runs. Dropped without an end it is killed, with a warning.

    Attributes:
        endpoint: Its "host:port".
        control: The path of its control socket.
        pid: Its process id.
    """

    def __init__(self, executable: str, arguments: Sequence[str], start_timeout: float) -> None:
        """Start it and wait until it is ready.

        Raises:
            FluvioError: It cannot be started.
            FluvioTimeoutError: It was not ready within `start_timeout` seconds.
        """
        # Readable by this user alone, as is the control socket in it.
        self._folder = tempfile.mkdtemp(prefix="fluvio-devserver-")
        if len(os.fsencode(self.control)) > MAX_SOCKET_PATH:
            _remove(self._folder)
            self._folder = tempfile.mkdtemp(prefix="fluvio-devserver-", dir="/tmp")
        command = [executable, "--exit-with-parent", *arguments, "--control", self.control]
        try:
            # A session of its own: the terminal's Ctrl-C is for the program, which still needs its server to
            # close its producers.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
            )
        except OSError as error:
            _remove(self._folder)
            raise FluvioError(f"{executable} cannot be started: {error}") from error
        except BaseException:
            _remove(self._folder)
            raise
        # Not at exit: the server ends with this process, after producers had the time to send what they have.
        self._finalizer = weakref.finalize(self, _dropped, self._process, self._folder, os.getpid())
        self._finalizer.atexit = False
        self.pid = self._process.pid
        try:
            self.endpoint = self._read_ready_line(start_timeout)
        except BaseException:
            self.kill()
            raise

    @property
    def control(self) -> str:
        """The path of its control socket."""
        return os.path.join(self._folder, "control")

    def _read_ready_line(self, start_timeout: float) -> str:
        process = self._process
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        # select() knows no descriptor above 1023.
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        deadline = monotonic() + start_timeout
        received = b""
        late = FluvioTimeoutError(f"the development server was not ready within {start_timeout:g} s")
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

    def stop(self, stop_timeout: float) -> None:
        """Stop it and wait for its end; it is over when this returns or raises.

        Raises:
            FluvioTimeoutError: It did not end within `stop_timeout` seconds and was killed.
            FluvioError: It ended with another status than 0.
        """
        self._process.terminate()
        try:
            status = self._process.wait(stop_timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise FluvioTimeoutError(
                f"the development server did not end within {stop_timeout:g} s and was killed"
            ) from None
        self._forget()
        if status != 0:
            raise FluvioError(f"the development server ended with status {status}")

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._process.kill()
        self._process.wait()
        self._forget()

    def _forget(self) -> None:
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._finalizer.detach()
        _remove(self._folder)


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
