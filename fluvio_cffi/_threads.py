"""The port of the synchronous twin: a completion queue per calling thread, waited for where it is needed.

It has the face of an event-loop port (see _port.py) with functions that block. The wait releases the GIL
and comes back at least every 100 ms, so that Ctrl-C and other signals are noticed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident
from time import monotonic
from typing import Any, Callable, Optional

from . import _platform
from ._completions import CAPACITY, Completions, Pending, completed, forked
from ._library import FULL, OK, Completion, ffi, lib
from .errors import FluvioTimeoutError, InvalidArgumentError, InvalidTypeError

SLICE_MS = 100


class _Deadline(threading.local):
    # The earliest `timeout=` of the calls that this thread is in.
    at: Optional[float] = None
    seconds: float = 0.0


_deadline = _Deadline()


@contextmanager
def _limited(timeout: float) -> Iterator[None]:
    before, seconds = _deadline.at, _deadline.seconds
    at = monotonic() + timeout
    if before is None or at < before:
        _deadline.at, _deadline.seconds = at, timeout
    try:
        yield
    finally:
        _deadline.at, _deadline.seconds = before, seconds


class _Unlimited:
    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exc_info: object) -> None:
        return None


_unlimited = _Unlimited()


def limit(timeout: Optional[float]) -> Any:
    """A context in which waits end with FluvioTimeoutError after `timeout` seconds; None: no limit."""
    if timeout is None:
        return _unlimited
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise InvalidTypeError(f"timeout must be a number of seconds or None, not {timeout!r}")
    if not timeout >= 0:
        raise InvalidArgumentError(f"timeout must not be negative: {timeout!r}")
    return _limited(timeout)


class ThreadCompletions(Completions):
    """The queue of one thread. Others may drain it too, when they need what was started there."""

    def __init__(self) -> None:
        super().__init__()
        self._owner = get_ident()

    def wait(self, pending: Pending) -> None:
        """Block until `pending`, which was started here, is done."""
        if get_ident() == self._owner:
            out, view = self._out, self._view
        else:
            out = ffi.new("fluvio_completion[]", CAPACITY)
            view = memoryview(ffi.buffer(out))
        # A local reference: the last client may be closed by another thread meanwhile.
        queue = self._queue
        while pending.completion is None:
            if self._stopped:
                raise self._refusal()
            milliseconds = SLICE_MS
            at = _deadline.at
            if at is not None:
                left = at - monotonic()
                if left <= 0:
                    self.poll()
                    if pending.completion is not None:
                        return
                    raise FluvioTimeoutError(f"timed out after {_deadline.seconds:g} s")
                milliseconds = min(SLICE_MS, int(left * 1000) + 1)
            self._deliver(lib.fluvio_queue_wait(queue, out, CAPACITY, milliseconds), out, view)

    def poll(self) -> None:
        """Deliver what has completed; from any thread."""
        queue = self._queue
        if queue is None:
            return
        out = ffi.new("fluvio_completion[]", CAPACITY)
        view = memoryview(ffi.buffer(out))
        count = CAPACITY
        while count == CAPACITY:
            count = lib.fluvio_queue_drain(queue, out, CAPACITY)
            self._deliver(count, out, view)

    def drop(self) -> None:
        """Nothing is started here any more, waits end; the queue goes with its last user."""
        self._stopped = True


class Pacer:
    """Between the records of a batch there is nothing to do in a thread."""

    __slots__ = ()

    def due(self) -> bool:
        """Never."""
        return False

    def pause(self) -> None:
        """Nothing."""

    def restart(self) -> None:
        """Nothing."""

    def reset(self) -> None:
        """Nothing."""


class Port:
    """The queues of all threads that use the synchronous twin. Closed with the last client."""

    def __init__(self) -> None:
        self._threads: dict[int, ThreadCompletions] = {}
        self._lock = threading.RLock()
        self._users = 0
        self.forked = False

    @property
    def attached(self) -> bool:
        """Whether waiting is still possible."""
        return not self.forked

    def acquire(self) -> None:
        """One more client."""
        with self._lock:
            self._users += 1

    def release(self) -> None:
        """One client less; the last one closes all queues."""
        with self._lock:
            self._users -= 1
            if self._users > 0 or self.forked:
                return
            threads = list(self._threads.values())
            self._threads.clear()
        for completions in threads:
            completions.poll()
            completions.drop()

    def release_from_finalizer(self) -> None:
        """`release`, from any thread at any time (the lock may be taken again by its holder)."""
        self.release()

    def settle(self) -> None:
        """Deliver what has completed up to now, whichever thread started it."""
        if self.forked:
            return
        for completions in list(self._threads.values()):
            completions.poll()

    def check(self) -> None:
        """Raise after a fork; a synchronous client may be used from any thread."""
        if self.forked:
            raise forked()

    def _here(self) -> ThreadCompletions:
        completions = self._threads.get(get_ident())
        if completions is None:
            if self.forked:
                raise forked()
            completions = self._threads[get_ident()] = ThreadCompletions()
        return completions

    def call(self, function: Callable[..., int], handle: Any, *arguments: Any) -> Optional[Completion]:
        """Start an operation and wait for it; None: there was no room and it did not start."""
        here = self._here()
        if here._stopped:
            raise here._refusal()
        token = next(here._tokens)
        pending = Pending()
        here._waiters[token] = pending
        context = here._context
        try:
            status = function(handle, context, *arguments, token, here._error)
            if status == OK:
                here.wait(pending)
            elif status == FULL:
                del here._waiters[token]
                return None
            else:
                raise here._refused()
        except BaseException:
            if here._waiters.pop(token, None) is not None:
                lib.fluvio_cancel(context, token)
            raise
        completion = pending.completion
        assert completion is not None
        pending.completion = None  # Its value is the caller's now.
        if completion[1]:
            completed(completion)
        return completion

    def start(self, pending: Pending, function: Callable[..., int], handle: Any, *arguments: Any) -> bool:
        """Start an operation that nobody waits for yet; False: there was no room and it did not start."""
        return self._here().start(pending, function, handle, *arguments)

    def park(self, pending: Pending) -> None:
        """Wait until `pending` is done, whichever thread started it."""
        pending.home.wait(pending)

    def checkpoint(self) -> None:
        """Nothing."""

    def pacer(self) -> Pacer:
        """A pacer that never pauses."""
        return _pacer

    def leave_to_parent(self) -> None:
        """In a forked child: the clients that use this port belong to the parent."""
        self.forked = True
        self._lock = threading.RLock()


_pacer = Pacer()
_port = Port()
_left_to_parent: list[Any] = []


def current_port() -> Port:
    """The one port of the synchronous twin."""
    return _port


def checkpoint() -> None:
    """Nothing."""


def _after_fork() -> None:
    global _port
    # The old clients keep the old port, whose queues are marked as the parent's.
    _left_to_parent.append(_port)
    _port.leave_to_parent()
    _port = Port()


_platform.after_fork_in_child(_after_fork)

__all__ = ["Pacer", "Port", "checkpoint", "current_port", "limit"]
