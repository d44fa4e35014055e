"""A record on its way: what `Producer.submit` gives."""

from __future__ import annotations

from .._bound import Bound
from .._deliveries import Ack
from .._faces import AwaitedFace
from .._port import Pacer, Port, Receipt, checkpoint
from ..errors import FluvioError

__all__ = ["Delivery"]


class Delivery(Bound, AwaitedFace):
    """The fate of one submitted record: wait for the `Ack` or the error, as often as you like.

    An error that nobody gets hold of this way is raised when the producer is closed.
    """

    _instead = "wait for it, and hand on the Ack that it gives"
    __slots__ = ("_pacer",)

    def __init__(self, port: Port, receipt: Receipt, pacer: Pacer) -> None:
        self._port = port
        self._receipt = receipt
        self._pacer = pacer

    def _about(self, error: FluvioError) -> None:
        """Say what a call that is refused is about: not what became of the record, which nobody knows yet."""
        error.topic = error.topic or self._receipt._ledger.topic

    async def wait(self) -> Ack:
        """Wait for the server's answer. Cancelling this takes nothing back.

        Where the answer is there already, others get their turn once a millisecond, as with `submit`.

        Raises:
            FluvioError: The record was not delivered; a new object each time.
        """
        await self._answered()
        return self._receipt.take()

    async def _answered(self) -> None:
        receipt = self._receipt
        if receipt.completion is None:
            await self._port.park(receipt)
        elif self._pacer.due():
            # Not the pacer's own pause: the client may have been closed since.
            await checkpoint()
            self._pacer.restart()
