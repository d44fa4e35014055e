"""Records and batches: what a consumer gives.

A batch is one handle of the library with the response it came in; its columns are read when asked for.
Values are copied out (`bytes`) unless views are asked for; a view keeps the whole response alive.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from itertools import repeat
from operator import is_
from typing import Any, Literal, NamedTuple, Optional, Union, overload

from ._bound import Bound
from ._library import NO_KEY, ffi, lib

__all__ = ["Batch", "Record"]

# How many records are made at once: between them, iteration lets the event loop run.
TURN_RECORDS = 256
NO_KEYS: list[Any] = [None] * TURN_RECORDS


class Record(NamedTuple):
    """One record.

    Attributes:
        topic: The topic it was read from.
        partition: The partition.
        offset: The offset within the partition.
        key: The key; None if the record has none (an empty key is b"").
        value: The value.
        timestamp: Milliseconds since 1970, None if absent.
    """

    topic: str
    partition: int
    offset: int
    key: Optional[bytes]
    value: bytes
    timestamp: Optional[int]


_new_record: Any = partial(tuple.__new__, Record)

if sys.implementation.name == "pypy":
    from __pypy__ import add_memory_pressure  # type: ignore[import-not-found]

    weigh = add_memory_pressure

    def _made(
        topic: str, partition: int, offsets: list[int], keys: list[Any], values: list[Any], times: list[Any]
    ) -> Iterator[Record]:
        # Its compiler turns this into a loop without calls, which it cannot do for `map`.
        new: Any = tuple.__new__
        return iter(
            [
                new(Record, (topic, partition, offsets[i], keys[i], values[i], times[i]))
                for i in range(len(offsets))
            ]
        )

else:

    def weigh(size: int) -> None:
        """Tell a collector that does not count references how much memory hangs on a batch."""

    def _made(
        topic: str, partition: int, offsets: list[int], keys: list[Any], values: list[Any], times: list[Any]
    ) -> Iterator[Record]:
        # An iterator in C: no Python code runs for each record.
        return map(_new_record, zip(repeat(topic), repeat(partition), offsets, keys, values, times))


class Taken:
    """A batch of the library and the view of it, both put here by `fluvio_consumer_take`; freed with this."""

    __slots__ = ("out", "view")

    def __init__(self) -> None:
        # Freed by the library itself: Ctrl-C that strikes in a finaliser of Python is dropped.
        self.out: Any = ffi.gc(ffi.new("fluvio_batch **"), lib.fluvio_batch_clear)
        self.view: Any = ffi.new("fluvio_batch_view *")

    @property
    def filled(self) -> bool:
        """Whether there is a batch."""
        return bool(self.out[0])

    def free(self) -> None:
        """Give the response back now."""
        lib.fluvio_batch_clear(self.out)


class Batch(Bound):
    """Records of one partition that arrived together, in order of their offsets.

    Attributes:
        topic: The topic.
        partition: The partition.
        high_watermark: The end of the partition when the batch was sent: offsets below it are committed.
    """

    _instead = "copy its records(), or the columns that are needed"
    __slots__ = ("_data", "_start", "_stop", "_taken", "_view", "high_watermark", "partition", "topic")

    def __init__(self, topic: str, taken: Taken, start: int, stop: int) -> None:
        self._taken = taken
        self._view = view = taken.view
        self._data = ffi.buffer(view.data, view.data_len) if view.data_len else b""
        self._start = start
        self._stop = stop
        self.topic = topic
        self.partition: int = view.partition
        self.high_watermark: int = view.high_watermark

    def __len__(self) -> int:
        return self._stop - self._start

    def __repr__(self) -> str:
        offsets = ""
        if len(self):
            first, last = self._view.offsets[self._start], self._view.offsets[self._stop - 1]
            offsets = f", offsets {first} to {last}"
        return f"<Batch topic={self.topic!r} partition={self.partition} of {len(self)} records{offsets}>"

    def _column(self, pointer: Any, start: int, stop: int) -> list[int]:
        return ffi.unpack(pointer + start, stop - start) if stop > start else []

    def offsets(self) -> list[int]:
        """The offset of each record."""
        return self._column(self._view.offsets, self._start, self._stop)

    def timestamps(self) -> list[Optional[int]]:
        """The timestamp of each record in milliseconds, None where there is none."""
        return self._timestamps(self._start, self._stop)

    def _timestamps(self, start: int, stop: int) -> list[Optional[int]]:
        column: list[Optional[int]] = list(self._column(self._view.timestamps, start, stop))
        if -1 in column:
            return [None if item == -1 else item for item in column]
        return column

    @overload
    def values(self) -> list[bytes]: ...
    @overload
    def values(self, *, views: Literal[False]) -> list[bytes]: ...
    @overload
    def values(self, *, views: Literal[True]) -> list[memoryview]: ...
    @overload
    def values(self, *, views: bool) -> Union[list[bytes], list[memoryview]]: ...
    def values(self, *, views: bool = False) -> Any:
        """The value of each record; `views=True` gives memoryviews, which keep the whole response alive."""
        return self._values(self._start, self._stop, self._memory() if views else self._data)

    def _values(self, start: int, stop: int, data: Any) -> list[Any]:
        starts = self._column(self._view.value_starts, start, stop)
        ends = self._column(self._view.value_ends, start, stop)
        return [data[first:last] for first, last in zip(starts, ends)]

    @overload
    def keys(self) -> list[Optional[bytes]]: ...
    @overload
    def keys(self, *, views: Literal[False]) -> list[Optional[bytes]]: ...
    @overload
    def keys(self, *, views: Literal[True]) -> list[Optional[memoryview]]: ...
    @overload
    def keys(self, *, views: bool) -> Union[list[Optional[bytes]], list[Optional[memoryview]]]: ...
    def keys(self, *, views: bool = False) -> Any:
        """The key of each record, None where there is none; see `values` for `views`."""
        return self._keys(self._start, self._stop, self._memory() if views else self._data)

    def _keys(self, start: int, stop: int, data: Any) -> list[Any]:
        count = stop - start
        pointer = self._view.key_starts + start
        if count and bytes(ffi.buffer(pointer, 4 * count)) == b"\xff" * (4 * count):
            return NO_KEYS[:count] if count <= TURN_RECORDS else [None] * count
        starts = self._column(self._view.key_starts, start, stop)
        ends = self._column(self._view.key_ends, start, stop)
        return [None if first == NO_KEY else data[first:last] for first, last in zip(starts, ends)]

    def _memory(self) -> memoryview:
        length = self._view.data_len
        if not length:
            return memoryview(b"")
        return memoryview(ffi.buffer(ffi.gc(self._view.data, partial(is_, self._taken)), length)).toreadonly()

    def records(self) -> list[Record]:
        """All records."""
        return list(self._some(self._start, self._stop))

    def __iter__(self) -> Iterator[Record]:
        for start in range(self._start, self._stop, TURN_RECORDS):
            yield from self._some(start, min(start + TURN_RECORDS, self._stop))

    def _some(self, start: int, stop: int) -> Iterator[Record]:
        data = self._data
        return _made(
            self.topic,
            self.partition,
            self._column(self._view.offsets, start, stop),
            self._keys(start, stop, data),
            self._values(start, stop, data),
            self._timestamps(start, stop),
        )

    def _rest(self, start: int) -> Batch:
        """The records from `start` on."""
        return Batch(self.topic, self._taken, start, self._stop)
