"""Reading records: a fetcher that takes batches, and a cursor in the one that was taken last.

The library fills the cursor itself, so a batch is the consumer's current one from the moment it is taken:
whatever happens to the task afterwards, the next call goes on with it.
"""

from __future__ import annotations

import warnings
from typing import Any

import anyio

from .._bound import Bound
from .._cursor import Cursor
from .._port import Port, checkpoint
from .._records import Batch, Record
from ..errors import ClosedError, FluvioError
from .closable import Closable
from .fetcher import Fetcher

__all__ = ["BatchIterator", "Consumer"]


class Consumer(Closable):
    """Reads the records of one topic: iterate over it. One task at a time.

    Within a partition records come in the order of their offsets; partitions take turns by batch. An error of
    a partition is raised once, after that partition's data; iterating again goes on with the others.

    Attributes:
        topic: The topic.
    """

    _instead = "ask a client for another one"

    def __init__(self, client: Any, port: Port, handle: Any, topic: str) -> None:
        # Without it the connection would end.
        self._client = client
        self._fetcher = Fetcher(port, handle, topic)
        self._pacer = self._fetcher.pacer
        self._due = self._pacer.due
        self._cursor = Cursor(topic)
        self.topic = topic

    def __repr__(self) -> str:
        return f"<Consumer topic={self.topic!r}{', closed' if self._fetcher.closed else ''}>"

    def __aiter__(self) -> Consumer:
        if self._fetcher.closed:
            raise self._fetcher.refusal()
        self._pacer.reset()
        return self

    async def __anext__(self) -> Record:
        try:
            if self._due():
                await self._pause()
            for record in self._cursor.records:
                return record
            return await self._fetcher.alone(self._take_record)
        except ClosedError:
            if not self._fetcher.closed:
                raise
        # An iteration that is under way sees the end, wherever it was closed.
        await checkpoint()
        raise StopAsyncIteration

    async def receive(self) -> Record:
        """The next record.

        Raises:
            anyio.EndOfStream: There will be no more.
            FluvioError: A partition failed; the next call goes on with the others.
            BusyError: Another task is reading.
            ClosedError: It, or its client, is closed.
        """
        if self._fetcher.closed:
            raise self._fetcher.refusal()
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            raise anyio.EndOfStream from None

    async def receive_batch(self) -> Batch:
        """The rest of the current batch, or the next batch.

        Raises:
            anyio.EndOfStream: There will be no more.
            FluvioError: A partition failed; the next call goes on with the others.
            BusyError: Another task is reading.
            ClosedError: It, or its client, is closed.
        """
        try:
            return await self._fetcher.alone(self._take_batch)
        except StopAsyncIteration:
            raise anyio.EndOfStream from None

    def batches(self) -> BatchIterator:
        """Iterate over batches. The rest of a batch whose records are being iterated over comes first."""
        if self._fetcher.closed:
            raise self._fetcher.refusal()
        return BatchIterator(self)

    def _about(self, error: FluvioError) -> None:
        """Say what a call that is refused is about."""
        error.topic = error.topic or self.topic

    async def _pause(self) -> None:
        # A second task that comes meanwhile has its own pause to make, and learns that it is the second.
        await self._fetcher.alone(self._pacer.pause)

    async def _take_record(self) -> Record:
        while True:
            cursor = self._cursor
            # Asked again: in a thread, another one may have had a turn in between.
            for record in cursor.records:
                return record
            if not cursor.filled:
                if not await self._fetcher.fetch(cursor):
                    raise StopAsyncIteration
            elif cursor.begun:
                await self._pacer.pause()
            if cursor is self._cursor and not cursor.turn():
                self._cursor = Cursor(self.topic)
                cursor.free()

    async def _take_batch(self) -> Batch:
        if self._cursor.left:
            await self._pacer.pause()
        while True:
            cursor = self._cursor
            if not cursor.filled and not await self._fetcher.fetch(cursor):
                raise StopAsyncIteration
            if cursor is self._cursor:
                batch = cursor.rest()
                self._cursor = Cursor(self.topic)
                if batch is not None:
                    return batch
                cursor.free()

    async def aclose(self) -> None:
        """Close it; a task that waits for records sees the end. Doing it again does nothing.

        It is closed when this returns, raises or is cancelled.

        Raises:
            RuntimeError: This is not the event loop of its client.
        """
        if not self._fetcher.closing:
            await checkpoint()
            return
        self._begin_close()
        await self._end_close()

    def _begin_close(self) -> None:
        """Have the library close it; `_end_close` waits for that."""
        self._fetcher.begin_close()
        self._cursor = Cursor(self.topic)

    async def _end_close(self) -> None:
        await self._fetcher.end_close()

    def _drop(self) -> None:
        """Its client is closed: nothing can be read any more."""
        self._fetcher.drop()
        self._cursor = Cursor(self.topic)

    def __del__(self) -> None:
        fetcher = getattr(self, "_fetcher", None)
        if fetcher is None or not fetcher.abandoned:
            return
        left = self._cursor.left
        lost = f"; {left} records of its current batch were not read" if left else ""
        warnings.warn(
            f"unclosed {self!r}: leave its block or close it{lost}",
            ResourceWarning,
            stacklevel=2,
            source=self,
        )


class BatchIterator(Bound):
    """What `Consumer.batches` gives."""

    _instead = "call batches() again"

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    def __aiter__(self) -> BatchIterator:
        return self

    async def __anext__(self) -> Batch:
        fetcher = self._consumer._fetcher
        try:
            return await fetcher.alone(self._consumer._take_batch)
        except ClosedError:
            if not fetcher.closed:
                raise
        await checkpoint()
        raise StopAsyncIteration
