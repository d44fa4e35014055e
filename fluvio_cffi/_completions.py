"""Completions of the library, for the event-loop ports.

A `Completions` owns one queue, one context bound to it, and the waiters of what was started there, by
token. The rules that everything above rests on:

* A started operation gives exactly one completion, also after a cancel. One whose token is no longer
  known was abandoned: what it carries is freed here.
* `drain` never raises: on trio it runs in a system task, where an exception would end the run.
* No thread of the library enters the interpreter; somebody who is in it drains.
* One thread at a time starts operations: there is one place for the error of a refusal.
"""

from __future__ import annotations

import itertools
import struct
import sys
import weakref
from collections.abc import Iterable
from threading import get_ident
from typing import Any, Callable, Optional

from . import _exit, _platform
from ._library import (
    CANCELLED,
    FULL,
    NULL,
    OK,
    Completion,
    discard,
    failure,
    ffi,
    lib,
    take_error,
)
from .errors import ClosedError, ForkedError

CAPACITY = 512
_ENTRY = struct.Struct("=QIIQqII24x")
_PYPY = sys.implementation.name == "pypy"

if ffi.sizeof("fluvio_completion") != _ENTRY.size:  # pragma: no cover
    raise ImportError("fluvio_completion has another layout than this package expects")


class Pending:
    """An operation whose completion is kept until somebody asks for it; any number of tasks may wait."""

    __slots__ = ("__weakref__", "completion", "parked")

    def __init__(self) -> None:
        self.completion: Optional[Completion] = None
        # Who wakes with it: futures on asyncio, tasks on trio.
        self.parked: list[Any] = []

    @property
    def under_way(self) -> bool:
        """Whether a `start` that was interrupted has started it: what is uncertain was abandoned there."""
        return False

    def done(self) -> bool:
        """Whether the completion is there."""
        return self.completion is not None

    def claim(self) -> Optional[Completion]:
        """The completion that is there, for the first who asks; None for the others."""
        completion, self.completion = self.completion, None
        return completion

    def set_result(self, completion: Completion) -> None:
        """Called once, by `drain`."""
        self.completion = completion
        for waiter in self.parked:
            if not waiter.done():
                waiter.set_result(completion)

    def __del__(self) -> None:
        completion = self.completion
        if completion is not None and completion[3]:
            discard(completion)


