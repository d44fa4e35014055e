"""The face of a `Delivery`: that of a future of asyncio's kind or, in the twin, of concurrent.futures'.

Both rest on `wait`, which the class that wears the face has, and on its receipt.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Generator
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar

from ._limits import limit

if TYPE_CHECKING:
    from ._arguments import Duration
    from ._deliveries import Ack
    from ._receipts import Answer
    from .errors import FluvioError

D = TypeVar("D", bound="_Face")

_log = logging.getLogger("fluvio_cffi")


class _Face:
    __slots__ = ("__weakref__", "_port", "_receipt")

    _port: Any
    _receipt: Answer

    def __repr__(self) -> str:
        return f"<Delivery {self._receipt!r}>"

    def done(self) -> bool:
        """Whether the server's answer is there."""
        return self._receipt.done()

    def cancelled(self) -> bool:
        """False: what was handed over cannot be taken back."""
        return False

    def remove_done_callback(self, callback: Callable[..., object]) -> int:
        """Call it no more; how often it had been added."""
        return self._receipt.forget(
            lambda added: isinstance(added, partial) and bool(added.args) and added.args[0] == callback
        )


class AwaitedFace(_Face):
    """What may be awaited; asyncio.gather, wait, wait_for, shield, as_completed and ensure_future take it."""

    __slots__ = ()

    async def wait(self) -> Ack:
        """Wait for the answer."""
        raise NotImplementedError

    def __await__(self) -> Generator[Any, Any, Ack]:
        waiting: Coroutine[Any, Any, Ack] = self.wait()
        return waiting.__await__()

    def result(self) -> Ack:
        """The answer, which is there.

        Raises:
            FluvioError: The record was not delivered; a new object each time.
            asyncio.InvalidStateError: There is no answer yet.
        """
        self._check()
        return self._receipt.take()

    def exception(self) -> Optional[FluvioError]:
        """The error of the record; None if it was delivered.

        Raises:
            asyncio.InvalidStateError: There is no answer yet.
        """
        self._check()
        return self._receipt.error()

    def _check(self) -> None:
        if not self.done():
            raise asyncio.InvalidStateError("the server has not answered yet: await the delivery")

    def add_done_callback(
        self: D, callback: Callable[[D], object], *, context: Optional[Context] = None
    ) -> None:
        """Have `callback(delivery)` called by the event loop once the answer is there.

        Args:
            callback: What it raises is logged.
            context: The context variables that it sees; None for a copy of those that are current here.

        Raises:
            ForkedError: This is a forked child, and the delivery its parent's.
        """
        self._port.check_process()
        self._receipt.call_back(partial(_soon, callback, self, context or copy_context()))


class WaitedFace(_Face):
    """What is waited for with a time limit."""

    __slots__ = ()

    def _answered(self) -> None:
        """Wait until the answer is there."""
        raise NotImplementedError

    def _about(self, error: FluvioError) -> None:
        """Say of a refused call what it is about."""
        raise NotImplementedError

    def wait(self, *, timeout: Optional[Duration] = None) -> Ack:
        """Wait for the answer."""
        raise NotImplementedError

    def result(self, timeout: Optional[Duration] = None) -> Ack:
        """Wait for the server's answer.

        Raises:
            FluvioError: The record was not delivered; a new object each time.
            FluvioTimeoutError: It is not known within `timeout`.
        """
        return self.wait(timeout=timeout)

    def exception(self, timeout: Optional[Duration] = None) -> Optional[FluvioError]:
        """Wait for the server's answer: the error of the record, None if it was delivered.

        Raises:
            FluvioTimeoutError: It is not known within `timeout`.
        """
        # Waited for, not taken: that would be a receipt of the error before anybody has it.
        with limit(timeout, self._about):
            self._answered()
        return self._receipt.error()

    def cancel(self) -> bool:
        """False: what was handed over cannot be taken back."""
        return False

    def running(self) -> bool:
        """Whether the server's answer is still to come."""
        return not self.done()

    def add_done_callback(self: D, callback: Callable[[D], object]) -> None:
        """Have `callback(delivery)` called once the answer is there, by who asks first or a thread for it.

        Those of answers that are there are called before the program ends.

        Raises:
            ForkedError: This is a forked child, and the delivery its parent's.
        """
        self._port.check_process()
        self._receipt.call_back(partial(called, callback, self))


def _soon(callback: Callable[[Any], object], delivery: Any, context: Context) -> None:
    delivery._port.soon(context.run, called, callback, delivery)


def called(callback: Callable[[Any], object], delivery: object) -> None:
    """Call it; what it raises is logged, as there is nobody to whom it could be raised."""
    try:
        callback(delivery)
    except (Exception, asyncio.CancelledError):
        _log.exception("a callback of %r raised", delivery)
