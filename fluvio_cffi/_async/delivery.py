"""A record on its way: what `Producer.submit` gives."""

from __future__ import annotations

from collections.abc import Generator  # async only
from typing import Any, Optional

from .._completions import Pending
from .._deliveries import Ack, Ledger
from .._library import OK, Completion, failure
from .._port import Pacer, Port, checkpoint
from ..errors import FluvioError

__all__ = ["Delivery"]


class Delivery(Pending):
    """The fate of one submitted record: wait for the `Ack` or the error, as often as you like."""

    __slots__ = ("_counted", "_error", "_ledger", "_pacer", "_port")

    def __init__(self, port: Port, ledger: Ledger, pacer: Pacer) -> None:
        super().__init__()
        self._port = port
        self._ledger = ledger
        self._pacer = pacer
        self._error: Optional[FluvioError] = None
        self._counted = False

    def __repr__(self) -> str:
        if self.completion is None:
            return "<Delivery pending>"
        return f"<Delivery failed: {self._error}>" if self._error else f"<Delivery {self._ack()}>"

    def set_result(self, completion: Completion) -> None:
        """Called by the port: the server has answered."""
        self._ledger.pending -= 1
        if completion[1] != OK:
            self._error = error = failure(completion)
            completion = (0, completion[1], 0, 0, -1, 0, 0)
            if not self.parked:
                self._counted = True
                self._ledger.add(self, error)
        super().set_result(completion)

    async def wait(self) -> Ack:
        """Wait for the server's answer. Cancelling this takes nothing back.

        Where the answer is there already, others get their turn once a millisecond, as with `submit`.

        Raises:
            FluvioError: The record was not delivered; raised again each time.
        """
        if self.completion is None:
            await self._port.park(self)
        elif self._pacer.due():
            # Not the pacer's own pause: the client may have been closed since.
            await checkpoint()
            self._pacer.restart()
        error = self._error
        if error is not None:
            if self._counted:
                self._counted = False
                self._ledger.remove(self)
            raise error
        return self._ack()

    def __await__(self) -> Generator[Any, Any, Ack]:  # async only
        return self.wait().__await__()

    def _ack(self) -> Ack:
        completion = self.completion
        assert completion is not None
        return Ack(completion[5], completion[4])
