"""Reading records: wait for readiness, then take. A cancelled wait has taken nothing and loses nothing.

A batch becomes the consumer's current one in the same step in which it is taken, so whatever happens to the
task afterwards, the next call goes on with it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from operator import length_hint
from typing import TYPE_CHECKING, Any, Optional

import anyio

from .._completions import Pending, completed
from .._library import EMPTY, END, OK, ffi, lib, take_error
from .._port import Port, checkpoint
from .._records import TURN_RECORDS, Batch, Record, take
from ..errors import BusyError, ClosedError

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["BatchIterator", "Consumer"]


class Consumer:
    """Reads the records of one topic: iterate over it. One task at a time.

    Within a partition records come in the order of their offsets; partitions take turns by batch. An error of
    a partition is raised once, after that partition's data; iterating again goes on with the others.

    Attributes:
        topic: The topic.
    """

    def __init__(self, port: Port, handle: Any, topic: str) -> None:
        self._port = port
        self._handle = handle
        self._pacer = port.pacer()
        self._due = self._pacer.due
        self._busy = False
        self._ready: Optional[Pending] = None
        self._out = ffi.new("fluvio_batch **")
        self._error = ffi.new("fluvio_error **")
        # The current batch; records of it up to `_position` went into `_records`, which may have some left.
        self._batch: Optional[Batch] = None
        self._position = 0
        self._records: Iterator[Record] = iter(())
        self.topic = topic

    def __repr__(self) -> str:
        return f"<Consumer topic={self.topic!r}{'' if self._handle is not None else ', closed'}>"

    def __aiter__(self) -> Consumer:
        self._pacer.reset()
        return self

    async def __anext__(self) -> Record:
        if self._due():
            await self._pause()
        for record in self._records:
            return record
        return await self._next_record()

    async def receive(self) -> Record:
        """The next record.

        Raises:
            anyio.EndOfStream: There will be no more.
        """
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            raise anyio.EndOfStream from None

    async def receive_batch(self) -> Batch:
        """The rest of the current batch, or the next batch.

        Raises:
            anyio.EndOfStream: There will be no more.
        """
        try:
            return await self._next_batch()
        except StopAsyncIteration:
            raise anyio.EndOfStream from None

    def batches(self) -> BatchIterator:
        """Iterate over batches. The rest of a batch whose records are being iterated over comes first."""
        return BatchIterator(self)

    def _enter(self) -> Any:
        handle = self._handle
        if handle is None:
            raise ClosedError(f"the consumer of topic {self.topic!r} is closed")
        self._port.check()
        if self._busy:
            raise BusyError(f"another task is already reading from the consumer of topic {self.topic!r}")
        return handle

    async def _pause(self) -> None:
        self._enter()
        # A second task that comes meanwhile finds no records and learns that it is the second.
        records, self._records = self._records, iter(())
        self._busy = True
        try:
            await self._pacer.pause()
        finally:
            self._busy = False
            if self._handle is not None:
                self._records = records

    async def _next_record(self) -> Record:
        self._enter()
        while True:
            batch = self._batch
            if batch is None:
                if self._handle is None:
                    # Closed by another task while this one was inside.
                    raise StopAsyncIteration
                await self._fetch()
                continue
            start = self._position
            if start == batch._stop:
                # No one else has seen it.
                self._batch = None
                batch._free()
                continue
            if start > batch._start:
                await self._pause()
                if self._batch is not batch or self._position != start:
                    continue
            self._position = stop = min(start + TURN_RECORDS, batch._stop)
            self._records = records = iter(list(batch._some(start, stop)))
            for record in records:
                return record

    async def _next_batch(self) -> Batch:
        self._enter()
        if self._batch is not None and self._left():
            await self._pause()
        while True:
            batch = self._batch
            if batch is None:
                if self._handle is None:
                    # Closed by another task while this one was inside.
                    raise StopAsyncIteration
                await self._fetch()
                continue
            left = self._left()
            self._batch = None
            self._records = iter(())
            if left == len(batch):
                return batch
            if left:
                return batch._rest(batch._stop - left)
            batch._free()

    def _left(self) -> int:
        batch = self._batch
        return 0 if batch is None else batch._stop - self._position + length_hint(self._records)

    async def _fetch(self) -> None:
        """Make the next batch the current one."""
        handle = self._enter()
        self._busy = True
        waited = False
        view = ffi.new("fluvio_batch_view *")
        try:
            while True:
                status = lib.fluvio_consumer_take(handle, self._out, view, self._error)
                if status == OK:
                    self._batch = batch = take(self.topic, self._out[0], view)
                    self._position = batch._start
                    break
                if status == END:
                    if not waited:
                        await checkpoint()
                    raise StopAsyncIteration
                if status != EMPTY:
                    raise take_error(self._error[0])
                await self._wait(handle)
                waited = True
                if self._handle is None:
                    raise StopAsyncIteration
            if waited:
                self._pacer.restart()
            else:
                await self._pacer.pause()
        finally:
            self._busy = False

    async def _wait(self, handle: Any) -> None:
        # One operation, kept over cancellations: readiness takes nothing, so it harms nobody to stay pending.
        pending = self._ready
        if pending is None or pending.completion is not None:
            pending = Pending()
            self._port.start(pending, lib.fluvio_consumer_ready, handle)
            self._ready = pending
        await self._port.park(pending)
        completion, pending.completion = pending.completion, None
        self._ready = None
        if completion is not None and self._handle is not None:
            completed(completion)

    async def aclose(self) -> None:
        """Close it; a task that waits for records sees the end. Doing it again does nothing."""
        handle = self._handle
        if handle is None:
            await checkpoint()
            return
        self._port.check()
        self._drop()
        if self._port.attached:
            await self._port.call(lib.fluvio_consumer_close, handle)

    def _drop(self) -> None:
        """Nothing can be read any more."""
        self._handle = None
        self._batch = None
        self._records = iter(())

    async def __aenter__(self) -> Consumer:
        return self

    async def __aexit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is None or self._port.forked:
            return
        left = self._left()
        lost = f"; {left} records of its current batch were not read" if left else ""
        warnings.warn(
            f"unclosed {self!r}: leave its block or close it{lost}",
            ResourceWarning,
            stacklevel=2,
            source=self,
        )


class BatchIterator:
    """What `Consumer.batches` gives."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    def __aiter__(self) -> BatchIterator:
        return self

    async def __anext__(self) -> Batch:
        return await self._consumer._next_batch()
