"""What callers pass, checked at the call: a wrong value is named, a wrong type says what to pass instead.

A message names the argument as Python calls it and the value as it was typed. Every time and every size has
the same grammar: `duration` and `size`. The hot paths ask `type(value) is bytes` themselves and come here
only when that fails.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Optional, Union

from .errors import InvalidArgumentError, InvalidTypeError

BytesLike = Union[bytes, bytearray, memoryview]
Duration = Union[str, int, float, timedelta]
Size = Union[str, int]

MAX_PARTITION = 2**31 - 1
# What `math.inf` becomes: the longest time that the library takes.
NO_LIMIT_MS = 3650 * 86_400_000
LONGEST_NAME = 63
LONGEST_CLIENT_ID = 255
_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_SIZES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?\s*(?:ms|[smhdw])\s*)+", re.ASCII)
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|[smhdw])", re.ASCII)
_SIZE = re.compile(r"(\d+)(\.\d+)?\s*([kmgt]?)(?:i?b)?", re.ASCII | re.IGNORECASE)
# Beyond every number of bytes, and within what an int is made of without a limit of Python's.
_DIGITS = 30
# A name or an IPv4 address: no white space, and no control character.
_HOST = re.compile(r"[^:/@\[\]\s\x00-\x1f\x7f-\x9f]+")
_DECIMAL = re.compile(r"[0-9]+")


def as_bytes(what: str, value: object) -> bytes:
    """A key or value as bytes: copied, so that whoever passed it may change it at once, whatever happens.

    Exactly bytes: what a class of its own says of its length need not be true.
    """
    if type(value) is bytes:
        return value
    if isinstance(value, str):
        raise InvalidTypeError(
            f"{what} must be bytes, not the str {_short(value)}: encode it, for example with .encode()"
        )
    try:
        view = memoryview(value)  # type: ignore[arg-type]
    except TypeError:
        view = None
    except (ValueError, BufferError) as error:
        raise InvalidArgumentError(f"{what} cannot be read: {error}") from error
    if view is not None:
        with view:
            if not view.c_contiguous:
                raise InvalidTypeError(f"{what} must be contiguous bytes: copy it with bytes()")
            return view.tobytes()
    hint = "; leave the key out (or pass None) for a record without one" if what == "key" else ""
    raise InvalidTypeError(f"{what} must be bytes, bytearray or memoryview, not {type(value).__name__}{hint}")


def _short(value: object) -> str:
    try:
        text = repr(value)
    except Exception:
        # Of an int with thousands of digits, or of a class of the caller's.
        text = f"{'a negative' if isinstance(value, int) and value < 0 else 'a'} {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def name(what: str, value: object) -> bytes:
    """A topic or other name."""
    if isinstance(value, bytes):
        raise InvalidTypeError(f"{what} must be a str, not the bytes {_short(value)}: decode it")
    if not isinstance(value, str):
        raise InvalidTypeError(f"{what} must be a str, not {type(value).__name__}")
    value = _plain(value)
    if not value:
        raise InvalidArgumentError(f"{what} must not be empty")
    if "\0" in value:
        raise InvalidArgumentError(f"{what} must not contain a NUL character: {_short(value)}")
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(f"{what} cannot be encoded: {_short(value)} ({error.reason})") from error


def _plain(value: str) -> str:
    # What a class of its own says of itself need not be true: what follows is about the text that it holds.
    return str.__str__(value)


def resource(what: str, value: object) -> bytes:
    """The name of a topic, as clusters allow it."""
    encoded = name(what, value)
    if len(encoded) > LONGEST_NAME:
        raise InvalidArgumentError(
            f"{what} must have at most {LONGEST_NAME} characters, not {len(encoded)}: {_short(value)}"
        )
    if not _NAME.fullmatch(encoded.decode("utf-8")):
        raise InvalidArgumentError(
            f"{what} must be lower-case letters, digits and hyphens, no hyphen at either end: {_short(value)}"
        )
    return encoded


def endpoint(value: object) -> str:
    """A "host:port", exactly as the library takes it (`check_endpoint` in engine/src/config.rs)."""
    given = text("endpoint", value)
    host, _, port = given.rpartition(":")
    digits = port.lstrip("0")
    bracketed = host[:1] == "[" and host[-1:] == "]"
    if not (_is_ipv6(host[1:-1]) if bracketed else _HOST.fullmatch(host)) or not _DECIMAL.fullmatch(port):
        bare = f', here "[{host}]:{port}"' if _is_ipv6(host) and _DECIMAL.fullmatch(port) else ""
        raise InvalidArgumentError(
            'endpoint must be "host:port", such as "127.0.0.1:9003", and an IPv6 address in brackets, such '
            f'as "[::1]:9003"{bare}: {_short(given)}'
        )
    if not digits or len(digits) > 5 or int(digits) > 65535:
        raise InvalidArgumentError(f"endpoint must have a port between 1 and 65535: {_short(given)}")
    return given


def _is_ipv6(host: str) -> bool:
    # An interface is given by its number: of names the library knows nothing.
    address, percent, scope = host.partition("%")
    if percent and not (_DECIMAL.fullmatch(scope) and int(scope.lstrip("0")[:11] or "0") < 2**32):
        return False
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return True


def text(what: str, value: object, longest: Optional[int] = None) -> str:
    """A str that is not empty, of so many bytes at most."""
    encoded = name(what, value)
    if longest is not None and len(encoded) > longest:
        raise InvalidArgumentError(
            f"{what} must have at most {longest} bytes, not {len(encoded)}: {_short(value)}"
        )
    return encoded.decode("utf-8")


def path(what: str, value: object) -> str:
    """A path that is not empty."""
    if not isinstance(value, (str, os.PathLike)):
        raise InvalidTypeError(f"{what} must be a str or a path, not {type(value).__name__}")
    given = os.fsdecode(value)
    if not given:
        raise InvalidArgumentError(f"{what} must not be empty")
    if "\0" in given:
        raise InvalidArgumentError(f"{what} must not contain a NUL character: {_short(given)}")
    return given


def integer(what: str, value: object, minimum: int, maximum: int = 2**63 - 1) -> int:
    """An int within bounds; bool is not one."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidTypeError(f"{what} must be an int, not {type(value).__name__} ({_short(value)})")
    number = int.__index__(value)
    if number < minimum:
        raise InvalidArgumentError(
            f"{what} must not be negative: {_short(value)}"
            if minimum == 0
            else f"{what} must be at least {minimum}: {_short(value)}"
        )
    if number > maximum:
        raise InvalidArgumentError(f"{what} must be at most {maximum}: {_short(value)}")
    return number


