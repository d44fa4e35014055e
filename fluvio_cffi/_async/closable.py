"""What clients, producers and consumers have in common: their block closes them, and replaces nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional, TypeVar

from .._bound import Bound
from .._findings import annotate

if TYPE_CHECKING:
    from types import TracebackType

C = TypeVar("C", bound="Closable")


class Closable(Bound):
    """Closed by leaving its block. What ended the block goes on its way, with notes on what closing found."""

    async def aclose(self) -> None:
        """Close it."""
        raise NotImplementedError

    async def __aenter__(self: C) -> C:
        return self

    async def __aexit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        if exc_value is None:
            await self.aclose()
            return
        try:
            await self.aclose()
        except Exception as found:
            annotate(exc_value, found)
