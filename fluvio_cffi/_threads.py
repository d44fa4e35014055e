"""The port of the synchronous twin: operations that are waited for in the thread that needs them.

It has the face of an event-loop port (see _port.py) with functions that block. Every operation completes in a
slot of its own (see _slots.py); waiting for it releases the GIL, and ends at once when a signal comes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Callable, Optional

from . import _platform
from ._completions import completed, forked
from ._greenlets import refuse_in_a_hub
from ._library import FULL, OK, Completion, ffi, take_error
from ._limits import limit
from ._receipts import Left
from ._slot_receipts import Ledger, Receipt, Slip
from ._slots import SPARE, Call, Pending, Slots, wait
from .errors import ClosedError

_forks = 0


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
    """The slots of one client, for all threads that use it."""

    def __init__(self) -> None:
        # None: the client is closed. Who is inside of a call goes on with those that it has.
        self._slots: Optional[Slots] = Slots()
        # For refused calls: whoever is inside of one has taken a place out.
        self._errors: list[Any] = []
        self._process = _forks

    @property
    def forked(self) -> bool:
        """Whether this is a forked child, and the port its parent's."""
        return self._process != _forks

    @property
    def attached(self) -> bool:
        """Whether waiting is still possible."""
        return not self.forked and self._slots is not None

    def acquire(self) -> None:
        """Nothing: the port is the client's own."""

    def release(self) -> None:
        """The client is closed."""
        self._slots = None

    def release_from_finalizer(self) -> None:
        """`release`, from any thread at any time."""
        self.release()

    def settle(self) -> None:
        """Nothing: every completion is where it is looked for."""

    def give_up(self, ledgers: Iterable[Ledger]) -> None:
        """Nobody learns of the records of these any more: who waits for one is told that it is unknown."""
        for ledger in ledgers:
            ledger.give_up()

    def check(self) -> None:
        """Raise after a fork; a synchronous client may be used from any thread."""
        self.check_process()

    def check_process(self) -> None:
        """Raise if this is a forked child, and the port its parent's."""
        if self._process != _forks:
            raise forked()

    def _open(self) -> Slots:
        if self._process != _forks:
            raise forked()
        slots = self._slots
        if slots is None:
            raise ClosedError("the client is closed")
        return slots

    def call(self, function: Callable[..., int], handle: Any, *arguments: Any) -> Optional[Completion]:
        """Start an operation and wait for it; None: there was no room and it did not start."""
        slots = self._open()
        spare = slots.spare
        try:
            call = spare.pop()
        except IndexError:
            call = Call(slots.make())
        try:
            status = function(handle, slots.context, *arguments, call.token, call.error)
            if status == OK:
                wait(call.slot, call.out)
            elif status != FULL:
                raise take_error(call.error[0])
        except BaseException:
            # At once, not when the traceback goes.
            call.release()
            raise
        completion = call.completion() if status == OK else None
        if completion is not None:
            if completion[1]:
                completed(completion)
            if completion[3]:
                return completion
        if len(spare) < SPARE:
            spare.append(call)
        return completion

    def start(self, pending: Pending, function: Callable[..., int], handle: Any, *arguments: Any) -> bool:
        """Start an operation that nobody waits for yet; False: there was no room and it did not start."""
        slots = pending.slots(self._open())
        slot = pending.slot
        if slot is None:
            pending.slot = slot = slots.make()
        errors = self._errors
        try:
            error = errors.pop()
        except IndexError:
            error = ffi.new("fluvio_error **")
        try:
            status = function(handle, slots.context, *arguments, slot.user_data, error)
        except BaseException:
            if not pending.under_way:
                # At once, where memory is not counted by references.
                pending.slot = None
                ffi.release(slot)
            raise
        errors.append(error)
        if status == OK:
            return True
        if status == FULL:
            return False
        raise take_error(error[0])

    def run(self, receipt: Receipt, function: Callable[..., int], handle: Any, *arguments: Any) -> bool:
        """Start an operation and wait for it; False: there was no room and it did not start.

        Interrupted while it waits, the operation goes on, and its producer knows what becomes of it.
        """
        if not self.start(receipt, function, handle, *arguments):
            return False
        receipt.block()
        return True

    def park(self, pending: Pending) -> None:
        """Wait until `pending` is done, whichever thread started it."""
        if self._process != _forks:
            raise forked()
        pending.block()

    def checkpoint(self) -> None:
        """Nothing."""

    def pacer(self) -> Pacer:
        """A pacer that never pauses."""
        return _pacer


_pacer = Pacer()


def current_port() -> Port:
    """The port of a new client."""
    refuse_in_a_hub()
    return Port()


def checkpoint() -> None:
    """Nothing."""


def _after_fork() -> None:
    global _forks
    _forks += 1


_platform.after_fork_in_child(_after_fork)

__all__ = [
    "Ledger",
    "Left",
    "Pacer",
    "Pending",
    "Port",
    "Receipt",
    "Slip",
    "checkpoint",
    "current_port",
    "limit",
]