def boolean(what: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise InvalidTypeError(f"{what} must be True or False, not {_short(value)}")
    return value


def partition(value: object, what: str = "partition") -> int:
    """A partition number."""
    return integer(what, value, 0, MAX_PARTITION)


def sequence(what: str, wanted: str, value: object) -> Sequence[Any]:
    """A sequence of what is not text or bytes: those are sequences too, of str and of int, by accident."""
    if isinstance(value, (str, bytes, bytearray, memoryview)) or not isinstance(value, Sequence):
        raise InvalidTypeError(f"{what} must be {wanted}, not {_short(value)}")
    return value


def partitions(value: object) -> list[int]:
    """A selection of partitions."""
    value = sequence("partitions", "a sequence of ints, such as [0, 1]", value)
    chosen = [partition(item, f"partitions[{index}]") for index, item in enumerate(value)]
    if not chosen:
        raise InvalidArgumentError(
            "partitions must name at least one partition; leave it out for all of them"
        )
    return chosen


def choice(what: str, value: object, allowed: Sequence[str]) -> str:
    """One of a few words."""
    if not isinstance(value, str):
        raise InvalidTypeError(f"{what} must be a str, not {type(value).__name__}")
    chosen = _plain(value)
    if chosen not in allowed:
        raise InvalidArgumentError(f"{what} must be one of {', '.join(allowed)}: {_short(chosen)}")
    return chosen


def duration(what: str, value: object, minimum: int = 1, maximum: int = NO_LIMIT_MS) -> int:
    """A time in milliseconds: of seconds, a timedelta, or a text such as "5ms", "7d" or "1h 30m".

    `math.inf` is no limit, where `maximum` does not forbid that.
    """
    infinite = False
    if isinstance(value, str):
        stripped = _plain(value).strip().lower()
        if not _DURATION.fullmatch(stripped):
            raise InvalidArgumentError(
                f'{what} must be a time such as "5ms", "12h" or "1h 30m" (units ms s m h d w): '
                f"{_short(value)}"
            )
        milliseconds = sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(stripped))
    elif isinstance(value, timedelta):
        milliseconds = timedelta.total_seconds(value) * 1000
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidTypeError(
            f'{what} must be a number of seconds, a timedelta or a text such as "5ms", not {_short(value)}'
        )
    elif isinstance(value, float):
        milliseconds = float.__float__(value) * 1000
        infinite = milliseconds == math.inf and math.isinf(value)
    else:
        seconds = int.__index__(value)
        # Beyond all bounds, and a float has some, too.
        milliseconds = seconds * 1000.0 if abs(seconds) < 10**15 else math.inf if seconds > 0 else -math.inf
    if infinite and maximum == NO_LIMIT_MS:
        return NO_LIMIT_MS
    if math.isnan(milliseconds) or milliseconds < 0 or (minimum and not milliseconds):
        raise InvalidArgumentError(
            f"{what} must be a {'positive' if minimum else 'non-negative'} time: {typed(value)}"
        )
    if milliseconds > maximum:
        unlimited = " (math.inf: no limit)" if maximum == NO_LIMIT_MS else ""
        raise InvalidArgumentError(f"{what} must be at most {_time(maximum)}{unlimited}: {typed(value)}")
    # Never less than was asked for; the tolerance is for floats such as 0.001 * 1000.
    result = math.ceil(milliseconds - 1e-6)
    if result < minimum:
        raise InvalidArgumentError(f"{what} must be at least {_time(minimum)}: {typed(value)}")
    return result


