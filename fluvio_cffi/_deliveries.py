"""What became of sent records: one `Ack`, or the columns of a `send_many`."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Optional

from ._library import ffi, lib, read_error
from .errors import DeliveryError, FluvioError, PartialDeliveryError

__all__ = ["Ack", "Deliveries"]


class Ack(NamedTuple):
    """The server has the record.

    Attributes:
        partition: The partition it went to.
        offset: Its offset there.
    """

    partition: int
    offset: int


class Deliveries(Sequence[Ack]):
    """The outcome of each record of a `send_many`, in the order of the call.

    As a sequence it gives an `Ack` for each record, or raises the error of that record. The columns
    `partitions` and `offsets` are cheaper: arrays, with offset -1 for a failed record.

    Attributes:
        partitions: The partition of each record.
        offsets: The offset of each record, -1 if it failed.
        errors: The error of each failed record, by its index.
    """

    __slots__ = ("errors", "offsets", "partitions")

    def __init__(self) -> None:
        self.partitions: array[int] = array("I")
        self.offsets: array[int] = array("q")
        self.errors: dict[int, FluvioError] = {}

    @property
    def failed(self) -> int:
        """How many records failed."""
        return len(self.errors)

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[item] for item in range(*index.indices(len(self)))]
        offset = self.offsets[index]
        if offset < 0:
            raise self.errors[index % len(self)]
        return Ack(self.partitions[index], offset)

    def __iter__(self) -> Iterator[Ack]:
        if self.errors:
            return (self[index] for index in range(len(self)))
        return map(Ack, self.partitions, self.offsets)

    def __repr__(self) -> str:
        return f"<Deliveries of {len(self)} records, {self.failed} failed>"

    def _extend(self, address: int) -> None:
        """Add the outcomes that came with a completion; frees them."""
        handle = ffi.cast("fluvio_deliveries *", address)
        try:
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
                                lib.fluvio_deliveries_error(handle, number - 1)
                            )
                        self.errors[first + index] = error
        finally:
            lib.fluvio_deliveries_free(handle)

    def _fail(self, count: int, error: FluvioError) -> None:
        """Add `count` records that were not delivered because of `error`."""
        first = len(self)
        self.partitions.extend([0] * count)
        self.offsets.extend([-1] * count)
        for index in range(first, first + count):
            self.errors[index] = error

    def _checked(self) -> Deliveries:
        """Itself, or PartialDeliveryError if a record failed."""
        if self.errors:
            first = self.errors[min(self.errors)]
            raise PartialDeliveryError(
                f"{self.failed} of {len(self)} records were not delivered; the first error: {first}",
                first=first,
                deliveries=self,
            )
        return self


class Ledger:
    """What a producer owes its caller: submitted records without an answer, and failures nobody has seen."""

    KEPT = 16

    def __init__(self) -> None:
        self.pending = 0
        self.failed = 0
        self._errors: dict[int, FluvioError] = {}

    def add(self, delivery: object, error: FluvioError) -> None:
        """It failed and nobody is waiting."""
        self.failed += 1
        if len(self._errors) < self.KEPT:
            self._errors[id(delivery)] = error

    def remove(self, delivery: object) -> None:
        """Somebody has seen the error after all."""
        self.failed -= 1
        self._errors.pop(id(delivery), None)

    def failure(self, topic: str) -> Optional[DeliveryError]:
        """The error for what nobody has seen."""
        if not self.failed:
            return None
        errors = list(self._errors.values()) or [FluvioError("unknown")]
        return DeliveryError(
            f"{self.failed} records submitted to topic {topic!r} were not delivered and nobody awaited them; "
            f"the first error: {errors[0]}",
            failed=self.failed,
            errors=errors,
        )
