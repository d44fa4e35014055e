"""Fluvio client for asyncio and trio.

    async with fluvio_cffi.connect("127.0.0.1:9003") as client:
        async with client.producer("greetings") as producer:
            ack = await producer.send(b"hello", key=b"42")
        async with client.consumer("greetings", start=Offset.beginning()) as records:
            async for record in records:
                print(record.partition, record.offset, record.value)

`fluvio_cffi.sync` has the same for programs without an event loop.
"""

from __future__ import annotations

from . import sync
from ._async.admin import Admin, Topics
from ._async.client import Client, connect
from ._async.consumer import BatchIterator, Consumer
from ._async.delivery import Delivery
from ._async.producer import Producer
from ._deliveries import Ack, Deliveries
from ._library import library_version
from ._offset import Offset
from ._opening import Opening
from ._records import Batch, Record
from ._topics import TopicInfo
from .errors import (
    BusyError,
    ClosedError,
    CloseError,
    ConfigError,
    CorruptBatchError,
    DeliveryError,
    ErrorKind,
    FluvioConnectionError,
    FluvioError,
    FluvioSystemError,
    FluvioTimeoutError,
    ForkedError,
    InternalError,
    InvalidArgumentError,
    InvalidTypeError,
    OffsetEvictedError,
    OffsetOutOfRangeError,
    PartialDeliveryError,
    PartitionNotFoundError,
    ProtocolError,
    RecordTooLargeError,
    ServerError,
    TopicAlreadyExistsError,
    TopicDeletedError,
    TopicNotFoundError,
    UnsupportedError,
    UnsupportedVersionError,
)

__version__ = "0.1.0"

__all__ = [
    "Ack",
    "Admin",
    "Batch",
    "BatchIterator",
    "BusyError",
    "Client",
    "CloseError",
    "ClosedError",
    "ConfigError",
    "Consumer",
    "CorruptBatchError",
    "Deliveries",
    "Delivery",
    "DeliveryError",
    "ErrorKind",
    "FluvioConnectionError",
    "FluvioError",
    "FluvioSystemError",
    "FluvioTimeoutError",
    "ForkedError",
    "InternalError",
    "InvalidArgumentError",
    "InvalidTypeError",
    "Offset",
    "OffsetEvictedError",
    "OffsetOutOfRangeError",
    "Opening",
    "PartialDeliveryError",
    "PartitionNotFoundError",
    "Producer",
    "ProtocolError",
    "Record",
    "RecordTooLargeError",
    "ServerError",
    "TopicAlreadyExistsError",
    "TopicDeletedError",
    "TopicInfo",
    "TopicNotFoundError",
    "Topics",
    "UnsupportedError",
    "UnsupportedVersionError",
    "connect",
    "library_version",
    "sync",
]
