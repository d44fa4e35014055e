"""The port of an event loop: how a completion wakes a task. One per running loop, found through it.

A port lives as long as clients of its loop do (`acquire`, `release`). The backends are small: see
_asyncio.py and _trio.py. trio is never imported here unless the program did that before.
"""

from __future__ import annotations

import abc
import asyncio
import sys
from threading import get_ident
from typing import TYPE_CHECKING, Any, Callable, Optional

from ._completions import Completions, Pending
from ._receipts import Ledger, Left, Receipt, Slip

if TYPE_CHECKING:
    from ._library import Completion

__all__ = ["Ledger", "Left", "Pacer", "Pending", "Port", "Receipt", "Slip", "checkpoint", "current_port"]

# How long a task may iterate over records that are already there before others get their turn.
TURN_SECONDS = 0.001


class Pacer(abc.ABC):
    """Says when an iteration that needs no waiting must let the loop run: cancelled, or its turn is over."""

    __slots__ = ()

    @abc.abstractmethod
    def due(self) -> bool:
        """Whether `pause` must be awaited before going on. Cheap: asked for each record."""

    @abc.abstractmethod
    async def pause(self) -> None:
        """A checkpoint; raises if this is the wrong loop. A new turn starts."""

    @abc.abstractmethod
    def restart(self) -> None:
        """A checkpoint has just happened: a new turn starts."""

    @abc.abstractmethod
    def reset(self) -> None:
        """Another iteration begins: a pause is due."""


class Port(Completions, abc.ABC):
    """Completions that wake tasks of one event loop. All of it is used on the loop's thread only."""

    def __init__(self) -> None:
        super().__init__()
        self._users = 0

    @property
    def attached(self) -> bool:
        """Whether waiting is still possible; if not, closing means freeing."""
        return not self._stopped

    def acquire(self) -> None:
        """One more client."""
        self._users += 1

    def release(self) -> None:
        """One client less; the last one closes the port."""
        self._users -= 1
        if self._users == 0 and not self._stopped:
            self._detach()
            self._shut()

    @abc.abstractmethod
    def check(self) -> None:
        """Raise if the running loop is not this port's, or the port is closed."""

    def enter(self) -> None:
        """The loop may have moved to another thread; whoever is in another loop is refused."""
        self.check()
        self._thread = get_ident()

    @abc.abstractmethod
    async def call(self, function: Callable[..., int], handle: Any, *arguments: Any) -> Optional[Completion]:
        """Start an operation and wait for it; None: there was no room and it did not start.

        Cancelled while it waits, the operation is cancelled in the library and what it brings is freed.
        """

    @abc.abstractmethod
    async def run(self, receipt: Receipt, function: Callable[..., int], handle: Any, *arguments: Any) -> bool:
        """Start an operation and wait for it; False: there was no room and it did not start.

        Cancelled while it waits, the operation goes on, and the receipt is left to its ledger.
        """

    @abc.abstractmethod
    def soon(self, function: Callable[..., object], *arguments: object) -> None:
        """Have the loop call a function, which does not raise, in its next turn."""

    @abc.abstractmethod
    async def park(self, pending: Pending) -> None:
        """Wait until `pending` is done. Cancelling this does not touch the operation."""

    @abc.abstractmethod
    async def checkpoint(self) -> None:
        """Let the loop run; raises if cancelled."""

    @abc.abstractmethod
    def pacer(self) -> Pacer:
        """A new pacer."""

    @abc.abstractmethod
    def release_from_finalizer(self) -> None:
        """`release` from any thread at any time."""

    @abc.abstractmethod
    def _detach(self) -> None:
        """Take the descriptor out of the loop."""


def current_port() -> Port:
    """The port of the running event loop; made if this is the first use there."""
    trio = sys.modules.get("trio")
    if trio is not None:
        from ._trio import current_trio_port, in_trio_task

        if in_trio_task():
            return current_trio_port()
    from ._asyncio import current_asyncio_port

    return current_asyncio_port()


async def checkpoint() -> None:
    """Let whichever loop is running run; raises if cancelled."""
    trio = sys.modules.get("trio")
    if trio is not None:
        from ._trio import in_trio_task

        if in_trio_task():
            await trio.lowlevel.checkpoint()
            return
    await asyncio.sleep(0)
