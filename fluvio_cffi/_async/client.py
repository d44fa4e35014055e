"""The client: connecting, and what hangs on a connection."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional, Union
from weakref import WeakValueDictionary

from .. import _arguments, _options
from .._findings import Findings
from .._library import ERROR, failure, lib, own, text
from .._library import options as library_options
from .._offset import Offset
from .._opening import Opening
from .._port import Left, Port, checkpoint, current_port
from ..errors import ClosedError, FluvioError, InvalidArgumentError
from .admin import Admin
from .closable import Closable
from .closing import Closing
from .consumer import Consumer
from .producer import Producer

if TYPE_CHECKING:
    from .._arguments import Duration, Size
    from .._options import Isolation

__all__ = ["Client", "connect"]


def connect(
    endpoint: Optional[str] = None,
    *,
    profile: Optional[str] = None,
    client_id: str = "fluvio_cffi",
    connect_timeout: Duration = 10,
    request_timeout: Duration = 30,
    close_timeout: Duration = 10,
    max_frame_size: Size = "64MiB",
) -> Opening[Client]:
    """Connect to a cluster.

    Args:
        endpoint: "host:port" of the cluster's controller. Without it, a profile says where.
        profile: A profile of the `fluvio` command line's configuration file; without it, the active one.
        client_id: A name for the server's logs.
        connect_timeout: Limit for connecting: seconds, a timedelta or a text such as "5ms"; math.inf for no
            limit. Every other time is given like this too, and every size in bytes or as in "64MiB".
        request_timeout: Limit for the answer to one request.
        close_timeout: Limit for sending what is left when a producer or the client, with all of its
            producers, is closed.
        max_frame_size: The largest answer that is accepted from a server.

    Raises:
        InvalidArgumentError, InvalidTypeError: A value that cannot be right; raised by the call itself.
        FluvioConnectionError: The endpoint cannot be reached.
        FluvioTimeoutError: It does not answer in time.
        ProtocolError: What answers there is no Fluvio server.
        UnsupportedVersionError: The platform is too old.
        ConfigError: The profile cannot be used.
    """
    if endpoint is not None and profile is not None:
        raise InvalidArgumentError(f"give either endpoint or profile, not both: {endpoint!r} and {profile!r}")
    options = _options.document(
        _options.CLIENT, locals(), endpoint=None if endpoint is None else _arguments.endpoint(endpoint)
    )
    return Opening(_connect(options))


def _start_connect(_: None, context: Any, options: Any, token: int, error: Any) -> int:
    return int(lib.fluvio_connect(context, options, token, error))


async def _connect(options: bytes) -> Client:
    port = current_port()
    port.acquire()
    try:
        completion: Any = await port.call(_start_connect, None, library_options(options))
    except BaseException:
        port.release()
        raise
    return Client(port, own("fluvio_client *", completion, lib.fluvio_client_free))


class Client(Closable):
    """A connection to a cluster. Made by `connect()`; leave its block or `aclose` it when done.

    Attributes:
        endpoint: Where it is connected.
        platform_version: What runs there.
        admin: Administration.
    """

    _instead = "connect() again where another one is needed"

    def __init__(self, port: Port, handle: Any) -> None:
        self._port = port
        self._handle = handle
        # By number: in the order in which they were opened.
        self._numbers = itertools.count()
        self._producers: WeakValueDictionary[int, Producer] = WeakValueDictionary()
        self._consumers: WeakValueDictionary[int, Consumer] = WeakValueDictionary()
        # Of producers that were collected.
        self._left = Left()
        self._closing = Closing(port, lib.fluvio_client_close)
        # Nothing is opened any more: it is closed, or that has begun.
        self._over = False
        self.endpoint: str = text(lib.fluvio_client_get_endpoint(handle))
        self.platform_version: str = text(lib.fluvio_client_get_platform_version(handle))
        self.admin = Admin(self)

    def __repr__(self) -> str:
        state = ", closed" if self._over else ""
        return f"<Client {self.endpoint}, platform {self.platform_version}{state}>"

    def _open(self) -> Any:
        handle = self._handle
        if handle is None or self._over:
            raise self._closed()
        return handle

    def _closed(self) -> ClosedError:
        return ClosedError(f"the client of {self.endpoint} is closed")

    def producer(
        self,
        topic: str,
        *,
        batch_size: Size = "128KiB",
        max_request_size: Size = "1MiB",
        linger: Duration = 0,
        buffer: Size = "32MiB",
        in_flight: int = 1,
        isolation: Isolation = "read_uncommitted",
        delivery_timeout: Duration = 120,
        retry_initial: Duration = "20ms",
        retry_max: Duration = 5,
    ) -> Opening[Producer]:
        """Open a producer for a topic.

        Args:
            topic: Its name.
            batch_size: A batch is sent once it has this many bytes.
            max_request_size: The most bytes of one request, and so of a record.
            linger: How long to gather records even when nothing is in flight.
            buffer: Bytes of records that may wait for their answer.
            in_flight: Batches in flight per partition. More than one gives up order when one is retried.
            isolation: "read_uncommitted": acknowledged once the leader has it; "read_committed": its replicas
                too.
            delivery_timeout: How long the records of a batch are tried for, from its first one on.
            retry_initial: First pause between tries.
            retry_max: Longest pause between tries.

        Raises:
            TopicNotFoundError: There is no such topic.
            InvalidArgumentError, InvalidTypeError: A value that cannot be right; raised by the call itself.
            ClosedError: The client is closed.
        """
        options = _options.document(_options.PRODUCER, locals())
        name = _arguments.resource("topic", topic)
        handle = self._open()
        return Opening(self._producer(handle, topic, name, options))

    async def _producer(self, handle: Any, topic: str, name: bytes, options: bytes) -> Producer:
        completion: Any = await self._port.call(
            lib.fluvio_producer_open, handle, name, len(name), library_options(options)
        )
        owned = own("fluvio_producer *", completion, lib.fluvio_producer_free)
        producer = Producer(self, self._port, owned, topic, self._left)
        self._producers[next(self._numbers)] = producer
        if self._over:
            # Closed meanwhile, by somebody who may not have seen this one.
            producer._drop()
            raise self._closed()
        return producer

    def consumer(
        self,
        topic: str,
        *,
        start: Offset = Offset.end(),
        partitions: Union[int, Sequence[int], None] = None,
        prefetch: Size = "8MiB",
        isolation: Isolation = "read_uncommitted",
        check_crc: bool = True,
    ) -> Opening[Consumer]:
        """Open a consumer of a topic.

        Args:
            topic: Its name.
            start: Where to start in each partition.
            partitions: Which partitions; without it all of them, also those that are added later.
            prefetch: Bytes to read ahead.
            isolation: "read_uncommitted": what the leader has; "read_committed": what its replicas have too.
            check_crc: Verify the checksum of each batch.

        Raises:
            TopicNotFoundError: There is no such topic.
            InvalidArgumentError, InvalidTypeError: A value that cannot be right; raised by the call itself.
            ClosedError: The client is closed.
            PartitionNotFoundError: It has no such partition.
            OffsetEvictedError: The start offset is no longer there.
            OffsetOutOfRangeError: The start offset lies beyond the end.
            FluvioConnectionError, FluvioTimeoutError: The leader of a partition did not say within
                `request_timeout` where its log begins and ends. All of them have to, to begin with: later one
                that is away is waited for.
        """
        options = _options.document(_options.CONSUMER, locals())
        name = _arguments.resource("topic", topic)
        handle = self._open()
        return Opening(self._consumer(handle, topic, name, options))

    async def _consumer(self, handle: Any, topic: str, name: bytes, options: bytes) -> Consumer:
        completion: Any = await self._port.call(
            lib.fluvio_consumer_open, handle, name, len(name), library_options(options)
        )
        owned = own("fluvio_consumer *", completion, lib.fluvio_consumer_free)
        consumer = Consumer(self, self._port, owned, topic)
        self._consumers[next(self._numbers)] = consumer
        if self._over:
            consumer._drop()
            raise self._closed()
        return consumer

    async def aclose(self) -> None:
        """Close its consumers and producers, all at once, then the connection. Doing it again does nothing.

        What is left to be sent has `close_timeout`, once for all of them. Everything is closed when this
        returns, raises or is cancelled; cancelled, what was accepted is still sent, but a record whose answer
        is not there yet fails with the outcome "unknown".

        Raises:
            DeliveryError: Records failed and nobody had received their errors.
            FluvioTimeoutError: Records could not be sent within `close_timeout`.
            CloseError: More than one of these was found.
        """
        handle = self._handle
        if handle is None:
            await checkpoint()
            return
        port = self._port
        port.check()
        self._over = True
        producers, consumers = list(self._producers.values()), list(self._consumers.values())
        for producer in producers:
            producer._begin_close()
        for consumer in consumers:
            consumer._begin_close()
        waited = 0
        # For as long as this goes on: another one that closes it may end before.
        port.acquire()
        with Findings(f"the client of {self.endpoint}") as findings:
            try:
                for consumer in consumers:
                    try:
                        await consumer._end_close()
                    except FluvioError as error:
                        findings.add(error)
                for producer in producers:
                    waited += 1
                    await producer._end_close(findings)
                # Not before: of two that close a producer only one learns what could not be sent.
                self._closing.begin(handle)
                completion = await self._closing.end()
                if completion is not None and completion[1] == ERROR:
                    findings.add(failure(completion))
                self._account(findings, [])
            except BaseException:
                if not self._closing.under_way:
                    self._closing.begin(handle)
                self._account(findings, producers[waited:])
                # Nobody is told later.
                port.give_up([*(producer._ledger for producer in producers), *self._left.ledgers()])
                raise
            finally:
                self._let_go(consumers, producers)

    def _let_go(self, consumers: Sequence[Consumer], producers: Sequence[Producer]) -> None:
        for consumer in consumers:
            consumer._drop()
        for producer in producers:
            producer._drop()
        if self._handle is not None:
            self._closing.forget()
            self._handle = None
            self._port.release()
        self._port.release()

    def _account(self, findings: Findings, producers: Sequence[Producer]) -> None:
        """What became of the records of producers that nobody waited for or that were collected."""
        for producer in producers:
            producer._account(findings)
        self._port.settle()
        for ledger in self._left.ledgers():
            findings.add(ledger.failure(False))
            findings.interrupted(ledger.pending)

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is None or self._port.forked:
            return
        # First: a warning may be an error.
        self._port.release_from_finalizer()
        failed = sum(ledger.unseen()[0] for ledger in self._left.ledgers())
        lost = f"; {failed} records of collected producers failed" if failed else ""
        warnings.warn(
            f"unclosed {self!r}: leave its block or close it; its connections are dropped now{lost}",
            ResourceWarning,
            stacklevel=2,
            source=self,
        )
