"""The development server as a process, for as long as a section runs."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Optional

READY = "fluvio-devserver ready endpoint="


class Server:
    """Context manager: a server on a free port that cuts answers as the real one does."""

    def __init__(self, executable: Path, arguments: Sequence[str] = ()) -> None:
        self._command = [str(executable), "--listen", "127.0.0.1:0", "--cut-batches", "--exit-with-parent"]
        self._command += arguments
        self.endpoint = ""
        self.pid = 0

    def __enter__(self) -> Server:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line.startswith(READY):
            self._process.kill()
            raise RuntimeError(f"{self._command[0]} did not start: {line!r}")
        self.endpoint = line[len(READY) :]
        self.pid = self._process.pid
        return self

    def __exit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self._process.terminate()
        self._process.communicate(timeout=20)
