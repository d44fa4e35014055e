"""What belongs to one process, and mostly to one event loop, so that there is one of it: it is not copied.

A copy would be a second owner of the same connection, which its end would close under the first one.
"""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

__all__ = ["Bound"]


class Bound:
    """`copy.copy`, `copy.deepcopy` and `pickle` raise TypeError, which says what to do instead."""

    __slots__ = ()
    _instead: ClassVar[str] = "share it, or make another one where it is needed"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} cannot be copied or pickled: it is bound to this process. "
            f"What to do instead: {self._instead}"
        )

    def __reduce__(self) -> NoReturn:
        self.__reduce_ex__(0)
