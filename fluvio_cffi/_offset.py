"""Where a consumer starts."""

from __future__ import annotations

from typing import Any

from . import _arguments

__all__ = ["Offset"]

_MAX_RELATIVE = 2**32 - 1


class Offset:
    """A place in a partition: counted from its beginning, from its end, or an absolute offset.

    `Offset.beginning()` is the oldest record that is still there, `Offset.end()` the next one to come;
    `Offset.end(10)` starts ten records before the end, `Offset.beginning(10)` skips the first ten. What is
    removed before anything was read is passed over; an absolute offset has to be there.
    """

    __slots__ = ("_count", "_origin")
    _origin: str
    _count: int

    def __init__(self) -> None:
        raise TypeError("use Offset.beginning(), Offset.end() or Offset.absolute()")

    @classmethod
    def _make(cls, origin: str, count: int) -> Offset:
        offset = cls.__new__(cls)
        object.__setattr__(offset, "_origin", origin)
        object.__setattr__(offset, "_count", count)
        return offset

    @classmethod
    def beginning(cls, n: int = 0) -> Offset:
        """`n` records after the oldest one.

        Raises:
            InvalidArgumentError: A number that cannot be an offset.
            InvalidTypeError: It is no int.
        """
        return cls._make("beginning", _arguments.integer("n", n, 0, _MAX_RELATIVE))

    @classmethod
    def end(cls, n: int = 0) -> Offset:
        """`n` records before the end.

        Raises:
            InvalidArgumentError: A number that cannot be an offset.
            InvalidTypeError: It is no int.
        """
        return cls._make("end", _arguments.integer("n", n, 0, _MAX_RELATIVE))

    @classmethod
    def absolute(cls, n: int) -> Offset:
        """The record with offset `n`.

        Raises:
            InvalidArgumentError: A number that cannot be an offset.
            InvalidTypeError: It is no int.
        """
        return cls._make("offset", _arguments.integer("offset", n, 0))

    def _document(self) -> dict[str, int]:
        return {self._origin: self._count}

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("an Offset cannot be changed")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Offset):
            return NotImplemented
        return (self._origin, self._count) == (other._origin, other._count)

    def __hash__(self) -> int:
        return hash((self._origin, self._count))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self._origin, self._count)

    def __repr__(self) -> str:
        if self._origin == "offset":
            return f"Offset.absolute({self._count})"
        return f"Offset.{self._origin}({self._count or ''})"


def _rebuild(origin: str, count: int) -> Offset:
    return Offset._make(origin, count)
