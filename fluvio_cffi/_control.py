"""The control socket of the development server: faults and events on request.

Every request is one line of JSON and one line back, on a connection of its own to a Unix socket of this
machine. That takes a fraction of a millisecond, so it may be done in an event loop.
"""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Any, Optional

from .errors import FluvioConnectionError, InvalidArgumentError

if TYPE_CHECKING:
    from types import TracebackType

# A server that takes longer is stopped or gone.
TIMEOUT = 10.0


def order(path: str, request: dict[str, Any]) -> dict[str, Any]:
    """Send one request to the server that listens at `path`; its answer.

    Raises:
        InvalidArgumentError: The server refused it, and says why.
        FluvioConnectionError: The server does not answer.
    """
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(TIMEOUT)
            connection.connect(path)
            connection.sendall(json.dumps(request).encode() + b"\n")
            received = b""
            while not received.endswith(b"\n"):
                piece = connection.recv(65536)
                if not piece:
                    raise ConnectionError("it closed the control connection")
                received += piece
    except OSError as error:
        raise FluvioConnectionError(f"the development server does not take orders: {error}") from error
    answer: dict[str, Any] = json.loads(received)
    if "error" in answer:
        raise InvalidArgumentError(f"the development server refuses: {answer['error']}")
    return answer


class Fault:
    """An injected fault. As a context manager, synchronous or asynchronous, it is cleared at the end.

    Attributes:
        id: Its number.
        kind: What happens.
    """

    def __init__(self, path: str, id: int, kind: str) -> None:
        self._path = path
        self.id = id
        self.kind = kind

    def __repr__(self) -> str:
        return f"<Fault {self.id}: {self.kind}>"

    def clear(self) -> None:
        """Have it happen no more. Nothing happens if it is gone already."""
        order(self._path, {"clear": self.id})

    def __enter__(self) -> Fault:
        return self

    def __exit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        try:
            self.clear()
        except FluvioConnectionError:
            # A server that was stopped or killed meanwhile has taken its faults with it.
            if os.path.exists(self._path):
                raise

    async def __aenter__(self) -> Fault:
        return self

    async def __aexit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.__exit__(exc_type, exc_value, traceback)
