"""What `connect()`, `client.producer()` and `client.consumer()` give: await it, or enter it."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any, Generic, Optional, Protocol, TypeVar

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


class Opening(Generic[T]):
    """Awaitable and async context manager, for one use.

    `await it` gives the open object, which is then yours to close; `async with it as ...` closes it.
    """

    __slots__ = ("_coroutine", "_opened")

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine
        self._opened: Optional[T] = None

    def __await__(self) -> Generator[Any, Any, T]:
        return self._coroutine.__await__()

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
