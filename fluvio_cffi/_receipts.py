"""Answers of the server to records, until somebody receives them.

A failure is in the producer's `Ledger` from the moment it is known, and leaves it when a caller gets hold of
the error: a wait that was cancelled, or an answer that was dropped, is no receipt. What is left when the
producer is closed is raised there.

Ctrl-C may strike between any two lines. So a failure is taken out of the ledger only behind the line that
raises it, and put there before it is dropped elsewhere: rather told twice than not at all.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any, Callable, Optional

from ._completions import Pending
from ._deliveries import Ack, Deliveries
from ._library import ERROR, OK, Completion, discard, failure, ffi, read_failure
from .errors import DeliveryError, FluvioError


class Ledger:
    """What a producer owes its callers: answers that are to come, and failures that nobody has received."""

    # As many errors are kept whole; the others are counted.
    KEPT = 16
    # The numbers of those that are only counted: they failed by themselves, or because closing gave them up.
    OTHER, OTHER_GIVEN_UP = -1, -2

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.pending = 0
        self._numbers = itertools.count()
        self._failures: dict[int, FluvioError] = {}
        self._others = {self.OTHER: 0, self.OTHER_GIVEN_UP: 0}
        # Of those that are only counted the last error.
        self._examples: dict[int, FluvioError] = {}
        # Those that failed because the producer's close gave them up; its own error tells of them.
        self._given_up: set[int] = set()

    def add(self, error: FluvioError) -> int:
        """A record failed; the number under which it can be removed."""
        given_up = "undelivered" in error.detail
        if len(self._failures) >= self.KEPT:
            other = self.OTHER_GIVEN_UP if given_up else self.OTHER
            self._examples[other] = error
            self._others[other] += 1
            return other
        number = next(self._numbers)
        self._failures[number] = error
        if given_up:
            self._given_up.add(number)
        return number

    def remove(self, number: int) -> None:
        """Somebody has received the error."""
        # Nothing behind what removes it.
        if number in self._others:
            self._others[number] = max(self._others[number] - 1, 0)
        else:
            self._given_up.discard(number)
            self._failures.pop(number, None)

    def leave(self, slips: Iterable[Any]) -> None:
        """A `send_many` goes without its outcomes: failures that it had, and what is still to come."""
        left = list(slips)
        try:
            self._leave(left)
        finally:
            # Again: Ctrl-C may strike in the first one.
            self._leave(left)

    def _leave(self, slips: list[Any]) -> None:
        for slip in slips:
            slip.leave()

    @property
    def owes(self) -> bool:
        """Whether there is something to be told, or may be later."""
        return bool(self.pending or self.unseen()[0])

    def unseen(self) -> tuple[int, Optional[FluvioError]]:
        """How many records failed without anybody having received their errors, and the first error."""
        known = list(self._failures.values())
        known += [self._examples[other] for other, count in self._others.items() if count]
        return len(self._failures) + sum(self._others.values()), next(iter(known), None)

    def failure(self, told: bool) -> Optional[DeliveryError]:
        """The error for what nobody has received, which has it now; `told`: not of what closing gave up."""
        known = list(self._failures.items())
        errors = [error._fresh() for number, error in known if not (told and number in self._given_up)]
        others = [self.OTHER] if told else [self.OTHER, self.OTHER_GIVEN_UP]
        failed = len(errors) + sum(self._others[other] for other in others)
        result = None
        if failed:
            # All that were kept whole may have been received since.
            errors = errors or [self._examples[other]._fresh() for other in others if self._others[other]]
            result = DeliveryError(
                f"{failed} {'record' if failed == 1 else 'records'} for topic {self.topic!r} failed, and "
                f"nobody received an error; the first is: {errors[0]}",
                failed=failed,
                errors=errors,
            )
        self._others = dict.fromkeys(self._others, 0)
        for number, _ in known:
            self.remove(number)
        return result


class Left:
    """The ledgers of producers that were collected before they were closed: their client tells what failed.

    Only those that owe something are kept. Any thread may add at any time: this is done by finalisers.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._ledgers: dict[int, Ledger] = {}
        self._enough = 16

    def add(self, ledger: Ledger) -> None:
        """One more."""
        self._ledgers[next(self._numbers)] = ledger
        if len(self._ledgers) > self._enough:
            for number, known in list(self._ledgers.items()):
                if not known.owes:
                    self._ledgers.pop(number, None)
            # Looked through again when there are twice as many: each is looked at a few times in all.
            self._enough = 2 * len(self._ledgers) + 16

    def ledgers(self) -> list[Any]:
        """All of them, in the order in which they came."""
        return list(self._ledgers.values())


