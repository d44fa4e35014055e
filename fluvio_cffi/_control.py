"""The control socket of the development server: faults, events and counters on request.

Every request is one line of JSON and one line back, on a connection of its own to a Unix socket of this
machine. That takes a fraction of a millisecond, so it may be done in an event loop.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
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


@dataclass(frozen=True)
class PlaneCounters:
    """What one of a cluster's servers has counted.

    Attributes:
        requests: Requests that it has received, by kind.
        connections_opened: Connections that it has accepted.
        connections_open: Connections that are open.
        streams_opened: Streams that were opened.
        streams_open: Streams that are open.
        received_bytes: Bytes that clients have sent.
        sent_bytes: Bytes that were sent to clients.
    """

    requests: dict[str, int]
    connections_opened: int
    connections_open: int
    streams_opened: int
    streams_open: int
    received_bytes: int
    sent_bytes: int


@dataclass(frozen=True)
class Counters:
    """What a development server has counted since its start.

    Attributes:
        controller: Of the streaming controller.
        spus: Of the streaming processing units that have had a connection, by id.
    """

    controller: PlaneCounters
    spus: dict[int, PlaneCounters]


def read_counters(answer: dict[str, Any]) -> Counters:
    """The counters as the server tells them."""
    spus = {int(id): PlaneCounters(**counters) for id, counters in answer["spus"].items()}
    return Counters(PlaneCounters(**answer["controller"]), spus)


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
        """Have it happen no more. Nothing happens if it is gone already.

        Raises:
            FluvioConnectionError: The server does not answer.
        """
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
