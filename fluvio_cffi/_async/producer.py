"""Sending records."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

from .. import _arguments
from .._completions import Pending
from .._deliveries import Ack, Deliveries, Ledger
from .._library import NULL, OK, RECORD_OVERHEAD, failure, ffi, lib
from .._outgoing import Outgoing, Slice
from .._port import Port, checkpoint
from ..errors import ClosedError, FluvioError
from .delivery import Delivery

if TYPE_CHECKING:
    from types import TracebackType

    from .._arguments import BytesLike
    from .._records import Record

__all__ = ["Producer"]

ANY_PARTITION: int = lib.FLUVIO_ANY_PARTITION
_send = lib.fluvio_producer_send


class Room:
    """Reserved room: the library's once a record is accepted with it, else given back after the block.

    Not left to the garbage collector: on PyPy that may come long after somebody began to wait for the room.
    """

    __slots__ = ("_handle",)

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def __enter__(self) -> Room:
        return self

    def __exit__(self, *exc_info: object) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            lib.fluvio_room_free(handle)

    def send(self, producer: Any, context: Any, *arguments: Any) -> int:
        """`fluvio_producer_send` with this room."""
        status = int(_send(producer, context, self._handle, *arguments))
        if status == OK:
            self._handle = None
        return status

    def used_by(self, function: Callable[..., int]) -> Callable[..., int]:
        """A function that takes the room first, called with this one."""

        def use(_: Any, *arguments: Any) -> int:
            status = function(self._handle, *arguments)
            if status == OK:
                self._handle = None
            return status

        return use


class Producer:
    """Sends records to one topic. Any number of tasks may use it.

    Attributes:
        topic: The topic.
    """

    def __init__(self, port: Port, handle: Any, topic: str) -> None:
        self._port = port
        self._handle = handle
        self._ledger = Ledger()
        self._pacer = port.pacer()
        self.topic = topic

    def __repr__(self) -> str:
        return f"<Producer topic={self.topic!r}{'' if self._handle is not None else ', closed'}>"

    def _open(self) -> Any:
        handle = self._handle
        if handle is None:
            raise ClosedError(f"the producer of topic {self.topic!r} is closed")
        return handle

    @property
    def partition_count(self) -> int:
        """How many partitions the topic has."""
        return int(lib.fluvio_producer_partition_count(self._open()))

    async def send(
        self, value: BytesLike, *, key: Optional[BytesLike] = None, partition: Optional[int] = None
    ) -> Ack:
        """Send a record and wait until the server has it.

        Without room in the producer's buffer it waits for room first. Cancelled while it waits for room, the
        record was certainly not sent; cancelled later, it is sent all the same.

        Args:
            value: The value.
            key: The key; None for a record without one.
            partition: The partition; None lets the key decide, or takes turns without a key.
        """
        handle = self._handle
        if handle is None:
            handle = self._open()
        value_data: Any = value
        value_length = len(value) if type(value) is bytes else -1
        if value_length < 0:
            value_data, value_length = _arguments.data("value", value)
        key_data: Any = NULL
        key_length = 0
        if key is not None:
            key_data, key_length = _arguments.data("key", key)
        target = ANY_PARTITION if partition is None else _arguments.partition(partition)
        completion = await self._port.call(
            _send, handle, NULL, key_data, key_length, value_data, value_length, target
        )
        if completion is None:
            with await self._reserve(handle, key_length + value_length + RECORD_OVERHEAD) as room:
                completion = await self._port.call(
                    room.send, handle, key_data, key_length, value_data, value_length, target
                )
            if completion is None:
                raise _no_room()
        return Ack(completion[5], completion[4])

    async def submit(
        self, value: BytesLike, *, key: Optional[BytesLike] = None, partition: Optional[int] = None
    ) -> Delivery:
        """Hand a record over and go on: waits only for room in the producer's buffer.

        The `Delivery` may be awaited for the server's answer. One that fails without ever being awaited makes
        `aclose` raise. Cancelled, the record was certainly not sent. See `send` for the arguments.

        Every call notices cancellation; while there is room, others get their turn once a millisecond of
        submitting, not at every call: a full checkpoint each costs ten times what handing over does.
        """
        handle = self._open()
        value_data, value_length = _arguments.data("value", value)
        key_data: Any = NULL
        key_length = 0
        if key is not None:
            key_data, key_length = _arguments.data("key", key)
        target = ANY_PARTITION if partition is None else _arguments.partition(partition)
        port = self._port
        pacer = self._pacer
        if pacer.due():
            await pacer.pause()
        delivery = Delivery(port, self._ledger, pacer)
        if not port.start(
            delivery, _send, handle, NULL, key_data, key_length, value_data, value_length, target
        ):
            with await self._reserve(handle, key_length + value_length + RECORD_OVERHEAD) as room:
                if not port.start(
                    delivery, room.send, handle, key_data, key_length, value_data, value_length, target
                ):
                    raise _no_room()
        self._ledger.pending += 1
        return delivery

    async def send_many(
        self,
        values: Iterable[Union[BytesLike, Record, tuple[Optional[BytesLike], BytesLike]]],
        *,
        keys: Optional[Iterable[Optional[BytesLike]]] = None,
        partition: Optional[int] = None,
    ) -> Deliveries:
        """Send many records at once and wait until the server has them.

        All of them are checked first. They go out in slices, each when there is room for it. Cancelled, the
        slices that went out are sent, the others are not.

        Args:
            values: The values; or `Record`s or (key, value) pairs.
            keys: A key, or None, for each value.
            partition: The partition of all of them; None as in `send`.

        Raises:
            PartialDeliveryError: Some failed; its `deliveries` has every outcome.
        """
        handle = self._open()
        target = ANY_PARTITION if partition is None else _arguments.partition(partition)
        outgoing = Outgoing(values, keys)
        if not len(outgoing):
            await checkpoint()
            return Deliveries()
        pacer = self._port.pacer()
        position = 0
        while position < len(outgoing):
            position = outgoing.check(position)
            if pacer.due():
                await pacer.pause()
        deliveries = Deliveries()
        started: list[tuple[Pending, int]] = []
        refusal: Optional[FluvioError] = None
        position = 0
        while position < len(outgoing) and refusal is None:
            piece = outgoing.pack(position)
            position += piece.count
            while piece.count:
                try:
                    started.append(await self._send_slice(handle, piece, target))
                except FluvioError as error:
                    if not started and not len(deliveries):
                        raise
                    refusal = error
                    break
            while started and started[0][0].completion is not None:
                _settle(deliveries, *started.pop(0))
            if pacer.due():
                await pacer.pause()
        for pending, count in started:
            if pending.completion is None:
                await self._port.park(pending)
            _settle(deliveries, pending, count)
        if refusal is not None:
            deliveries._fail(len(outgoing) - len(deliveries), refusal)
        return deliveries._checked()

    async def _send_slice(self, handle: Any, piece: Slice, target: int) -> tuple[Pending, int]:
        accepted = ffi.new("size_t *")

        def send_many(room: Any, context: Any, *arguments: Any) -> int:
            return int(
                lib.fluvio_producer_send_many(
                    handle, context, room, *piece.arguments(), target, arguments[0], accepted, arguments[1]
                )
            )

        pending = Pending()
        if not self._port.start(pending, send_many, NULL):
            limit = max(int(lib.fluvio_producer_buffer_bytes(handle)) // 2, 1)
            with await self._reserve(handle, piece.cost(limit)) as room:
                if not self._port.start(pending, room.used_by(send_many), NULL):
                    raise _no_room()
        count = int(accepted[0])
        piece.advance(count)
        return pending, count

    async def _reserve(self, handle: Any, size: int) -> Room:
        completion: Any = await self._port.call(lib.fluvio_producer_reserve, handle, size)
        return Room(ffi.cast("fluvio_room *", completion[3]))

    async def flush(self) -> None:
        """Wait until every record accepted so far has reached the server or failed."""
        await self._port.call(lib.fluvio_producer_flush, self._open())

    async def aclose(self) -> None:
        """Send what is left, within the client's `close_timeout`, and close. Doing it again does nothing.

        It is closed when this returns, raises or is cancelled; what was accepted is still sent.

        Raises:
            DeliveryError: Submitted records failed and nobody had awaited them.
            FluvioTimeoutError: Records could not be sent in time: `detail["undelivered"]` says how many.
        """
        handle = self._handle
        if handle is None:
            await checkpoint()
            return
        port = self._port
        port.check()
        self._handle = None
        if port.attached:
            await port.call(lib.fluvio_producer_close, handle)
            port.settle()
        unseen = self._ledger.failure(self.topic)
        if unseen is not None:
            raise unseen

    def _drop(self) -> None:
        """Its client is closed."""
        self._handle = None

    async def __aenter__(self) -> Producer:
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
        pending = self._ledger.pending
        lost = (
            f"the fate of {pending} submitted records will not be known" if pending else "nothing is lost yet"
        )
        warnings.warn(
            f"unclosed {self!r}: leave its block or close it; {lost}",
            ResourceWarning,
            stacklevel=2,
            source=self,
        )


def _no_room() -> FluvioError:
    return FluvioError("the reserved room was not enough: this is a bug in fluvio_cffi", kind=None)


def _settle(deliveries: Deliveries, pending: Pending, count: int) -> None:
    completion = pending.completion
    assert completion is not None
    pending.completion = None
    if completion[1] == OK:
        deliveries._extend(completion[3])
    else:
        deliveries._fail(count, failure(completion))
