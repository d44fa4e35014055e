"""Answers of the server to records in the synchronous twin, with the names and rules of _receipts.py.

What was sent and failed is counted by the library itself, in the slots of its producer, from the moment it
fails until somebody receives it. So it does not matter who knows of a record, or whether anybody does.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from queue import Empty, SimpleQueue
from typing import Any, Callable, Optional

from . import _exit, _platform, _receipts
from ._library import NULL, OK, Completion, ffi, lib, take_error
from ._receipts import FAILED, Answer, Outcomes
from ._slots import SLICE_MS, Pending, Slots, look
from .errors import DeliveryError, FluvioError

_log = logging.getLogger("fluvio_cffi")


class Ledger(_receipts.Ledger):
    """See _receipts.py. A `send_many` that was left by its caller is looked after here."""

    def __init__(self, topic: str) -> None:
        self.slots = Slots(lib.FLUVIO_SLOT_COUNTED)
        # Its client was closed without waiting for the answers: nobody learns of them any more.
        self.over = False
        # What threads wait for.
        self.waited: list[Owed] = []
        # In the order in which they came; each is a key, so that it is there once.
        self._slips: dict[Slip, None] = {}
        # Of several who close at once one tells a failure. Signal handlers and finalisers come in between.
        self._telling = threading.RLock()
        self._entering = False
        super().__init__(topic)

    @property
    def pending(self) -> int:
        """Records without an answer."""
        with self._telling:
            left = sum(slip.count for slip in list(self._slips) if not slip.over and slip.completion is None)
        return int(lib.fluvio_slots_get_pending(self.slots.handle)) + left

    @pending.setter
    def pending(self, count: int) -> None:
        """The library counts."""

    def look_after(self, slip: Slip) -> None:
        """Nobody asks for its outcomes any more."""
        self._slips[slip] = None

    def _enter_slips(self) -> None:
        # One at a time: what is entered is freed, and nobody else may look at it meanwhile. The others wait;
        # a signal handler or finaliser in the thread that is at it leaves it to that.
        with self._telling:
            if self._entering:
                return
            try:
                self._entering = True
                for slip in list(self._slips):
                    if slip.completion is not None:
                        slip.enter()
                    # Only behind this, and whoever struck in between.
                    if slip.over:
                        self._slips.pop(slip, None)
            finally:
                self._entering = False

    def give_up(self) -> None:
        """Who waits for an answer is told that it is unknown, and so is who asks for one later."""
        self.over = True
        # Not while one of them frees its slot.
        with self._telling:
            for owed in list(self.waited):
                owed.cancel()

    def unseen(self) -> tuple[int, Optional[FluvioError]]:
        """See _receipts.py: also what the library has counted."""
        self._enter_slips()
        count, first = super().unseen()
        handle = self.slots.handle
        failed = int(lib.fluvio_slots_get_failed(handle))
        if failed and first is None:
            error = lib.fluvio_slots_get_failure(handle, 0)
            first = None if error == NULL else take_error(error)
        return count + failed, first

    def failure(self, told: bool) -> Optional[DeliveryError]:
        """The error for what nobody has received, which has it now; `told`: not of what closing gave up."""
        with self._telling:
            self._enter_slips()
            handle = self.slots.handle
            failed = int(lib.fluvio_slots_get_failed(handle))
            errors: list[FluvioError] = []
            while len(errors) < failed:
                error = lib.fluvio_slots_get_failure(handle, len(errors))
                if error == NULL:
                    break
                errors.append(take_error(error))
                errors[-1].topic = errors[-1].topic or self.topic
            for known in errors:
                self.add(known)
            # Where closing gave up and one of the first tells so, the later ones were given up, too.
            if errors and not (told and any("undelivered" in known.detail for known in errors)):
                for _ in range(failed - len(errors)):
                    self.add(errors[-1])
            lib.fluvio_slots_see_all(handle)
            return super().failure(told)


class Owed(Pending):
    """What comes for a producer's ledger; it can be given up with it."""

    __slots__ = ()

    _ledger: Ledger

    def _home(self) -> Optional[Slots]:
        """Where it was started."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Have it completed now, as of unknown outcome, if it is not."""
        home = self._home()
        if home is not None and self.slot is not None:
            lib.fluvio_cancel(home.context, self.slot.user_data)

    def given_up(self, out: Any) -> bool:
        """Whether nobody learns what comes, so that it was cancelled: that is in `out` then."""
        if not self._ledger.over:
            return False
        self.cancel()
        # At once, but by a thread of the library.
        return any(lib.fluvio_slot_wait(self.slot, SLICE_MS, out) == OK for _ in range(100))

    def block(self) -> None:
        """Wait until the completion is there."""
        waited = self._ledger.waited
        waited.append(self)
        try:
            if self._ledger.over:
                self.cancel()
            super().block()
        finally:
            if self in waited:
                waited.remove(self)


