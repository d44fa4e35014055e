"""Sending records."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Optional, Union

from .. import _arguments
from .._deliveries import Ack, Deliveries
from .._findings import Findings
from .._library import NULL, OK, RECORD_OVERHEAD, lib
from .._library import failure as failure_of
from .._outgoing import Outgoing, Slice
from .._port import Ledger, Left, Port, Receipt, Slip, checkpoint
from .._room import Room, no_room
from ..errors import ClosedError, FluvioError, FluvioTimeoutError, PartialDeliveryError, RecordTooLargeError
from .closable import Closable
from .closing import Closing
from .delivery import Delivery

if TYPE_CHECKING:
    from .._arguments import BytesLike
    from .._records import Record

__all__ = ["Producer"]

ANY_PARTITION: int = lib.FLUVIO_ANY_PARTITION
_send = lib.fluvio_producer_send


class Producer(Closable):
    """Sends records to one topic. Any number of tasks may use it.

    Attributes:
        topic: The topic.
    """

    _instead = "share it, any number of tasks may use it; or ask a client for another one"

    def __init__(self, client: Any, port: Port, handle: Any, topic: str, left: Left) -> None:
        self.topic = topic
        # Without it the connection would end.
        self._client = client
        self._port = port
        self._handle = handle
        self._ledger = Ledger(topic)
        self._pacer = port.pacer()
        self._closing = Closing(port, lib.fluvio_producer_close)
        # Of key and value together.
        self._max_record = int(lib.fluvio_producer_get_max_record_bytes(handle))
        # Where the client finds the ledger if this is collected; None once there is nothing to be told.
        self._left: Optional[Left] = left

    def __repr__(self) -> str:
        return f"<Producer topic={self.topic!r}{'' if self._handle is not None else ', closed'}>"

    def _open(self) -> Any:
        handle = self._handle
        if handle is None:
            raise ClosedError(f"the producer of topic {self.topic!r} is closed", topic=self.topic)
        return handle

    @property
    def partition_count(self) -> int:
        """How many partitions the topic has.

        Raises:
            ClosedError: It is closed.
            ForkedError: This is a forked child, and the producer its parent's.
        """
        self._port.check_process()
        return int(lib.fluvio_producer_get_partition_count(self._open()))

    async def send(
        self, value: BytesLike, *, key: Optional[BytesLike] = None, partition: Optional[int] = None
    ) -> Ack:
        """Send a record and wait until the server has it.

        Without room in the producer's buffer it waits for room first. Cancelled while it waits for room, the
        record was certainly not sent; cancelled later, it is sent all the same, and should it fail, then
        `aclose` raises.

        Args:
            value: The value.
            key: The key; None for a record without one.
            partition: The partition; None lets the key decide; without a key, records fill a batch of one
                partition, then of the next.

        Raises:
            RecordTooLargeError: It does not fit into one request.
            PartitionNotFoundError: There is no such partition.
            TopicDeletedError: The topic was deleted.
            FluvioTimeoutError: It was not acknowledged within `delivery_timeout`.
            ClosedError: The producer, or its client, is closed.
        """
        receipt = Receipt(self._ledger)
        port = self._port
        try:
            handle = self._handle
            if handle is None:
                handle = self._open()
            value = value if type(value) is bytes else _arguments.as_bytes("value", value)
            size = len(value)
            key_data: Any = NULL
            key_length = 0
            if key is not None:
                key_data = key if type(key) is bytes else _arguments.as_bytes("key", key)
                key_length = len(key_data)
            if key_length + size > self._max_record:
                raise self._too_large("the record", key_length + size)
            target = ANY_PARTITION if partition is None else _arguments.partition(partition)
            if not await port.run(receipt, _send, handle, NULL, key_data, key_length, value, size, target):
                with await self._reserve(handle, key_length + size + RECORD_OVERHEAD) as room:
                    if not await port.run(
                        receipt, room.send, handle, key_data, key_length, value, size, target
                    ):
                        raise no_room()
        except FluvioError as error:
            self._tell(error, receipt.under_way)
            raise
        return receipt.take()

    async def submit(
        self, value: BytesLike, *, key: Optional[BytesLike] = None, partition: Optional[int] = None
    ) -> Delivery:
        """Hand a record over and go on: waits only for room in the producer's buffer.

        The `Delivery` may be awaited for the server's answer. A failure that nobody has received from it
        makes `aclose` raise. Cancelled, the record was certainly not sent. See `send` for the arguments.

        Every call notices cancellation; while there is room, others get their turn once a millisecond of
        submitting, not at every call: a full checkpoint each costs ten times what handing over does.

        Raises:
            RecordTooLargeError: It does not fit into one request.
            PartitionNotFoundError: There is no such partition.
            ClosedError: The producer, or its client, is closed.
        """
        receipt = Receipt(self._ledger)
        port = self._port
        pacer = self._pacer
        try:
            handle = self._open()
            value = value if type(value) is bytes else _arguments.as_bytes("value", value)
            size = len(value)
            key_data: Any = NULL
            key_length = 0
            if key is not None:
                key_data = key if type(key) is bytes else _arguments.as_bytes("key", key)
                key_length = len(key_data)
            if key_length + size > self._max_record:
                raise self._too_large("the record", key_length + size)
            target = ANY_PARTITION if partition is None else _arguments.partition(partition)
            if pacer.due():
                await pacer.pause()
            if not port.start(receipt, _send, handle, NULL, key_data, key_length, value, size, target):
                with await self._reserve(handle, key_length + size + RECORD_OVERHEAD) as room:
                    if not port.start(receipt, room.send, handle, key_data, key_length, value, size, target):
                        raise no_room()
        except FluvioError as error:
            self._tell(error, receipt.under_way)
            raise
        receipt.leave()
        return Delivery(port, receipt, pacer)

    async def send_many(
        self,
        values: Iterable[Union[BytesLike, Record, tuple[Optional[BytesLike], BytesLike]]],
        *,
        keys: Optional[Iterable[Optional[BytesLike]]] = None,
        partition: Optional[int] = None,
    ) -> Deliveries:
        """Send many records at once and wait until the server has them.

        All of them are checked first, and one that cannot be sent is named by its index before anything goes
        out. They go out in slices, each when there is room for it. Cancelled, the slices that went out are
        sent, the others are not.

        Args:
            values: The values; or `Record`s or (key, value) pairs.
            keys: A key, or None, for each value.
            partition: The partition of all of them; None as in `send`.

        Raises:
            PartialDeliveryError: Some failed; its `deliveries` has every outcome.
            RecordTooLargeError: One does not fit into a request; nothing was sent.
            PartitionNotFoundError: There is no such partition; nothing was sent.
            ClosedError: The producer, or its client, is closed; nothing was sent.
        """
        port = self._port
        try:
            port.check()
            handle = self._open()
            target = ANY_PARTITION if partition is None else _arguments.partition(partition)
            outgoing = Outgoing(values, keys, self._max_record)
        except FluvioError as error:
            self._tell(error, False)
            raise
        outgoing.take()
        deliveries = Deliveries()
        # Slices whose outcomes are not in `deliveries` yet; and those with failures that nobody was told.
        started: list[Slip] = []
        untold: list[Slip] = []
        refusal: Optional[FluvioError] = None
        failure: Optional[PartialDeliveryError] = None
        try:
            outgoing.check_keys()
            if not len(outgoing):
                await checkpoint()
                return deliveries
            pacer = port.pacer()
            position = 0
            while position < len(outgoing):
                position = outgoing.check(position)
                if pacer.due():
                    await pacer.pause()
            if outgoing.too_large is not None:
                index, size = outgoing.too_large
                raise self._too_large(f"values[{index}]{' with its key' if keys is not None else ''}", size)
            position = 0
            while position < len(outgoing) and refusal is None:
                piece = outgoing.pack(position)
                position += piece.count
                while piece.count and refusal is None:
                    first = not started and not len(deliveries)
                    refusal = await self._start_slice(started, first, handle, piece, target)
                while started and started[0].completion is not None:
                    self._read(started, untold, deliveries)
                if pacer.due():
                    await pacer.pause()
            while started:
                if started[0].completion is None:
                    await port.park(started[0])
                self._read(started, untold, deliveries)
            if refusal is not None:
                deliveries._fail(len(outgoing) - len(deliveries), refusal)
            failure = deliveries._failure()
            if failure is not None:
                raise failure
        except BaseException as error:
            # Failures are received once they are on their way to the caller, and not before.
            if error is not failure:
                if isinstance(error, FluvioError):
                    self._tell(error, bool(started or len(deliveries)))
                self._ledger.leave(dict.fromkeys([*untold, *started]))
            raise
        return deliveries

    async def _start_slice(
        self, started: list[Slip], first: bool, handle: Any, piece: Slice, target: int
    ) -> Optional[FluvioError]:
        """Start a slice, which is the last of `started` then; the refusal, if it is not the first one."""
        slip = Slip(self._ledger)
        # Known before it is started, whatever strikes this task.
        started.append(slip)
        try:
            await self._send_slice(slip, handle, piece, target)
        except FluvioError as error:
            started.remove(slip)
            if first or (isinstance(error, FluvioTimeoutError) and error._of_limit):
                raise
            self._tell(error, False)
            return error
        return None

    def _read(self, started: list[Slip], untold: list[Slip], deliveries: Deliveries) -> None:
        """Add the outcomes of the first slice, which are there."""
        slip = started[0]
        failed = slip.read(deliveries)
        if failed:
            untold.append(slip)
        del started[0]
        if not failed:
            slip.drop()

    def _tell(self, error: FluvioError, accepted: bool) -> None:
        """Say what became of the records of a call that ends with an error of its own."""
        error.topic = error.topic or self.topic
        error.outcome = error.outcome or ("unknown" if accepted else "not_sent")

    def _refused(self, error: FluvioError) -> None:
        """Say so of a call that is refused for an argument of its own: nothing was sent."""
        self._tell(error, False)

    def _about(self, error: FluvioError) -> None:
        """Say what a call that has no record is about."""
        error.topic = error.topic or self.topic

    def _too_large(self, what: str, size: int) -> RecordTooLargeError:
        return RecordTooLargeError(
            f"{what} has {size} bytes, at most {self._max_record} can be sent: raise max_request_size (and "
            "buffer, if that is smaller)",
            topic=self.topic,
            outcome="not_sent",
        )

    async def _send_slice(self, slip: Slip, handle: Any, piece: Slice, target: int) -> None:
        accepted = slip.accepted

        def send_many(room: Any, context: Any, *arguments: Any) -> int:
            return int(
                lib.fluvio_producer_send_many(
                    handle, context, room, *piece.arguments(), target, arguments[0], accepted, arguments[1]
                )
            )

        if not self._port.start(slip, send_many, NULL):
            limit = max(int(lib.fluvio_producer_get_buffer_bytes(handle)) // 4, 1)
            with await self._reserve(handle, piece.cost(limit)) as room:
                if not self._port.start(slip, room.used_by(send_many), NULL):
                    raise no_room()
        piece.advance(slip.count)

    async def _reserve(self, handle: Any, size: int) -> Room:
        try:
            completion: Any = await self._port.call(lib.fluvio_producer_reserve, handle, size)
        except ClosedError as error:
            raise ClosedError(
                f"the producer of topic {self.topic!r} was closed while a record waited for room: not sent",
                topic=self.topic,
                outcome="not_sent",
            ) from error
        return Room(completion)

    async def flush(self) -> None:
        """Wait until every record accepted so far has reached the server or failed.

        Raises:
            ClosedError: It, or its client, was closed.
        """
        await self._port.call(lib.fluvio_producer_flush, self._open())

    async def aclose(self) -> None:
        """Send what is left, within the client's `close_timeout`, and close. Doing it again does nothing.

        It is closed when this returns, raises or is cancelled; what was accepted is still sent.

        Raises:
            DeliveryError: Records failed and nobody had received their errors.
            FluvioTimeoutError: Records could not be sent in time: `detail["undelivered"]` says how many.
            CloseError: Both.
        """
        if self._handle is None and not self._closing.under_way:
            await checkpoint()
            return
        self._port.check()
        self._begin_close()
        with Findings(f"the producer of topic {self.topic!r}") as findings:
            await self._end_close(findings)

    def _begin_close(self) -> None:
        """Accept nothing more and have the library send what is left; `_end_close` waits for that."""
        handle = self._handle
        if handle is None:
            return
        # Let go only behind this: what strikes in between leaves something that can be closed again.
        self._closing.begin(handle)
        self._handle = None

    async def _end_close(self, findings: Findings) -> None:
        try:
            completion = await self._closing.end()
            if completion is not None and completion[1] != OK:
                findings.add(failure_of(completion))
        finally:
            self._account(findings)

    def _account(self, findings: Findings) -> None:
        """What became of the records."""
        # First every answer that is there, also when closing was cancelled.
        self._port.settle()
        # Of those that closing gave up its own error tells.
        findings.add(self._ledger.failure(self._closing.failed))
        pending = self._ledger.pending
        findings.interrupted(pending)
        if not pending:
            self._left = None

    def _drop(self) -> None:
        """Its client is closed."""
        self._handle = self._left = None
        self._closing.forget()

    def __del__(self) -> None:
        left = getattr(self, "_left", None)
        if left is None or self._port.forked:
            return
        pending = self._ledger.pending
        failed, first = self._ledger.unseen()
        if pending or failed:
            left.add(self._ledger)
        if self._handle is None:
            return
        lost = []
        if failed:
            records = "1 record" if failed == 1 else f"{failed} records"
            cause = "" if first is None else f"; the first is: {first}"
            lost.append(f"{records} failed and nobody received an error{cause}")
        if pending:
            lost.append(f"closing its client tells if one of {pending} submitted records fails")
        warnings.warn(
            f"unclosed {self!r}: leave its block or close it; {'; '.join(lost) or 'nothing is lost yet'}",
            ResourceWarning,
            stacklevel=2,
            source=self,
        )
