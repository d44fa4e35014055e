"""What became of sent records: one `Ack`, or the columns of a `send_many`."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Optional, overload

from ._library import ffi, lib, read_error
from .errors import FluvioError, PartialDeliveryError

__all__ = ["Ack", "Deliveries"]


class Ack(NamedTuple):
    """The server has the record.

    Attributes:
        partition: The partition it went to.
        offset: Its offset there.
    """

    partition: int
    offset: int


class Errors(Mapping[int, FluvioError]):
    """The errors of a `Deliveries` by index: an object of its own for each, made when it is asked for."""

    __slots__ = ("_failures", "_made")

    def __init__(self, failures: dict[int, FluvioError]) -> None:
        self._failures = failures
        self._made: dict[int, FluvioError] = {}

    def __getitem__(self, index: int) -> FluvioError:
        made = self._made.get(index)
        if made is None:
            made = self._made[index] = self._failures[index]._fresh()
        return made

    def __iter__(self) -> Iterator[int]:
        return iter(self._failures)

    def __len__(self) -> int:
        return len(self._failures)

    def __repr__(self) -> str:
        return repr(dict(self))

    def __reduce__(self) -> Any:
        return Errors, (self._failures,)


class Deliveries(Sequence[Ack]):
    """The outcome of each record of a `send_many`, in the order of the call.

    As a sequence it gives an `Ack` for each record, or raises the error of that record. The columns
    `partitions` and `offsets` are cheaper: arrays, with offset -1 for a failed record.

    Attributes:
        partitions: The partition of each record.
        offsets: The offset of each record, -1 if it failed.
        errors: The error of each failed record, by its index.
    """

    __slots__ = ("_failures", "errors", "offsets", "partitions")

    def __init__(self) -> None:
        self.partitions: array[int] = array("I")
        self.offsets: array[int] = array("q")
        # By index; one object for all that failed alike, which is never raised or given out.
        self._failures: dict[int, FluvioError] = {}
        self.errors: Mapping[int, FluvioError] = Errors(self._failures)

    def __reduce__(self) -> Any:
        return _rebuilt, (type(self), self.partitions, self.offsets, self._failures)

    @property
    def failed(self) -> int:
        """How many records failed."""
        return len(self._failures)

    def __len__(self) -> int:
        return len(self.offsets)

    @overload
    def __getitem__(self, index: int) -> Ack: ...
    @overload
    def __getitem__(self, index: slice) -> list[Ack]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[item] for item in range(*index.indices(len(self)))]
        offset = self.offsets[index]
        if offset < 0:
            raise self._failures[index % len(self)]._fresh()
        return Ack(self.partitions[index], offset)

    def __iter__(self) -> Iterator[Ack]:
        if self._failures:
            return (self[index] for index in range(len(self)))
        return map(Ack, self.partitions, self.offsets)

    def __repr__(self) -> str:
        return f"<Deliveries of {len(self)} records, {self.failed} failed>"

    def _extend(self, address: int) -> None:
        """Add the outcomes that came with a completion."""
        handle = ffi.cast("fluvio_deliveries *", address)
        view = ffi.new("fluvio_deliveries_view *")
        lib.fluvio_deliveries_get_view(handle, view)
        first, count = len(self), view.count
        self.partitions.frombytes(ffi.buffer(view.partitions, 4 * count))
        self.offsets.frombytes(ffi.buffer(view.offsets, 8 * count))
        if view.failed:
            known: dict[int, FluvioError] = {}
            for index, number in enumerate(ffi.unpack(view.errors, count)):
                if number:
                    error = known.get(number)
                    if error is None:
                        error = known[number] = read_error(
                            lib.fluvio_deliveries_get_error(handle, number - 1)
                        )
                    self._failures[first + index] = error

    def _fail(self, count: int, error: FluvioError) -> None:
        """Add `count` records that were not delivered because of `error`."""
        first = len(self)
        self.partitions.extend([0] * count)
        self.offsets.extend([-1] * count)
        for index in range(first, first + count):
            self._failures[index] = error

    def _failure(self) -> Optional[PartialDeliveryError]:
        """The error for all of it if a record failed."""
        if not self._failures:
            return None
        first = self._failures[min(self._failures)]
        return PartialDeliveryError(
            f"{self.failed} of {len(self)} records were not delivered; the first error: {first}",
            deliveries=self,
        )


def _rebuilt(
    cls: type[Deliveries], partitions: array[int], offsets: array[int], failures: dict[int, FluvioError]
) -> Deliveries:
    deliveries = cls()
    deliveries.partitions.extend(partitions)
    deliveries.offsets.extend(offsets)
    deliveries._failures.update(failures)
    return deliveries