class Completions:
    """One completion queue, its context and its waiters.

    Both are freed with it, and from then on it says that it is stopped. They have no destructors of their
    own: the collector runs those of things that it collects together in any order, and a coroutine among
    them still wants to cancel what it was waiting for.
    """

    _context: Any = None
    _queue: Any = None

    def __init__(self) -> None:
        self._stopped = True
        self.forked = False
        self._thread = get_ident()
        _exit.arrange()
        self._error = ffi.new("fluvio_error **")
        self._queue = lib.fluvio_queue_new(0, self._error)
        if self._queue == NULL:
            raise take_error(self._error[0])
        self._context = lib.fluvio_context_new_on_queue(self._queue, self._error)
        if self._context == NULL:
            raise take_error(self._error[0])
        self._out = ffi.new("fluvio_completion[]", CAPACITY)
        self._view = memoryview(ffi.buffer(self._out))
        self._tokens = itertools.count(1)
        self._waiters: dict[int, Any] = {}
        self._stopped = False
        _everyone[id(self)] = weakref.ref(self, _Forget(id(self)))

    @property
    def fd(self) -> int:
        """Readable while completions wait."""
        return int(lib.fluvio_queue_get_fd(self._queue))

    def begin(
        self, token: int, waiter: Any, function: Callable[..., int], handle: Any, *arguments: Any
    ) -> bool:
        """Start an operation whose completion goes to `waiter`; False: no room, it did not start.

        `token` is a new one of `_tokens`, which the caller has before anything can happen to it: should an
        exception strike, here or later, it hands it to `abandon`.
        """
        if self._stopped or get_ident() != self._thread:
            self.enter()
        self._waiters[token] = waiter
        status = function(handle, self._context, *arguments, token, self._error)
        if status == OK:
            return True
        del self._waiters[token]
        if status == FULL:
            return False
        raise take_error(self._error[0])

    def enter(self) -> None:
        """This thread starts operations from here on; raises if they cannot be started in it."""
        raise NotImplementedError

    def abandon(self, token: int) -> bool:
        """Nobody waits any more: cancel it, and free what it brings. False if it has completed already."""
        if self._waiters.pop(token, None) is None:
            return False
        if not self._stopped:
            lib.fluvio_cancel(self._context, token)
        return True

    def start(self, pending: Pending, function: Callable[..., int], handle: Any, *arguments: Any) -> bool:
        """Start an operation that nobody waits for yet; False: there was no room and it did not start."""
        token = next(self._tokens)
        try:
            return self.begin(token, pending, function, handle, *arguments)
        except BaseException:
            # Refused, or interrupted at a moment when it may have been accepted.
            self.abandon(token)
            raise

    def drain(self) -> int:
        """Deliver what has completed, in one bounded round; how many. Never raises."""
        if self._stopped:
            return 0
        count = int(lib.fluvio_queue_drain(self._queue, self._out, CAPACITY))
        self._deliver(count, self._out, self._view)
        return count

    def settle(self) -> None:
        """Deliver all that has completed up to now."""
        while self.drain() == CAPACITY:
            pass

    def _deliver(self, count: int, out: Any, view: memoryview) -> None:
        pop = self._waiters.pop
        for completion in _unpack(count, out, view):
            waiter = pop(completion[0], None)
            try:
                if waiter is None or waiter.done():
                    discard(completion)
                else:
                    waiter.set_result(completion)
            except RuntimeError:
                # The loop was closed with the waiter still in it.
                discard(completion)

    def check_process(self) -> None:
        """Raise if this is a forked child, and all of this its parent's."""
        if self.forked:
            raise forked()

    def give_up(self, ledgers: Iterable[Any]) -> None:
        """Nobody learns of the records of these any more: who waits for one is told that it is unknown."""
        given_up = set(map(id, ledgers))
        for token, waiter in list(self._waiters.items()):
            ledger = getattr(waiter, "_ledger", None)
            if ledger is not None and id(ledger) in given_up and self._waiters.pop(token, None) is not None:
                _set_cancelled(token, waiter)

    def _refusal(self) -> Exception:
        """Why nothing can be started here."""
        if self.forked:
            return forked()
        return ClosedError("the client is closed")

    def _shut(self) -> None:
        """Let everybody go and give the queue back. Late completions are freed by the library."""
        if self._stopped:
            return
        # First every answer that is there: what is left afterwards will never be known.
        self.settle()
        self._stopped = True
        waiters, self._waiters = self._waiters, {}
        for token, waiter in waiters.items():
            _set_cancelled(token, waiter)
        self._free()

    def _free(
        self, context_free: Any = lib.fluvio_context_free, queue_free: Any = lib.fluvio_queue_free
    ) -> None:
        # Bound here: at the interpreter's exit the module may be empty already.
        self._stopped = True
        context, self._context = self._context, None
        queue, self._queue = self._queue, None
        if not self.forked:
            if context:
                context_free(context)
            if queue:
                queue_free(queue)

    def __del__(self) -> None:
        self._free()

    def _leave_to_parent(self) -> None:
        """After a fork, in the child: forget everything, touch nothing that the parent uses."""
        self.forked = True
        self._stopped = True
        self._waiters = {}


def _set_cancelled(token: int, waiter: Any) -> None:
    if not waiter.done():
        try:
            waiter.set_result((token, CANCELLED, 0, 0, -1, 0, 0))
        except RuntimeError:
            pass  # The loop was closed with the waiter still in it.


def forked() -> ForkedError:
    """The error for everything that was made before a fork and is used in the child."""
    return ForkedError(
        "this was made before os.fork() and cannot be used in the child: call connect() again there"
    )


def completed(completion: Completion) -> Completion:
    """The completion if it is a success, else its exception is raised."""
    if completion[1] != OK:
        raise failure(completion)
    return completion


if _PYPY:

    def _unpack(count: int, out: Any, view: memoryview) -> list[Completion]:
        # Plain fields are what its compiler removes; struct is not.
        entries = []
        for index in range(count):
            entry = out[index]
            entries.append(
                (
                    entry.user_data,
                    entry.status,
                    entry.kind,
                    int(ffi.cast("uintptr_t", entry.value)),
                    entry.offset,
                    entry.partition,
                    0,
                )
            )
        return entries

else:

    def _unpack(count: int, out: Any, view: memoryview) -> list[Completion]:
        # A list, not an iterator over the buffer: a waiter may cause another drain.
        return list(_ENTRY.iter_unpack(view[: count * _ENTRY.size]))


_everyone: dict[int, weakref.ref[Completions]] = {}
_left_to_parent: list[Completions] = []


class _Forget:
    __slots__ = ("_key",)

    def __init__(self, key: int) -> None:
        self._key = key

    def __call__(self, reference: object) -> None:
        if _everyone.get(self._key) is reference:
            del _everyone[self._key]


def _after_fork() -> None:
    for reference in list(_everyone.values()):
        completions = reference()
        if completions is not None:
            completions._leave_to_parent()
            # Kept for ever: freeing it here would need locks that a thread of the parent may have held.
            _left_to_parent.append(completions)
    _everyone.clear()


_platform.after_fork_in_child(_after_fork)
