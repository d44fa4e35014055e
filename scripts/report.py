"""Runs commands, keeps their outcomes and prints the closing list of scripts/check.py.

Invariants: a command's output is shown as it comes, line by line; several may run at the same time, each with
a prefix of its own then; a command that takes too long is ended together with
everything that it started, and counts as failed; what tests skip is repeated in the closing list, and of what
failed the place where it did and how it ended.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

# Where a failure is told: a crash of the interpreter, a panic, an error of a test or of a compiler.
FAILURE = re.compile(r"^Fatal Python error|\bpanicked at\b|^E  |^error(\[|:)")


class Excerpt:
    """Of the output of a check so many lines from the first failure on, and the last ones."""

    def __init__(self, after: int = 25, last: int = 25) -> None:
        self._after = after
        self._from_failure: list[str] = []
        self._last: deque[str] = deque(maxlen=last)

    def add(self, line: str) -> None:
        """One more line."""
        if (self._from_failure or FAILURE.search(line)) and len(self._from_failure) < self._after:
            self._from_failure.append(line)
        else:
            self._last.append(line)

    def text(self) -> str:
        """All of it, as it was printed."""
        return "".join([*self._from_failure, "[...]\n", *self._last])


class Report:
    """What ran, with which outcome, and what could not run."""

    def __init__(self, *, strict: bool, folder: Path) -> None:
        self._strict = strict
        self._folder = folder
        self._passed: list[tuple[str, float]] = []
        self._failed: list[tuple[str, str]] = []
        self._excerpts: dict[str, str] = {}
        self._missing: dict[str, tuple[str, bool]] = {}
        self._skipped: list[str] = []
        self._started = time.monotonic()
        self._running: set[int] = set()

    def run(
        self,
        name: str,
        command: list[str],
        *,
        environment: dict[str, str] | None = None,
        timeout: float = 600,
        prefix: str = "",
    ) -> bool:
        """Runs one check, each line of its output with a prefix; True if it passed."""
        print(f"\n=== {name}: {' '.join(command)}", flush=True)
        started = time.monotonic()
        try:
            process = subprocess.Popen(
                command,
                cwd=self._folder,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            self._failed.append((name, str(error)))
            return False
        self._running.add(process.pid)
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(timeout, expire)
        timer.start()
        excerpt = Excerpt()
        try:
            self._show(name, process, prefix, excerpt)
            status = process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            raise
        finally:
            timer.cancel()
            self._running.discard(process.pid)
        seconds = time.monotonic() - started
        if expired.is_set() or status != 0:
            self._excerpts[name] = excerpt.text()
        if expired.is_set():
            self._failed.append((name, f"ended after {seconds:.0f} s"))
        elif status != 0:
            self._failed.append((name, f"status {status}"))
        else:
            self._passed.append((name, seconds))
        print(f"=== {name}: {'passed' if status == 0 else 'FAILED'} in {seconds:.1f} s", flush=True)
        return status == 0

    def stop(self) -> None:
        """Ends what is running, in whichever thread."""
        for pid in list(self._running):
            os.killpg(pid, signal.SIGTERM)

    def _show(self, name: str, process: subprocess.Popen[str], prefix: str, excerpt: Excerpt) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            sys.stdout.write(prefix + line)
            sys.stdout.flush()
            excerpt.add(line)
            if line.startswith("SKIPPED ["):  # pytest -ra
                self._skipped.append(f"{name}: {line.split('] ', 1)[-1].strip()}")

    def attempt(self, name: str, group: Callable[[], None]) -> None:
        """Runs a group; an error of its own set-up fails the group and not the others."""
        try:
            group()
        except (OSError, subprocess.SubprocessError, SystemExit) as error:
            self._failed.append((name, str(error)))

    def missing(self, what: str, why: str, *, obtainable: bool) -> None:
        """Notes what could not run; with CI=true it fails if a package manager could have brought it."""
        self._missing[what] = (why, obtainable)

    def close(self) -> int:
        """Prints the closing list; returns the status to exit with."""
        failed = list(self._failed)
        for name, excerpt in self._excerpts.items():
            print(f"\n{'=' * 100}\n{name} failed:\n{excerpt}")
        print(f"\n{'=' * 100}")
        for name, seconds in self._passed:
            print(f"passed   {name} ({seconds:.1f} s)")
        for what, (why, obtainable) in self._missing.items():
            print(f"missing  {what}: {why}")
            if self._strict and obtainable:
                failed.append((what, "missing"))
        for skipped in self._skipped:
            print(f"skipped  {skipped}")
        for name, why in failed:
            print(f"FAILED   {name}: {why}")
        if not self._missing and not self._skipped:
            print("nothing was left out")
        print(f"in {(time.monotonic() - self._started) / 60:.1f} minutes")
        skips = len(self._missing) + len(self._skipped)
        print(f"{len(self._passed)} passed, {len(failed)} failed, {skips} skipped", flush=True)
        return 1 if failed or not self._passed else 0
