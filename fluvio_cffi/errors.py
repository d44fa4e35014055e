"""Every error that this package raises by itself: one class per kind, all below `FluvioError`.

Where Python or anyio has a name for the situation, the class is that exception too: a timeout is a
`TimeoutError`, a wrong argument a `ValueError` or `TypeError`, use after close an
`anyio.ClosedResourceError`, a second reader an `anyio.BusyResourceError`.

An error that is kept for later is never raised itself: each time a new one like it is (`_fresh`), so that
no traceback grows, and nobody's changes are seen by others.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional, TypeVar

import anyio

from ._several import common

E = TypeVar("E", bound="FluvioError")
G = TypeVar("G", bound="_Group")

if TYPE_CHECKING:
    from typing import Literal

    from ._deliveries import Deliveries

    Outcome = Literal["not_sent", "unknown", "written"]

    class _Group(Exception):
        exceptions: tuple[Exception, ...]

        def __new__(cls: type[G], message: str, exceptions: Sequence[Exception]) -> G: ...

elif sys.version_info >= (3, 11):
    from builtins import ExceptionGroup as _Group
else:
    from exceptiongroup import ExceptionGroup as _Group


__all__ = [
    "BusyError",
    "CloseError",
    "ClosedError",
    "ConfigError",
    "CorruptBatchError",
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
    "OffsetEvictedError",
    "OffsetOutOfRangeError",
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
    SYSTEM = 21
    OFFSET_OUT_OF_RANGE = 22


class FluvioError(Exception):
    """The base of all errors of this package.

    Attributes:
        kind: What went wrong.
        code: The server's error code, 0 where the error is not the server's.
        retriable: Whether the same call may succeed later without a change. Of a record that was handed over,
            it is True only where sending it again cannot write it twice: where `outcome` is "not_sent". An
            error that stands for several says only what holds for all of them.
        detail: What else is known (for example `undelivered`); never a credential.
        topic: The topic that it is about, if it is about one.
        partition: The partition that it is about.
        spu: The id of the SPU that it is about.
        endpoint: The "host:port" that it is about.
        outcome: What became of a record: "not_sent" (certainly not written), "unknown" (it may have been
            written), "written" (it was, but not acknowledged as asked for). None where it is not about one.
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
        topic: Optional[str] = None,
        partition: Optional[int] = None,
        spu: Optional[int] = None,
        endpoint: Optional[str] = None,
        outcome: Optional[Outcome] = None,
    ) -> None:
        # Exception itself, not super(): the second bases (OSError, anyio's) have signatures of their own.
        Exception.__init__(self, message)
        self.message = message
        self.kind = self.default_kind if kind is None else kind
        self.code = code
        self.retriable = retriable
        self.detail: dict[str, Any] = dict(detail or {})
        self.topic = topic
        self.partition = partition
        self.spu = spu
        self.endpoint = endpoint
        self.outcome: Optional[Outcome] = outcome

    def _members(self) -> Sequence[Exception]:
        """Those of a group."""
        return ()

    def _fresh(self: E) -> E:
        """Another one like it, without traceback and context; so is each error that it holds."""
        state = {
            name: [_fresh(item) for item in value] if type(value) is list else value
            for name, value in self.__dict__.items()
        }
        return _rebuild(type(self), self.message, state, [_fresh(error) for error in self._members()])

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> Any:
        return _rebuild, (type(self), self.message, self.__dict__, list(self._members()))


def _fresh(item: Any) -> Any:
    return item._fresh() if isinstance(item, FluvioError) else item


def _rebuild(cls: type[E], message: str, state: dict[str, Any], members: Sequence[Exception]) -> E:
    error: Any = _Group.__new__(cls, message, members) if members else cls.__new__(cls)  # type: ignore[type-var]
    Exception.__init__(error, message)
    for name, value in state.items():
        # Before Python 3.11 a group keeps its members there, too. Of containers each has its own.
        if name not in ("_message", "_exceptions"):
            error.__dict__[name] = value.copy() if type(value) in (dict, list) else value
    return error  # type: ignore[no-any-return]


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
    # Whether it is that of a `timeout=` of the twin.
    _of_limit = False


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
    """The wanted offset is no longer there."""

    default_kind = ErrorKind.OFFSET_EVICTED


class OffsetOutOfRangeError(FluvioError):
    """The wanted offset lies beyond the end of the log."""

    default_kind = ErrorKind.OFFSET_OUT_OF_RANGE


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


class FluvioSystemError(FluvioError, OSError):
    """The operating system refuses what is needed: descriptors, threads."""

    default_kind = ErrorKind.SYSTEM


class DeliveryError(FluvioError):
    """Records failed and nobody had received their errors: nobody had awaited them to the end.

    Attributes:
        failed: How many.
        errors: The errors of the first of them.
        outcome: What became of all of them; "unknown" if not of all the same, or not of all it is known.
        retriable: Whether all of them are.
    """

    def __init__(self, message: str, *, failed: int, errors: list[FluvioError]) -> None:
        facts = common(errors)
        if failed > len(errors) or facts["outcome"] is None:
            facts.update(outcome="unknown", retriable=False)
        super().__init__(message, detail={"failed": failed}, **facts)
        self.failed = failed
        self.errors = errors


class CloseError(FluvioError, _Group):
    """Closing found more than one failure. It is an `ExceptionGroup` too, so `except*` sees each of them.

    Attributes:
        exceptions: All of them, in the order in which they were found.
        detail: `failed` and `undelivered` are the sums of theirs.
        outcome: Theirs if all agree, else "unknown".
        retriable: False: closing again does nothing.
    """

    # The group's own one cannot be set.
    message: str = ""

    def __new__(cls, message: str, errors: Sequence[Exception]) -> CloseError:
        """See ExceptionGroup."""
        return _Group.__new__(cls, message, list(errors))

    def __init__(self, message: str, errors: Sequence[Exception]) -> None:
        known = [error for error in errors if isinstance(error, FluvioError)]
        super().__init__(message, **{**common(errors), "retriable": False})
        for name in ("failed", "undelivered"):
            counts = [error.detail[name] for error in known if name in error.detail]
            if counts:
                self.detail[name] = sum(counts)

    def derive(self, excs: Sequence[Exception]) -> CloseError:
        """A part of it, for `except*`."""
        return CloseError(self.message, excs)

    def _members(self) -> Sequence[Exception]:
        return self.exceptions


class PartialDeliveryError(FluvioError):
    """Some records of a `send_many` failed.

    Attributes:
        deliveries: The outcome of every record of the call.
        outcome: What became of those that failed; "unknown" if not of all the same.
        retriable: Whether all records of the call failed and all are retriable, so that it may be made again.
    """

    def __init__(self, message: str, *, deliveries: Deliveries) -> None:
        facts = common(deliveries._failures.values())
        whole = deliveries.failed == len(deliveries)
        facts.update(outcome=facts["outcome"] or "unknown", retriable=whole and facts["retriable"])
        super().__init__(message, detail={"failed": deliveries.failed, "records": len(deliveries)}, **facts)
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
        OffsetOutOfRangeError,
        CorruptBatchError,
        UnsupportedError,
        ClosedError,
        BusyError,
        ForkedError,
        InternalError,
        FluvioSystemError,
    )
}
_CLASSES[ErrorKind.DUPLICATE] = InternalError


def from_parts(kind: int, message: str, **facts: Any) -> FluvioError:
    """The exception for an error of the library; an unknown kind is an InternalError."""
    cls = _CLASSES.get(kind, InternalError)
    known = ErrorKind(kind) if kind in _CLASSES else None
    return cls(message, kind=known, **facts)
