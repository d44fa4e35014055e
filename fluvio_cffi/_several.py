"""What an error that stands for several may say: only what holds for each of them.

Whoever handles it acts on all that it stands for at once. Called retriable for the sake of the first of them,
the others would be written twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["common"]


def common(errors: Iterable[Exception]) -> dict[str, Any]:
    """Kind and code of the first error of this package; what it is about, and its fate, if all agree.

    Of different outcomes the most cautious is told, "unknown".
    """
    several = list({id(error): error for error in errors}.values())
    first = next((error for error in several if hasattr(error, "retriable")), None)
    if first is None:
        return {}
    facts = {name: getattr(first, name) for name in ("kind", "code")}
    for name in ("topic", "partition", "spu", "endpoint", "outcome"):
        values = {getattr(error, name, None) for error in several}
        facts[name] = values.pop() if len(values) == 1 else "unknown" if name == "outcome" else None
    facts["retriable"] = all(getattr(error, "retriable", False) for error in several)
    return facts
