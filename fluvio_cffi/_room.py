"""Room in a producer's buffer that was waited for."""

from __future__ import annotations

from typing import Any, Callable

from ._library import Completion, discard, ffi, lib
from .errors import FluvioError, InternalError

__all__ = ["Room", "no_room"]

_send = lib.fluvio_producer_send


class Room:
    """Reserved room: a record that is accepted with it takes it; what is left is given back after the block.

    Not left to the garbage collector: on PyPy that may come long after somebody began to wait for the room.
    """

    __slots__ = ("_completion", "_handle")

    def __init__(self, completion: Completion) -> None:
        self._completion = completion
        self._handle = ffi.cast("fluvio_room *", completion[3])

    def __enter__(self) -> Room:
        return self

    def __exit__(self, *exc_info: object) -> None:
        discard(self._completion)

    def send(self, producer: Any, context: Any, *arguments: Any) -> int:
        """`fluvio_producer_send` with this room."""
        return int(_send(producer, context, self._handle, *arguments))

    def used_by(self, function: Callable[..., int]) -> Callable[..., int]:
        """A function that takes the room first, called with this one."""

        def use(_: Any, *arguments: Any) -> int:
            return function(self._handle, *arguments)

        return use


def no_room() -> FluvioError:
    """What was reserved did not do."""
    return InternalError("the reserved room was not enough: this is a bug in fluvio_cffi")
