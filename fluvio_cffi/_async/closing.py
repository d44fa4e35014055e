"""The library's end of a client, producer or consumer: begun by whoever closes it, waited for by all who do.

* It may be begun several times: by threads at the same time, by a signal handler, again after an interrupt.
  Each is a whole close of the library, and none is seen by others before it was started.
* What it found is told once, to the first who asks when it is there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Optional

from .._library import OK
from .._port import Pending, Port
from ..errors import ClosedError

if TYPE_CHECKING:
    from .._library import Completion

__all__ = ["Closing"]


class Closing:
    """One of these for each thing that can be closed.

    Attributes:
        failed: Whether the library told an error at its end, whoever has received that.
    """

    __slots__ = ("_begun", "_function", "_over", "_port", "failed")

    def __init__(self, port: Port, function: Callable[..., int]) -> None:
        self._port = port
        self._function = function
        # All wait for the first one; what came of it is that of the others.
        self._begun: list[Pending] = []
        self._over = False
        self.failed = False

    @property
    def under_way(self) -> bool:
        """Whether it was begun and what it finds was not told."""
        return bool(self._begun) and not self._over

    def begin(self, handle: Any) -> None:
        """Have the library close it. Without a port there is nothing to wait for: closing means freeing."""
        if not self._port.attached:
            return
        pending = Pending()
        try:
            self._port.start(pending, self._function, handle)
        except ClosedError:
            # Another thread has closed the client in between, and with it everything of it.
            return
        self._begun.append(pending)
        if self._over:
            self.forget()

    async def end(self) -> Optional[Completion]:
        """Wait until it is closed; what came of it, for the first who asks."""
        pending = next(iter(self._begun), None)
        if pending is None:
            return None
        if not pending.done():
            await self._port.checkpoint()
            # Whoever comes first has it; the client may be closed then, and nothing be left to wait in.
            if not (self._over or pending.done()):
                await self._port.park(pending)
        completion = pending.completion
        if completion is not None and completion[1] != OK:
            self.failed = True
        completion = pending.claim()
        self.forget()
        return completion

    def forget(self) -> None:
        """It is over, or its client is closed: nobody has to wait any more, and nothing is kept."""
        self._over = True
        self._begun.clear()