def timeout(value: object) -> Optional[float]:
    """The `timeout=` of a call, in seconds; None: no limit."""
    if value is None or (isinstance(value, float) and value == math.inf):
        return None
    return duration("timeout", value, 0) / 1000


def _time(milliseconds: int) -> str:
    for unit in ("d", "h", "m", "s"):
        if milliseconds % _UNITS[unit] == 0:
            return f'"{milliseconds // _UNITS[unit]}{unit}"'
    return f'"{milliseconds}ms"'


def typed(value: object) -> str:
    """A value for a message, as its reader typed it."""
    return str(value) if isinstance(value, timedelta) else _short(value)


def size(what: str, value: object, minimum: int = 1, maximum: int = 2**63 - 1) -> int:
    """A number of bytes: an int, or a text such as "64MiB" (units are powers of 1024)."""
    if isinstance(value, str):
        match = _SIZE.fullmatch(_plain(value).strip())
        if match is None:
            raise InvalidArgumentError(
                f'{what} must be a number of bytes such as 1048576 or "1MiB": {_short(value)}'
            )
        unit = _SIZES[match[3].lower()]
        whole = match[1].lstrip("0")
        count = int(whole or "0") * unit if len(whole) <= _DIGITS else maximum + 1
        count += int(float(f"0{match[2] or ''}") * unit)
    elif isinstance(value, bool) or not isinstance(value, int):
        raise InvalidTypeError(
            f'{what} must be a number of bytes such as 1048576 or "1MiB", not {_short(value)}'
        )
    else:
        count = int.__index__(value)
    if count < minimum:
        raise InvalidArgumentError(
            f"{what} must not be negative: {_short(value)}"
            if minimum == 0
            else f"{what} must be at least {minimum}: {_short(value)}"
        )
    if count > maximum:
        raise InvalidArgumentError(f"{what} must be at most {maximum}: {_short(value)}")
    return count


def given(**options: Optional[Any]) -> dict[str, Any]:
    """The options that are not None."""
    return {key: value for key, value in options.items() if value is not None}
