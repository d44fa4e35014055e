"""Every error that this package raises by itself: one class per kind, all below `FluvioError`.

Where Python or anyio has a name for the situation, the class is that exception too: a timeout is a
`TimeoutError`, a wrong argument a `ValueError` or `TypeError`, use after close an
`anyio.ClosedResourceError`, a second reader an `anyio.BusyResourceError`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Optional

import anyio

if TYPE_CHECKING:
    from ._deliveries import Deliveries

__all__ = [
    "BusyError",
    "ClosedError",
    "ConfigError",
    "CorruptBatchError",
    "DeliveryError",
    "ErrorKind",
    "FluvioConnectionError",
    "FluvioError",
    "FluvioTimeoutError",
    "ForkedError",
    "InternalError",
    "InvalidArgumentError",
    "InvalidTypeError",
    "OffsetEvictedError",
    "PartialDeliveryError",
    "PartitionNotFoundError",
    "ProtocolError",
    "RecordTooLargeError",
    "ServerError",
    "TopicAlreadyExistsError",
    "TopicDeletedError",
    "TopicNotFoundError",
    "UnsupportedError",
    "UnsupportedVersionError",
]


class ErrorKind(enum.IntEnum):
    """What went wrong; the numbers are those of `fluvio_error_kind` in fluvio.h."""

    INVALID_ARGUMENT = 1
    CONNECTION = 2
    TIMEOUT = 3
    PROTOCOL = 4
    UNSUPPORTED_VERSION = 5
    CONFIG = 6
    TOPIC_NOT_FOUND = 7
    TOPIC_ALREADY_EXISTS = 8
    PARTITION_NOT_FOUND = 9
    TOPIC_DELETED = 10
    SERVER = 11
    RECORD_TOO_LARGE = 12
    OFFSET_EVICTED = 13
    CORRUPT = 14
    UNSUPPORTED = 15
    CLOSED = 16
    BUSY = 17
    FORKED = 18
    PANIC = 19
    DUPLICATE = 20


class FluvioError(Exception):
    """The base of all errors of this package.

    Attributes:
        kind: What went wrong.
        code: The server's error code, 0 where the error is not the server's.
        retriable: Whether the same call may succeed later.
        detail: What else is known (for example `undelivered`); never a credential.
    """

    default_kind: ErrorKind = ErrorKind.SERVER

    def __init__(
        self,
        message: str,
        *,
        kind: Optional[ErrorKind] = None,
        code: int = 0,
        retriable: bool = False,
        detail: Optional[Mapping[str, Any]] = None,
    ) -> None:
        # Exception itself, not super(): the second bases (OSError, anyio's) have signatures of their own.
        Exception.__init__(self, message)
        self.message = message
        self.kind = self.default_kind if kind is None else kind
        self.code = code
        self.retriable = retriable
        self.detail: dict[str, Any] = dict(detail or {})

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> Any:
        return _rebuild, (type(self), self.message, self.__dict__)


def _rebuild(cls: type[FluvioError], message: str, state: dict[str, Any]) -> FluvioError:
    error = cls.__new__(cls)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class InvalidArgumentError(FluvioError, ValueError):
    """A value that cannot be right; the message names it. Nothing was sent."""

    default_kind = ErrorKind.INVALID_ARGUMENT


class InvalidTypeError(FluvioError, TypeError):
    """A value of the wrong type; the message says what to pass. Nothing was sent."""

    default_kind = ErrorKind.INVALID_ARGUMENT


class FluvioConnectionError(FluvioError, ConnectionError):
    """The server is unreachable, refused the connection, or the connection was lost."""

    default_kind = ErrorKind.CONNECTION


class FluvioTimeoutError(FluvioError, TimeoutError):
    """The server did not answer within the configured time."""

    default_kind = ErrorKind.TIMEOUT


class ProtocolError(FluvioError):
    """The peer is no Fluvio server, or sent something that cannot be understood."""

    default_kind = ErrorKind.PROTOCOL


class UnsupportedVersionError(FluvioError):
    """The platform is too old, or does not offer the needed version of a request."""

    default_kind = ErrorKind.UNSUPPORTED_VERSION


class ConfigError(FluvioError):
    """The profile file is missing, unreadable or names no usable profile."""

    default_kind = ErrorKind.CONFIG


class TopicNotFoundError(FluvioError):
    """There is no such topic."""

    default_kind = ErrorKind.TOPIC_NOT_FOUND


class TopicAlreadyExistsError(FluvioError):
    """The topic exists already."""

    default_kind = ErrorKind.TOPIC_ALREADY_EXISTS


class PartitionNotFoundError(FluvioError):
    """The topic has no such partition."""

    default_kind = ErrorKind.PARTITION_NOT_FOUND


class TopicDeletedError(FluvioError):
    """The topic was deleted while it was in use."""

    default_kind = ErrorKind.TOPIC_DELETED


class ServerError(FluvioError):
    """Any other error code of the server: see `code`."""

    default_kind = ErrorKind.SERVER


class RecordTooLargeError(FluvioError):
    """The record does not fit into one request. It was not sent."""

    default_kind = ErrorKind.RECORD_TOO_LARGE


class OffsetEvictedError(FluvioError):
    """The start offset is no longer (or not yet) there."""

    default_kind = ErrorKind.OFFSET_EVICTED


class CorruptBatchError(FluvioError):
    """A batch arrived whose checksum or structure is wrong."""

    default_kind = ErrorKind.CORRUPT


class UnsupportedError(FluvioError):
    """Something that this version cannot do."""

    default_kind = ErrorKind.UNSUPPORTED


class ClosedError(FluvioError, anyio.ClosedResourceError):
    """Use of a client, producer or consumer after its close."""

    default_kind = ErrorKind.CLOSED


class BusyError(FluvioError, anyio.BusyResourceError):
    """Another task is reading from this consumer."""

    default_kind = ErrorKind.BUSY


class ForkedError(FluvioError, RuntimeError):
    """Use in a forked child of something made before `os.fork()`: connect again in the child."""

    default_kind = ErrorKind.FORKED


class InternalError(FluvioError):
    """A bug in the library, caught at its border."""

    default_kind = ErrorKind.PANIC


class DeliveryError(FluvioError):
    """Submitted records failed and nobody had awaited their deliveries.

    Attributes:
        failed: How many.
        errors: The errors of the first of them.
    """

    def __init__(self, message: str, *, failed: int, errors: list[FluvioError]) -> None:
        first = errors[0]
        super().__init__(
            message, kind=first.kind, code=first.code, retriable=first.retriable, detail={"failed": failed}
        )
        self.failed = failed
        self.errors = errors


class PartialDeliveryError(FluvioError):
    """Some records of a `send_many` failed.

    Attributes:
        deliveries: The outcome of every record of the call.
    """

    def __init__(self, message: str, *, first: FluvioError, deliveries: Deliveries) -> None:
        super().__init__(
            message,
            kind=first.kind,
            code=first.code,
            retriable=first.retriable,
            detail={"failed": deliveries.failed, "records": len(deliveries)},
        )
        self.deliveries = deliveries


_CLASSES: dict[int, type[FluvioError]] = {
    cls.default_kind: cls
    for cls in (
        InvalidArgumentError,
        FluvioConnectionError,
        FluvioTimeoutError,
        ProtocolError,
        UnsupportedVersionError,
        ConfigError,
        TopicNotFoundError,
        TopicAlreadyExistsError,
        PartitionNotFoundError,
        TopicDeletedError,
        ServerError,
        RecordTooLargeError,
        OffsetEvictedError,
        CorruptBatchError,
        UnsupportedError,
        ClosedError,
        BusyError,
        ForkedError,
        InternalError,
    )
}
_CLASSES[ErrorKind.DUPLICATE] = InternalError


def from_parts(kind: int, message: str, code: int, retriable: bool, detail: Mapping[str, Any]) -> FluvioError:
    """The exception for an error of the library; an unknown kind is an InternalError."""
    cls = _CLASSES.get(kind, InternalError)
    known = ErrorKind(kind) if kind in _CLASSES else None
    return cls(message, kind=known, code=code, retriable=retriable, detail=detail)
