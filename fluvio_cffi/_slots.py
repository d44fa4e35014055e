"""Slots of the library, where the synchronous twin's operations complete.

Every operation has a slot of its own, which the library fills and whose owner waits for it. Nothing lies
between the two: no queue, no buffer that calls share, no thread that hands over. So a signal handler, a
finaliser or Ctrl-C may strike anywhere in a call, and make calls of its own, and nothing is lost:

* A slot and what it carries are freed with the last reference to it, by the library itself. No code in Python
  runs for that, which Ctrl-C could strike (an exception in a finaliser is dropped).
* A slot is made within one step, and has an owner before an operation is started in it.
* Reading a slot takes nothing. So several threads may wait for the same one.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from functools import partial
from itertools import repeat
from threading import get_ident
from time import monotonic
from typing import Any, Callable, Optional

from . import _exit, _limits, _platform
from ._completions import forked
from ._library import EMPTY, END, INTERRUPTED, NULL, OK, Completion, ffi, lib, take_error

# A signal that comes just before a wait does not end it. Python runs handlers in the main thread only, which
# looks this often; the others do so in case one is the main thread and the threading module does not know.
SLICE_MS = 20
OTHER_SLICE_MS = 1000
# What a slot takes of the library's memory, about: for garbage collectors that go by it.
SLOT_BYTES = 512
# How many slots of ended calls are kept for the next ones.
SPARE = 8

_COMPLETION = ffi.typeof("fluvio_completion *")
_ERROR = ffi.typeof("fluvio_error **")
_wait = lib.fluvio_slot_wait
_main = threading.main_thread().ident


def wait(slot: Any, out: Any) -> None:
    """Block until `slot` is filled, within this thread's limit; its completion is then in `out`."""
    limit = _limits.current()
    if limit is None:
        milliseconds = SLICE_MS if get_ident() == _main else OTHER_SLICE_MS
        while not _is_filled(_wait(slot, milliseconds, out)):
            pass
        return
    with _limits.Suspended(limit):
        while True:
            left = limit.at - monotonic()
            milliseconds = SLICE_MS if get_ident() == _main else OTHER_SLICE_MS
            if left * 1000 < milliseconds:
                milliseconds = max(0, int(left * 1000) + 1) if left > 0 else 0
            if _is_filled(_wait(slot, milliseconds, out)):
                return
            if left <= 0:
                raise limit.error()


def look(slot: Any, milliseconds: int, out: Any) -> bool:
    """Block until `slot` is filled, but not longer than that."""
    return _is_filled(_wait(slot, milliseconds, out))


def _is_filled(status: int) -> bool:
    if status == OK:
        return True
    if status not in (EMPTY, INTERRUPTED):
        # A signal handler has forked, and this is the child.
        raise forked()
    return False


def _completion(out: Any, owner: Any) -> Completion:
    value = int(ffi.cast("uintptr_t", out.value))
    return (out.user_data, out.status, out.kind, value, out.offset, out.partition, owner if value else 0)


class Slots:
    """A set of slots and its context."""

    def __init__(self, flags: int = 0) -> None:
        _exit.arrange()
        error = ffi.new(_ERROR)
        slots = lib.fluvio_slots_new(error)
        if slots == NULL:
            raise take_error(error[0])
        self.handle = ffi.gc(slots, lib.fluvio_slots_free)
        self.context = lib.fluvio_slots_get_context(slots)
        self.spare: list[Call] = []
        # Makes a slot that is freed with its last reference.
        self.make: Callable[[], Any] = _maker(self.handle, flags)


if sys.implementation.name == "pypy":

    def _maker(slots: Any, flags: int) -> Callable[[], Any]:
        # An iterator that Ctrl-C strikes is at its end there. A slot that is lost here is idle, and small.
        return lambda: ffi.gc(lib.fluvio_slot_new(slots, flags), lib.fluvio_slot_free, SLOT_BYTES)

else:

    def _maker(slots: Any, flags: int) -> Callable[[], Any]:
        # One step: an iterator in C, with no code in Python between making a slot and having it freed.
        new = iter(partial(lib.fluvio_slot_new, slots, flags), None)
        made: Iterator[Any] = map(ffi.gc, new, repeat(lib.fluvio_slot_free), repeat(SLOT_BYTES))
        return made.__next__


class Call:
    """A slot for calls that wait at once, one after the other, and where they find what came."""

    __slots__ = ("error", "out", "slot", "token")

    def __init__(self, slot: Any) -> None:
        self.slot = slot
        self.token: int = slot.user_data
        self.out = ffi.new(_COMPLETION)
        self.error = ffi.new(_ERROR)

    def completion(self) -> Completion:
        """What came."""
        return _completion(self.out, self)

    def release(self) -> None:
        """Free what came, or cancel what is pending. It cannot be used again."""
        ffi.release(self.slot)


class Pending:
    """An operation whose completion stays until somebody asks for it; any number of threads may wait."""

    __slots__ = ("__weakref__", "_claims", "_completion", "_given", "slot")

    def __init__(self) -> None:
        self._completion: Optional[Completion] = None
        self._given = False
        # For one claim: popping is one step, whichever threads and signal handlers try it.
        self._claims = [False]
        self.slot: Any = None

    def slots(self, ports: Slots) -> Slots:
        """Where it is started."""
        return ports

    @property
    def completion(self) -> Optional[Completion]:
        """The completion if it has come."""
        if self._completion is None and self.slot is not None and not self._given:
            out = ffi.new(_COMPLETION)
            if _wait(self.slot, 0, out) == OK or self.given_up(out):
                self.set_result(_completion(out, self))
        return self._completion

    @completion.setter
    def completion(self, completion: Optional[Completion]) -> None:
        # None: somebody has it now.
        self._given = completion is None
        self._completion = completion

    def claim(self) -> Optional[Completion]:
        """The completion that is there, for the first who asks; None for the others."""
        completion = self.completion
        if completion is None:
            return None
        try:
            self._claims.pop()
        except IndexError:
            return None
        self.completion = None
        return completion

    @property
    def under_way(self) -> bool:
        """Whether something was started in its slot, be it by an interrupted `start`."""
        return self.slot is not None and _wait(self.slot, 0, ffi.new(_COMPLETION)) != END

    def given_up(self, out: Any) -> bool:
        """Whether nobody learns what comes, so that it was cancelled: that is in `out` then."""
        return False

    def done(self) -> bool:
        """Whether the completion is there."""
        return self.completion is not None

    def set_result(self, completion: Completion) -> None:
        """Called by whoever finds the completion; more than once if several do at the same time."""
        self._completion = completion

    def block(self) -> None:
        """Wait until the completion is there."""
        slot = self.slot
        if slot is not None and self._completion is None and not self._given:
            out = ffi.new(_COMPLETION)
            wait(slot, out)
            self.set_result(_completion(out, self))

    def release(self) -> None:
        """Nothing: others may be waiting in the slot, which goes with this."""


def _after_fork() -> None:
    global _main
    _main = threading.main_thread().ident


_platform.after_fork_in_child(_after_fork)

__all__ = ["SPARE", "Call", "Pending", "Slots", "look", "wait"]
