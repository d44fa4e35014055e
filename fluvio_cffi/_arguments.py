"""What callers pass, checked at the call: a wrong value is named, a wrong type says what to pass instead.

The hot paths ask `type(value) is bytes` themselves and come here only when that fails.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Optional, Union

from ._library import ffi
from .errors import InvalidArgumentError, InvalidTypeError

BytesLike = Union[bytes, bytearray, memoryview]
Seconds = Union[int, float, timedelta]
Duration = Union[str, int, float, timedelta]
Size = Union[str, int]

MAX_PARTITION = 2**31 - 1
_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_SIZES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?\s*(?:ms|[smhdw])\s*)+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|[smhdw])")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)


def data(what: str, value: object) -> tuple[Any, int]:
    """A key or value as the library takes it: what to pass (to be kept meanwhile) and the length."""
    if isinstance(value, bytes):
        return value, len(value)
    if isinstance(value, str):
        raise InvalidTypeError(
            f"{what} must be bytes, not the str {_short(value)}: encode it, for example with .encode()"
        )
    try:
        view = memoryview(value)  # type: ignore[arg-type]
    except TypeError:
        view = None
    if view is not None:
        # Asked here: PyPy's from_buffer takes what is not contiguous, and gives other bytes.
        if not view.c_contiguous:
            raise InvalidTypeError(f"{what} must be contiguous bytes: copy it with bytes()")
        pointer = ffi.from_buffer("uint8_t[]", value)
        return pointer, len(pointer)
    hint = "; leave the key out (or pass None) for a record without one" if what == "key" else ""
    raise InvalidTypeError(f"{what} must be bytes, bytearray or memoryview, not {type(value).__name__}{hint}")


def as_bytes(what: str, value: object) -> bytes:
    """`data`, copied."""
    pointer, _ = data(what, value)
    return pointer if isinstance(pointer, bytes) else bytes(ffi.buffer(pointer))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def name(what: str, value: object) -> bytes:
    """A topic or other name."""
    if isinstance(value, bytes):
        raise InvalidTypeError(f"{what} must be a str, not the bytes {_short(value)}: decode it")
    if not isinstance(value, str):
        raise InvalidTypeError(f"{what} must be a str, not {type(value).__name__}")
    if not value:
        raise InvalidArgumentError(f"{what} must not be empty")
    if "\0" in value:
        raise InvalidArgumentError(f"{what} must not contain a NUL character: {_short(value)}")
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(f"{what} cannot be encoded: {_short(value)} ({error.reason})") from error


def text(what: str, value: object) -> str:
    """A str that is not empty."""
    return name(what, value).decode("utf-8")


def integer(what: str, value: object, minimum: int, maximum: int = 2**63 - 1) -> int:
    """An int within bounds; bool is not one."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidTypeError(f"{what} must be an int, not {type(value).__name__} ({_short(value)})")
    if value < minimum:
        raise InvalidArgumentError(
            f"{what} must not be negative: {value}"
            if minimum == 0
            else f"{what} must be at least {minimum}: {value}"
        )
    if value > maximum:
        raise InvalidArgumentError(f"{what} must be at most {maximum}: {value}")
    return value


def boolean(what: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise InvalidTypeError(f"{what} must be True or False, not {_short(value)}")
    return value


def partition(value: object) -> int:
    """A partition number."""
    return integer("partition", value, 0, MAX_PARTITION)


def partitions(value: object) -> list[int]:
    """A selection of partitions."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise InvalidTypeError(f"partitions must be a sequence of ints, not {_short(value)}")
    chosen = [partition(item) for item in value]
    if not chosen:
        raise InvalidArgumentError(
            "partitions must name at least one partition; leave it out for all of them"
        )
    return chosen


def choice(what: str, value: object, allowed: Sequence[str]) -> str:
    """One of a few words."""
    if not isinstance(value, str):
        raise InvalidTypeError(f"{what} must be a str, not {type(value).__name__}")
    if value not in allowed:
        raise InvalidArgumentError(f"{what} must be one of {', '.join(allowed)}: {value!r}")
    return value


def seconds(what: str, value: object, positive: bool = True) -> int:
    """A time span in seconds or as a timedelta, in milliseconds."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidTypeError(f"{what} must be a number of seconds or a timedelta, not {_short(value)}")
    if value != value or value < 0 or (positive and value == 0) or value > 10**9:
        raise InvalidArgumentError(
            f"{what} must be a {'positive' if positive else 'non-negative'} time: {value!r}"
        )
    milliseconds = round(value * 1000)
    return max(milliseconds, 1) if positive else milliseconds


def duration(what: str, value: object) -> int:
    """`seconds`, or a text such as "7d" or "1h 30m", in milliseconds."""
    if not isinstance(value, str):
        return seconds(what, value)
    stripped = value.strip().lower()
    if not _DURATION.fullmatch(stripped):
        raise InvalidArgumentError(
            f'{what} must be a time such as "7d", "12h" or "1h 30m" (units: ms s m h d w): {value!r}'
        )
    total = sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(stripped))
    return seconds(what, total / 1000)


def size(what: str, value: object, minimum: int = 1) -> int:
    """A number of bytes, or a text such as "64MiB" (units are powers of 1024)."""
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise InvalidArgumentError(
                f'{what} must be a number of bytes such as 1048576 or "1MiB": {value!r}'
            )
        value = int(float(match[1]) * _SIZES[match[2].lower()])
    return integer(what, value, minimum)


def given(**options: Optional[Any]) -> dict[str, Any]:
    """The options that are not None."""
    return {key: value for key, value in options.items() if value is not None}