class Answer:
    """The answer to one record: what the asynchronous client and the twin have in common."""

    __slots__ = ()

    completion: Any
    _ledger: Any
    _error: Optional[FluvioError]
    _callbacks: list[Callable[[], Any]]

    def __repr__(self) -> str:
        if self.completion is None:
            return "pending"
        return f"failed: {self._error}" if self._error is not None else repr(self._ack())

    def done(self) -> bool:
        """Whether the answer is there."""
        return self.completion is not None

    def call_back(self, callback: Callable[[], Any]) -> None:
        """Have `callback` called, which must not raise, once the answer is there: at once if it is."""
        self._callbacks.append(callback)
        if self.completion is not None:
            self._call_back()

    def forget(self, matches: Callable[[Any], bool]) -> int:
        """Call those no more; how many they were."""
        callbacks = self._callbacks
        kept = [callback for callback in callbacks if not matches(callback)]
        count = len(callbacks) - len(kept)
        callbacks[:] = kept
        return count

    def _call_back(self) -> None:
        # Popped one by one: in the twin, another thread may be at it.
        while self._callbacks:
            try:
                callback = self._callbacks.pop(0)
            except IndexError:
                return
            try:
                callback()
            except BaseException:
                # It is for whoever runs this; the other callbacks are called all the same.
                self._call_back()
                raise

    def _failed(self, completion: Completion) -> FluvioError:
        error = failure(completion)
        error.topic = error.topic or self._ledger.topic
        return error

    def _received(self) -> None:
        raise NotImplementedError

    def error(self) -> Optional[FluvioError]:
        """The error of an answer that is there, if it is one. Whoever asks has received it."""
        if self._error is None:
            return None
        error = self._error._fresh()
        with _Received(self):
            return error

    def take(self) -> Ack:
        """The answer that is there; raises its error."""
        if self._error is not None:
            try:
                raise self._error._fresh()
            except FluvioError:
                # It is on its way now; not where Ctrl-C came first.
                self._received()
                raise
        completion: Any = self.completion
        return Ack(completion[5], completion[4])

    def _ack(self) -> Ack:
        completion = self.completion
        assert completion is not None
        return Ack(completion[5], completion[4])


class _Received:
    """A block that hands over the error of a record: at its end it is received, if nothing struck before."""

    __slots__ = ("_answer",)

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def __enter__(self) -> None:
        return None

    def __exit__(self, exc_type: object, *rest: object) -> None:
        if exc_type is None:
            self._answer._received()


FAILED = (0, ERROR, 0, 0, -1, 0, 0)


class Receipt(Answer, Pending):
    """The answer to one record."""

    __slots__ = ("_callbacks", "_error", "_ledger", "_left", "_number")

    def __init__(self, ledger: Ledger) -> None:
        # What Pending does, without the call: there is one for each record.
        self.completion = None
        self.parked = []
        self._ledger = ledger
        self._error: Optional[FluvioError] = None
        self._number: Optional[int] = None
        self._callbacks: list[Callable[[], Any]] = []
        self._left = False

    def leave(self) -> None:
        """The caller goes on without the answer."""
        if self.completion is None:
            self._left = True
            self._ledger.pending += 1

    def set_result(self, completion: Completion) -> None:
        """Called once by the port: the server has answered."""
        if self._left:
            self._ledger.pending -= 1
        if completion[1] != OK:
            self._error = error = self._failed(completion)
            self._number = self._ledger.add(error)
            completion = FAILED
        self.completion = completion
        for waiter in self.parked:
            if not waiter.done():
                waiter.set_result(completion)
        if self._callbacks:
            self._call_back()

    def _received(self) -> None:
        number, self._number = self._number, None
        if number is not None:
            self._ledger.remove(number)


class Outcomes:
    """The answer to a slice of a `send_many`: what the asynchronous client and the twin have in common."""

    __slots__ = ()

    completion: Any
    # How many records the library has accepted: it says so here, in the step in which it accepts them.
    accepted: Any
    _ledger: Any

    @property
    def count(self) -> int:
        """How many records it is about."""
        return int(self.accepted[0])

    def read(self, deliveries: Deliveries) -> bool:
        """Add the outcomes, which are there and stay here; whether some failed."""
        completion = self.completion
        assert completion is not None
        before = deliveries.failed
        if completion[1] == OK:
            deliveries._extend(completion[3])
        else:
            error = read_failure(completion)
            error.topic = error.topic or self._ledger.topic
            deliveries._fail(self.count, error)
        return deliveries.failed > before

    def drop(self) -> None:
        """Free the outcomes, which somebody has."""
        completion, self.completion = self.completion, None
        if completion is not None:
            discard(completion)

    def enter(self) -> None:
        """Nobody asks for the outcomes, which are there: failures are for the ledger."""
        try:
            self._enter()
        finally:
            # Again: Ctrl-C may strike in the first one.
            if self.completion is not None:
                self._enter()

    def _enter(self) -> None:
        deliveries = Deliveries()
        self.read(deliveries)
        for error in deliveries._failures.values():
            self._ledger.add(error)
        self.drop()


class Slip(Outcomes, Pending):
    """The answer to a slice of a `send_many`."""

    __slots__ = ("_ledger", "_left", "accepted")

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.accepted = ffi.new("size_t *")
        self._ledger = ledger
        self._left = False

    def leave(self) -> None:
        """The caller goes on without it: failures are for the ledger. Doing it again does nothing."""
        if self._left:
            return
        if self.completion is None:
            self._ledger.pending += self.count
        else:
            self.enter()
        self._left = True

    def set_result(self, completion: Completion) -> None:
        """Called once by the port: the server has answered."""
        super().set_result(completion)
        if self._left:
            self._ledger.pending -= self.count
            self.enter()
