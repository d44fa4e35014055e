"""The records of one `send_many`, copied, checked and packed into slices as the library takes them.

What a caller can change (a bytearray, a view of one) is copied when it is taken from the caller's iterable:
nothing depends on what becomes of it while the call waits.

A slice is one arena (key, value, key, value, ...) and one array of lengths per column; it is bounded in
records and in bytes, so that packing one never holds up the event loop.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate, chain
from typing import Any, Optional

from . import _arguments
from ._arguments import BytesLike
from ._library import NO_KEY, NULL, RECORD_OVERHEAD, ffi
from ._records import Record
from .errors import FluvioError, InvalidArgumentError, InvalidTypeError

SLICE_RECORDS = 4096
SLICE_BYTES = 1 << 20
_ONLY_BYTES = {bytes}
_BYTES_OR_NONE = {bytes, type(None)}
# What pairs and records are made of, if nobody can change them.
_TUPLES = {tuple, Record}
_UNCHANGING = {bytes, type(None), str, int}


class Slice:
    """Records on their way; the library takes them from the front."""

    __slots__ = ("_arena", "_base", "_first", "_keys", "_offset", "_values", "count")

    def __init__(
        self,
        keys: Optional[list[Optional[bytes]]],
        values: list[bytes],
        key_lengths: Optional[array[int]],
        value_lengths: array[int],
    ) -> None:
        if keys is None:
            self._arena = b"".join(values)
        else:
            parts: list[bytes] = [b""] * (2 * len(values))
            parts[::2] = [key or b"" for key in keys]
            parts[1::2] = values
            self._arena = b"".join(parts)
        self._base = ffi.from_buffer("uint8_t[]", self._arena)
        self._keys = NULL if key_lengths is None else ffi.from_buffer("uint32_t[]", key_lengths)
        self._values = ffi.from_buffer("uint32_t[]", value_lengths)
        self._first = 0
        self._offset = 0
        self.count = len(values)

    def arguments(self) -> tuple[Any, int, Any, Any, int]:
        """Arena, its length, key lengths, value lengths and count of what is left."""
        first = self._first
        return (
            self._base + self._offset,
            len(self._arena) - self._offset,
            self._keys if self._keys == NULL else self._keys + first,
            self._values + first,
            self.count,
        )

    def cost(self, limit: int) -> int:
        """The room that what is left needs, at most `limit`, but enough for the first record."""
        everything = len(self._arena) - self._offset + RECORD_OVERHEAD * self.count
        return everything if everything <= limit else max(limit, self._bytes(1) + RECORD_OVERHEAD)

    def advance(self, accepted: int) -> None:
        """The library has taken `accepted` records."""
        self._offset = len(self._arena) if accepted == self.count else self._offset + self._bytes(accepted)
        self._first += accepted
        self.count -= accepted

    def _bytes(self, count: int) -> int:
        total = sum(ffi.unpack(self._values + self._first, count))
        if self._keys != NULL:
            total += sum(length for length in ffi.unpack(self._keys + self._first, count) if length != NO_KEY)
        return int(total)


def _iterator(what: str, wanted: str, values: Iterable[Any]) -> Iterator[Any]:
    # Only this: what an iterator raises is its author's.
    try:
        return iter(values)
    except TypeError as error:
        raise InvalidTypeError(f"{what} must be {wanted}, not {type(values).__name__}: {error}") from error


def _copies(given: Iterable[Any], iterator: Iterator[Any]) -> list[Any]:
    """What the iterator gives, copied as it comes if it can be changed: it may be one buffer each time."""
    if type(given) in (list, tuple):
        items = list(iterator)
        kinds = set(map(type, items))
        # Without code in Python for each, where nothing has to be copied.
        if kinds <= _BYTES_OR_NONE or (
            kinds <= _TUPLES and _UNCHANGING.issuperset(map(type, chain.from_iterable(items)))
        ):
            return items
        iterator = iter(items)
    return [item if type(item) is bytes else _copied(item) for item in iterator]


def _copied(item: Any) -> Any:
    if isinstance(item, Record):
        return item._replace(key=_copied_bytes(item.key), value=_copied_bytes(item.value))
    if isinstance(item, tuple) and tuple.__len__(item) == 2:
        return (_copied_bytes(tuple.__getitem__(item, 0)), _copied_bytes(tuple.__getitem__(item, 1)))
    return _copied_bytes(item)


def _copied_bytes(value: Any) -> Any:
    if type(value) in _UNCHANGING:
        return value
    try:
        return _arguments.as_bytes("it", value)
    except FluvioError:
        # `check` names it.
        return value


class Outgoing:
    """All records of a call: copied and checked first, slice by slice, then packed, slice by slice.

    Made of the arguments as they are; `take` is by itself, because what it raises comes from the caller's own
    iterators.

    Attributes:
        too_large: The index and the size, key and value, of the first record above the limit.
    """

    def __init__(
        self, values: Iterable[Any], keys: Optional[Iterable[Optional[BytesLike]]], limit: int
    ) -> None:
        self._limit = limit
        self.too_large: Optional[tuple[int, int]] = None
        if isinstance(values, (bytes, bytearray, memoryview, str)):
            raise InvalidTypeError(
                f"values must be an iterable of records, not one {type(values).__name__}: use send() for one"
            )
        if isinstance(values, Mapping):
            raise InvalidTypeError(
                f"values must be an iterable of records, not a {type(values).__name__}: pass its items() to "
                "send pairs of key and value"
            )
        self._from = [(values, _iterator("values", "an iterable of records", values))]
        self._values: list[Any] = []
        self._keys: Optional[list[Any]] = None
        self._split = False
        self._value_lengths = array("I")
        self._key_lengths: Optional[array[int]] = None
        if keys is not None:
            wanted = "an iterable with a key (or None) for each value"
            if isinstance(keys, (bytes, bytearray, memoryview, str, Mapping)):
                raise InvalidTypeError(f"keys must be {wanted}, not {type(keys).__name__}")
            self._from.append((keys, _iterator("keys", wanted, keys)))

    def take(self) -> None:
        """Take everything from the caller's iterators."""
        self._values, *keys = [_copies(given, iterator) for given, iterator in self._from]
        self._from.clear()
        if keys:
            self._keys = keys[0]
        elif self._values and isinstance(self._values[0], tuple):
            self._split = True
            self._keys = [None] * len(self._values)

    def check_keys(self) -> None:
        """There is a key for each value, if there are any."""
        if self._keys is not None and len(self._keys) != len(self._values):
            raise InvalidArgumentError(
                f"keys must be as many as values: {len(self._keys)} keys for {len(self._values)} values"
            )

    def __len__(self) -> int:
        return len(self._values)

    def check(self, start: int) -> int:
        """Check a slice from `start` on and make it plain; the start of the next one."""
        stop = min(start + SLICE_RECORDS, len(self._values))
        if self._split:
            self._split_records(start, stop)
        if not _ONLY_BYTES.issuperset(map(type, self._values[start:stop])):
            for index in range(start, stop):
                self._values[index] = _arguments.as_bytes(f"values[{index}]", self._values[index])
        if self._keys is not None and not _BYTES_OR_NONE.issuperset(map(type, self._keys[start:stop])):
            for index in range(start, stop):
                if self._keys[index] is not None:
                    self._keys[index] = _arguments.as_bytes(f"keys[{index}]", self._keys[index])
        self._measure(start, stop)
        return stop

    def _measure(self, start: int, stop: int) -> None:
        values = self._values[start:stop]
        try:
            lengths = array("I", map(len, values))
            total = sum(lengths)
            self._value_lengths += lengths
            if self._keys is not None:
                if self._key_lengths is None:
                    self._key_lengths = array("I")
                keys = self._keys[start:stop]
                self._key_lengths.extend([NO_KEY if key is None else len(key) for key in keys])
                total += sum(map(len, filter(None, keys)))
        except OverflowError:
            # Above 4 GiB, and so above the limit.
            total = self._limit + 1
        # Looked for only where there may be one: what is small in all is small in each.
        if total > self._limit and self.too_large is None:
            self._find_too_large(start, stop)

    def _find_too_large(self, start: int, stop: int) -> None:
        for index in range(start, stop):
            key = None if self._keys is None else self._keys[index]
            size = len(self._values[index]) + len(key or b"")
            if size > self._limit:
                self.too_large = (index, size)
                return

    def _split_records(self, start: int, stop: int) -> None:
        assert self._keys is not None
        for index in range(start, stop):
            item = self._values[index]
            if isinstance(item, Record):
                self._keys[index], self._values[index] = item.key, item.value
            elif isinstance(item, tuple) and tuple.__len__(item) == 2:
                self._keys[index], self._values[index] = item
            else:
                like = " as values[0] is" if index else ""
                what = type(item).__name__
                if isinstance(item, tuple):
                    what += f" of {tuple.__len__(item)} items"
                raise InvalidTypeError(
                    f"values[{index}] must be a Record or a pair (key, value){like}, not {what}"
                )

    def pack(self, start: int) -> Slice:
        """The next slice from `start` on."""
        lengths = self._value_lengths[start : start + SLICE_RECORDS]
        key_lengths = None if self._key_lengths is None else self._key_lengths[start : start + SLICE_RECORDS]
        ends = list(
            accumulate(
                lengths
                if key_lengths is None
                else (value + (0 if key == NO_KEY else key) for value, key in zip(lengths, key_lengths))
            )
        )
        count = len(lengths)
        if ends[-1] > SLICE_BYTES:
            count = max(1, bisect_right(ends, SLICE_BYTES))
            lengths = lengths[:count]
            key_lengths = None if key_lengths is None else key_lengths[:count]
        return Slice(
            None if self._keys is None else self._keys[start : start + count],
            self._values[start : start + count],
            key_lengths,
            lengths,
        )
