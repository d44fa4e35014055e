"""Takes batches from the library: waits for readiness, then takes. A cancelled wait has taken nothing.

One task at a time. Every reader adds itself to a list, and the first one in it reads. Adding and removing
are one step each, so that this holds among threads too.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar

from .._completions import completed
from .._library import CANCELLED, EMPTY, END, OK, ffi, lib, take_error
from .._port import Pending, Port, checkpoint
from ..errors import BusyError, ClosedError
from .closing import Closing

if TYPE_CHECKING:
    from .._cursor import Cursor

__all__ = ["Fetcher"]

T = TypeVar("T")


class Fetcher:
    """The library's consumer, for one reader at a time."""

    def __init__(self, port: Port, handle: Any, topic: str) -> None:
        self._port = port
        self._handle = handle
        self._topic = topic
        self._readers: list[object] = []
        self._ready: Optional[Pending] = None
        self._closing = Closing(port, lib.fluvio_consumer_close)
        self._error = ffi.new("fluvio_error **")
        self.pacer = port.pacer()

    @property
    def closed(self) -> bool:
        """Whether nothing can be taken any more."""
        return self._handle is None

    @property
    def closing(self) -> bool:
        """Whether there is an end to be waited for: it is open, or somebody is closing it."""
        return self._handle is not None or self._closing.under_way

    @property
    def abandoned(self) -> bool:
        """Whether it is open and this process can still close it."""
        return self._handle is not None and not self._port.forked

    async def alone(self, read: Callable[[], Awaitable[T]]) -> T:
        """What `read` gives, as the only reader; or raise."""
        reader = object()
        try:
            try:
                self._enter(reader)
                return await read()
            finally:
                self._leave(reader)
        finally:
            # Again: a KeyboardInterrupt may strike in the first one, before it has done anything.
            self._leave(reader)

    def _enter(self, reader: object) -> None:
        if self._handle is None:
            raise self.refusal()
        self._port.check()
        readers = self._readers
        readers.append(reader)
        if readers[0] is not reader:
            raise BusyError(
                f"another task is already reading from the consumer of topic {self._topic!r}",
                topic=self._topic,
            )

    def refusal(self) -> ClosedError:
        """The error for reading from what is closed."""
        return ClosedError(f"the consumer of topic {self._topic!r} is closed", topic=self._topic)

    def _leave(self, reader: object) -> None:
        if reader in self._readers:
            self._readers.remove(reader)

    async def fetch(self, cursor: Cursor) -> bool:
        """Have the next batch put into `cursor`, which is empty. False: there will be no more."""
        handle = self._handle
        if handle is None:
            return False
        waited = False
        out, view = cursor.place()
        while True:
            status = lib.fluvio_consumer_take(handle, out, view, self._error)
            if status == OK:
                break
            if status == END:
                if not waited:
                    await checkpoint()
                return False
            if status != EMPTY:
                raise take_error(self._error[0])
            try:
                await self._wait(handle)
            except ClosedError:
                if self._handle is not None:
                    raise
            waited = True
            if self._handle is None:
                # Closed by another task while this one was inside.
                return False
        if waited:
            self.pacer.restart()
        else:
            await self.pacer.pause()
        return True

    async def _wait(self, handle: Any) -> None:
        # One operation, kept over cancellations: readiness takes nothing, so it harms nobody to stay pending.
        pending = self._ready
        if pending is None or pending.completion is not None:
            # Known before it is started: there may be only one, whatever strikes this task.
            self._ready = pending = Pending()
            try:
                self._port.start(pending, lib.fluvio_consumer_ready, handle)
            except BaseException:
                if not pending.under_way:
                    self._ready = None
                raise
        await self._port.park(pending)
        completion = pending.claim()
        self._ready = None
        if completion is not None and self._handle is not None:
            completed(completion)

    def begin_close(self) -> None:
        """Have the library close it: nothing can be taken any more, and a reader that waits sees the end."""
        handle = self._handle
        if handle is None:
            return
        self._port.check()
        # Let go only behind this: what strikes in between leaves something that can be closed again.
        self._closing.begin(handle)
        self._handle = None

    async def end_close(self) -> None:
        """Wait until it is closed."""
        completion = await self._closing.end()
        if completion is not None and completion[1] != CANCELLED:
            completed(completion)

    def drop(self) -> None:
        """Its client is closed."""
        self._handle = None
        self._closing.forget()
