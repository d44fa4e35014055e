"""The client: connecting, and what hangs on a connection."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional, Union
from weakref import WeakSet

from .. import _arguments
from .._library import lib, own, text
from .._offset import Offset
from .._opening import Opening
from .._port import Port, checkpoint, current_port
from ..errors import ClosedError, FluvioError, InvalidArgumentError, InvalidTypeError
from .admin import Admin
from .consumer import Consumer
from .producer import Producer

if TYPE_CHECKING:
    from types import TracebackType

    from .._arguments import Seconds, Size

__all__ = ["Client", "connect"]

ISOLATIONS = ("read_uncommitted", "read_committed")


def connect(
    endpoint: Optional[str] = None,
    *,
    profile: Optional[str] = None,
    client_id: Optional[str] = None,
    connect_timeout: Seconds = 10.0,
    request_timeout: Seconds = 30.0,
    close_timeout: Seconds = 10.0,
) -> Opening[Client]:
    """Connect to a cluster.

    Args:
        endpoint: "host:port" of the cluster's controller. Without it, a profile says where.
        profile: A profile of the `fluvio` command line's configuration file; without it, the active one.
        client_id: A name for the server's logs.
        connect_timeout: Limit for connecting, in seconds or as a timedelta.
        request_timeout: Limit for the answer to one request.
        close_timeout: Limit for sending what is left when a producer or the client is closed.

    Raises:
        FluvioConnectionError: The endpoint cannot be reached.
        FluvioTimeoutError: It does not answer in time.
        ProtocolError: What answers there is no Fluvio server.
        UnsupportedVersionError: The platform is too old.
        ConfigError: The profile cannot be used.
    """
    if endpoint is not None and profile is not None:
        raise InvalidArgumentError(f"give either endpoint or profile, not both: {endpoint!r} and {profile!r}")
    options = _arguments.given(
        endpoint=None if endpoint is None else _arguments.text("endpoint", endpoint),
        profile=None if profile is None else _arguments.text("profile", profile),
        client_id=None if client_id is None else _arguments.text("client_id", client_id),
        connect_timeout_ms=_arguments.seconds("connect_timeout", connect_timeout),
        request_timeout_ms=_arguments.seconds("request_timeout", request_timeout),
        close_timeout_ms=_arguments.seconds("close_timeout", close_timeout),
    )
    return Opening(_connect(json.dumps(options).encode("utf-8")))


def _start_connect(_: None, context: Any, options: bytes, length: int, token: int, error: Any) -> int:
    return int(lib.fluvio_connect(context, options, length, token, error))


async def _connect(options: bytes) -> Client:
    port = current_port()
    port.acquire()
    try:
        completion: Any = await port.call(_start_connect, None, options, len(options))
    except BaseException:
        port.release()
        raise
    return Client(port, own("fluvio_client *", completion[3], lib.fluvio_client_free))


class Client:
    """A connection to a cluster. Made by `connect()`; leave its block or `aclose` it when done.

    Attributes:
        endpoint: Where it is connected.
        platform_version: What runs there.
        admin: Administration.
    """

    def __init__(self, port: Port, handle: Any) -> None:
        self._port = port
        self._handle = handle
        self._producers: WeakSet[Producer] = WeakSet()
        self._consumers: WeakSet[Consumer] = WeakSet()
        self.endpoint: str = text(lib.fluvio_client_endpoint(handle))
        self.platform_version: str = text(lib.fluvio_client_platform_version(handle))
        self.admin = Admin(self)

    def __repr__(self) -> str:
        state = "" if self._handle is not None else ", closed"
        return f"<Client {self.endpoint}, platform {self.platform_version}{state}>"

    def _open(self) -> Any:
        handle = self._handle
        if handle is None:
            raise ClosedError(f"the client of {self.endpoint} is closed")
        return handle

    def producer(
        self,
        topic: str,
        *,
        batch_size: Optional[Size] = None,
        max_request_size: Optional[Size] = None,
        linger: Optional[Seconds] = None,
        buffer: Optional[Size] = None,
        in_flight: Optional[int] = None,
        isolation: Optional[str] = None,
        delivery_timeout: Optional[Seconds] = None,
        retry_initial: Optional[Seconds] = None,
        retry_max: Optional[Seconds] = None,
    ) -> Opening[Producer]:
        """Open a producer for a topic.

        Args:
            topic: Its name.
            batch_size: Bytes of a batch (128 KiB).
            max_request_size: Bytes of one request (1 MiB).
            linger: How long to gather records even when nothing is in flight (0).
            buffer: Bytes of records that may wait for their answer (32 MiB).
            in_flight: Batches in flight per partition (1). More gives up order when one is retried.
            isolation: "read_uncommitted" (default: the leader has it) or "read_committed" (its replicas too).
            delivery_timeout: How long a record is tried for (120 s).
            retry_initial: First pause between tries (20 ms).
            retry_max: Longest pause between tries (5 s).

        Raises:
            TopicNotFoundError: There is no such topic.
        """
        name = _arguments.name("topic", topic)
        options = _arguments.given(
            batch_bytes=None if batch_size is None else _arguments.size("batch_size", batch_size),
            max_request_bytes=(
                None if max_request_size is None else _arguments.size("max_request_size", max_request_size)
            ),
            linger_ms=None if linger is None else _arguments.seconds("linger", linger, positive=False),
            buffer_bytes=None if buffer is None else _arguments.size("buffer", buffer),
            in_flight=None if in_flight is None else _arguments.integer("in_flight", in_flight, 1, 2**31 - 1),
            isolation=None if isolation is None else _arguments.choice("isolation", isolation, ISOLATIONS),
            delivery_timeout_ms=(
                None if delivery_timeout is None else _arguments.seconds("delivery_timeout", delivery_timeout)
            ),
            retry_initial_ms=None
            if retry_initial is None
            else _arguments.seconds("retry_initial", retry_initial),
            retry_max_ms=None if retry_max is None else _arguments.seconds("retry_max", retry_max),
        )
        handle = self._open()
        return Opening(self._producer(handle, topic, name, json.dumps(options).encode("utf-8")))

    async def _producer(self, handle: Any, topic: str, name: bytes, options: bytes) -> Producer:
        completion: Any = await self._port.call(
            lib.fluvio_producer_open, handle, name, len(name), options, len(options)
        )
        producer = Producer(
            self._port, own("fluvio_producer *", completion[3], lib.fluvio_producer_free), topic
        )
        self._producers.add(producer)
        return producer

    def consumer(
        self,
        topic: str,
        *,
        start: Optional[Offset] = None,
        partitions: Union[int, Sequence[int], None] = None,
        prefetch: Optional[Size] = None,
        max_batch_size: Optional[Size] = None,
        isolation: Optional[str] = None,
        check_crc: bool = True,
    ) -> Opening[Consumer]:
        """Open a consumer of a topic.

        Args:
            topic: Its name.
            start: Where to start in each partition; `Offset.end()` if not given.
            partitions: Which partitions; all if not given.
            prefetch: Bytes to read ahead (8 MiB).
            max_batch_size: Largest batch that is accepted, decompressed (64 MiB).
            isolation: "read_uncommitted" (default) or "read_committed".
            check_crc: Verify the checksum of each batch.

        Raises:
            TopicNotFoundError: There is no such topic.
            PartitionNotFoundError: It has no such partition.
            OffsetEvictedError: The start offset is not there.
        """
        name = _arguments.name("topic", topic)
        if start is not None and not isinstance(start, Offset):
            raise InvalidTypeError(f"start must be an Offset, such as Offset.beginning(), not {start!r}")
        if isinstance(partitions, int):
            partitions = [partitions]
        options = _arguments.given(
            partitions=None if partitions is None else _arguments.partitions(partitions),
            start=None if start is None else start._document(),
            prefetch_bytes=None if prefetch is None else _arguments.size("prefetch", prefetch),
            max_batch_bytes=None
            if max_batch_size is None
            else _arguments.size("max_batch_size", max_batch_size),
            isolation=None if isolation is None else _arguments.choice("isolation", isolation, ISOLATIONS),
            check_crc=_arguments.boolean("check_crc", check_crc),
        )
        handle = self._open()
        return Opening(self._consumer(handle, topic, name, json.dumps(options).encode("utf-8")))

    async def _consumer(self, handle: Any, topic: str, name: bytes, options: bytes) -> Consumer:
        completion: Any = await self._port.call(
            lib.fluvio_consumer_open, handle, name, len(name), options, len(options)
        )
        consumer = Consumer(
            self._port, own("fluvio_consumer *", completion[3], lib.fluvio_consumer_free), topic
        )
        self._consumers.add(consumer)
        return consumer

    async def aclose(self) -> None:
        """Close its consumers and producers, then the connection. Doing it again does nothing.

        Everything is closed when this returns, raises or is cancelled.

        Raises:
            DeliveryError: Submitted records failed and nobody had awaited them.
            FluvioTimeoutError: Records could not be sent within `close_timeout`.
        """
        handle = self._handle
        if handle is None:
            await checkpoint()
            return
        self._port.check()
        self._handle = None
        first: Optional[FluvioError] = None
        try:
            for resource in self._resources():
                try:
                    await resource.aclose()
                except FluvioError as error:
                    first = first or error
            if self._port.attached:
                await self._port.call(lib.fluvio_client_close, handle)
        finally:
            for resource in self._resources():
                resource._drop()
            del handle
            self._port.release()
        if first is not None:
            raise first

    def _resources(self) -> list[Union[Consumer, Producer]]:
        return [*self._consumers, *self._producers]

    async def __aenter__(self) -> Client:
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
        warnings.warn(
            f"unclosed {self!r}: leave its block or close it; its connections are dropped now",
            ResourceWarning,
            stacklevel=2,
            source=self,
        )
        self._port.release_from_finalizer()