class Receipt(Answer, Owed):  # pyright: ignore[reportIncompatibleMethodOverride]
    """The answer to one record."""

    __slots__ = ("_callbacks", "_error", "_ledger")

    def __init__(self, ledger: Ledger) -> None:
        self._completion: Optional[Completion] = None
        self._given = False
        self.slot: Any = None
        self._ledger: Ledger = ledger
        self._error: Optional[FluvioError] = None
        self._callbacks: list[Callable[[], Any]] = []

    def slots(self, ports: Slots) -> Slots:
        """Those of the producer, which counts it."""
        return self._ledger.slots

    def _home(self) -> Optional[Slots]:
        return self._ledger.slots

    def leave(self) -> None:
        """Nothing: the library counts."""

    def set_result(self, completion: Completion) -> None:
        """Called by whoever finds the answer."""
        if completion[1] != OK:
            self._error = self._failed(completion)
            completion = FAILED
        self._completion = completion
        if self._callbacks:
            self._call_back()

    def call_back(self, callback: Callable[[], Any]) -> None:
        """Have `callback` called, which must not raise, once the answer is there: at once if it is."""
        super().call_back(callback)
        if self._callbacks:
            _watcher.watch(self)

    def _received(self) -> None:
        lib.fluvio_slot_see(self.slot)


class Slip(Outcomes, Owed):  # pyright: ignore[reportIncompatibleMethodOverride]
    """The answer to a slice of a `send_many`."""

    __slots__ = ("_ledger", "_left", "_started", "accepted")

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.accepted = ffi.new("size_t *")
        self._ledger = ledger
        self._left = False
        self._started: Optional[Slots] = None

    def slots(self, ports: Slots) -> Slots:
        """Those of the client."""
        self._started = ports
        return ports

    def _home(self) -> Optional[Slots]:
        return self._started

    def release(self) -> None:
        """Free what came, at once: it is much, and nobody else waits for it."""
        with self._ledger._telling:
            slot, self.slot = self.slot, None
            if slot is not None:
                ffi.release(slot)

    @property
    def over(self) -> bool:
        """Whether somebody has the outcomes."""
        return self._given

    def leave(self) -> None:
        """The caller goes on without it. Doing it again does nothing."""
        # Without a record it was not started.
        if self.count:
            if not self._left:
                self._ledger.look_after(self)
            self._left = True


class Watcher:
    """Learns of answers for which somebody has a callback, although nobody waits for them: in a thread."""

    # As long as the oldest one has no answer, it looks at the others this often.
    MS = 20

    def __init__(self) -> None:
        # None: the program ends.
        self._new: SimpleQueue[Optional[Receipt]] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: Optional[threading.Thread] = None

    def watch(self, receipt: Receipt) -> None:
        """Look after one."""
        self._new.put(receipt)
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    thread = threading.Thread(target=self._run, name="fluvio_cffi callbacks", daemon=True)
                    thread.start()
                    self._thread = thread

    def finish(self, seconds: float) -> None:
        """The program ends: wait until the callbacks of all answers that are there were called."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            self._new.put(None)
            thread.join(seconds)

    def _run(self) -> None:
        watched: deque[Any] = deque()
        out = ffi.new("fluvio_completion *")
        while True:
            try:
                while True:
                    watched.append(self._new.get(block=not watched))
                    if watched[-1] is None:
                        watched.pop()
                        for receipt in watched:
                            _settled(receipt)
                        return
            except Empty:
                pass
            try:
                answered = look(watched[0].slot, self.MS, out)
            except Exception:
                # Nothing can be learnt of this one.
                _log.exception("a delivery cannot be waited for")
                watched.popleft()
                continue
            if answered:
                _settled(watched.popleft())
            else:
                watched = deque(receipt for receipt in watched if not _settled(receipt))


def _settled(receipt: Receipt) -> bool:
    """Whether its answer is there: asking calls its callbacks. What one raises is logged, also SystemExit."""
    try:
        return receipt.done()
    except BaseException:
        _log.exception("a callback of a delivery raised")
        return True


_watcher = Watcher()
_exit.last.append(lambda seconds: _watcher.finish(seconds))


def _after_fork() -> None:
    global _watcher
    _watcher = Watcher()


_platform.after_fork_in_child(_after_fork)
