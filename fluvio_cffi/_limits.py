"""The `timeout=` of the synchronous twin: how long the calls may take that this thread is in.

A limit holds while the frame that set it is running. That is looked at, since a KeyboardInterrupt can strike
inside `__exit__`, before it has taken back anything.
"""

from __future__ import annotations

import sys
import threading
from time import monotonic
from types import FrameType
from typing import Any, Callable, Optional

from . import _arguments
from ._arguments import Duration
from .errors import FluvioError, FluvioTimeoutError


class Limit:
    """The end of a call's time; the earlier one if the caller has a limit, too."""

    __slots__ = ("_frame", "_outer", "at", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.at = monotonic() + seconds
        self._frame: Optional[FrameType] = None
        self._outer: Optional[Limit] = None

    def __enter__(self) -> None:
        outer = current()
        if outer is not None and outer.at < self.at:
            self.at, self.seconds = outer.at, outer.seconds
        self._outer = outer
        self._frame = sys._getframe(1)
        _here.limit = self

    def __exit__(self, *exc_info: object) -> None:
        _here.limit = self._outer
        self._frame = None

    def holds(self) -> bool:
        """Whether the call is still running in this thread."""
        frame: Optional[FrameType] = sys._getframe(1)
        while frame is not None:
            if frame is self._frame:
                return True
            frame = frame.f_back
        return False

    @property
    def outer(self) -> Optional[Limit]:
        """The limit of the caller."""
        return self._outer

    def error(self) -> FluvioTimeoutError:
        """The error for a call whose time is over."""
        error = FluvioTimeoutError(f"timed out after {self.seconds:g} s")
        error._of_limit = True
        return error


class _Here(threading.local):
    limit: Optional[Limit] = None


_here = _Here()


def current() -> Optional[Limit]:
    """The limit that holds in this thread."""
    limit = _here.limit
    while limit is not None and not limit.holds():
        limit = limit.outer
    return limit


class Unlimited:
    """No limit of its own."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exc_info: object) -> None:
        return None


_unlimited = Unlimited()


class Suspended:
    """No limit while a thread waits: a signal handler may run in it, whose calls have their own."""

    __slots__ = ("_limit",)

    def __init__(self, limit: Limit) -> None:
        self._limit = limit

    def __enter__(self) -> None:
        _here.limit = None

    def __exit__(self, *exc_info: object) -> None:
        _here.limit = self._limit


def limit(timeout: Optional[Duration], refused: Optional[Callable[[FluvioError], object]] = None) -> Any:
    """A context in which waits end with FluvioTimeoutError after `timeout`; None or infinite: no limit.

    Where it cannot be one, `refused` adds to the error what the call was about.
    """
    try:
        seconds = None if timeout is None else _arguments.timeout(timeout)
    except FluvioError as error:
        if refused is not None:
            refused(error)
        raise
    return _unlimited if seconds is None else Limit(seconds)


__all__ = ["Limit", "Suspended", "current", "limit"]
