"""The end of a process: what producers have accepted is sent before, for a few seconds, or its loss is said.

Then the callbacks that wait for answers are called. Most processes end with the functions of `atexit`.
Children of multiprocessing end by `os._exit`, after the finalizers of multiprocessing itself, whose list is
emptied when a child begins. So a process is looked at when it makes its first context.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
import warnings
from typing import Callable

from ._library import lib

# How long the exit waits for records of producers that were not closed.
EXIT_SECONDS = 3.0

# Called with the seconds that they may take, once the answers are there.
last: list[Callable[[float], object]] = []
_process = 0
_told = 0


def arrange() -> None:
    """A context is made: see that the end of this process is noticed. Imports nothing that is not there."""
    global _process
    if _process == os.getpid():
        return
    _process = os.getpid()
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        from multiprocessing import util

        # Late: the finalizers of others may still send something.
        util.Finalize(None, flush, exitpriority=-100)


def flush() -> None:
    """Send what is left; say what could not be sent."""
    global _told
    deadline = time.monotonic() + EXIT_SECONDS
    left = lib.fluvio_flush_all(0)
    # Where both kinds of exit functions run, nobody waits twice for the same.
    while left and left != _told and time.monotonic() < deadline:
        # In slices, so that Ctrl-C can end it.
        left = lib.fluvio_flush_all(100)
    for function in last:
        function(max(deadline - time.monotonic(), 0.1))
    if left and left != _told:
        _told = left
        _say(f"{left} records were not acknowledged when the program ended: close producers to wait for them")


def _say(text: str) -> None:
    # Not only as a warning: nobody sees those by default.
    if sys.stderr is not None:
        try:
            print(f"fluvio_cffi: {text}", file=sys.stderr, flush=True)
        except (OSError, ValueError):
            pass  # It is closed.
    warnings.warn(text, ResourceWarning, stacklevel=1)


atexit.register(flush)
