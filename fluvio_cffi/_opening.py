"""What `connect()`, `client.producer()` and `client.consumer()` give: await it, or enter it."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any, Generic, Optional, Protocol, TypeVar

from ._bound import Bound

if TYPE_CHECKING:
    from types import TracebackType


class Closing(Protocol):
    """Something that is closed by leaving its block."""

    async def __aenter__(self) -> Any:
        """Itself."""

    async def __aexit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        """Close it."""


T = TypeVar("T", bound=Closing)


class Opening(Bound, Coroutine[Any, Any, T], Generic[T]):
    """Awaitable and async context manager, for one use.

    `await it` gives the open object, which is then yours to close; `async with it as ...` closes it. It is a
    coroutine to asyncio, so that `asyncio.create_task`, `gather`, `wait_for` and `asyncio.run` take it.

    Raises:
        RuntimeError: It was awaited or entered before.
    """

    _instead = "await or enter it once; call what made it again for another one"
    __slots__ = ("_coroutine", "_opened")

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine
        self._opened: Optional[T] = None

    def __await__(self) -> Generator[Any, Any, T]:
        return self._coroutine.__await__()

    def send(self, value: Any) -> Any:
        """Go on, as a coroutine does; for event loops."""
        return self._coroutine.send(value)

    def throw(self, *exception: Any) -> Any:
        """Go on with an exception, as a coroutine does; for event loops."""
        return self._coroutine.throw(*exception)

    def close(self) -> None:
        """Give up an opening that is not awaited any more, without a warning."""
        self._coroutine.close()

    async def __aenter__(self) -> T:
        self._opened = opened = await self._coroutine
        return opened

    async def __aexit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.__aexit__(exc_type, exc_value, traceback)
