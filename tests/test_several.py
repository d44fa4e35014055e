"""Errors that stand for several say what holds for all of them; what is made anew of an error is like it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any, Callable, Optional

import pytest

import fluvio_cffi
from fluvio_cffi import CloseError, DeliveryError, FluvioError, PartialDeliveryError
from fluvio_cffi._deliveries import Deliveries


def failure(outcome: Optional[str], topic: str = "orders", partition: int = 0, **more: Any) -> FluvioError:
    facts: dict[str, Any] = {"outcome": outcome, "topic": topic, "partition": partition, **more}
    return FluvioError(f"{outcome}", retriable=outcome == "not_sent", **facts)


def partial(errors: list[FluvioError], delivered: int = 0) -> PartialDeliveryError:
    deliveries = Deliveries()
    deliveries.partitions.extend([0] * delivered)
    deliveries.offsets.extend(range(delivered))
    for error in errors:
        deliveries._fail(1, error)
    result = deliveries._failure()
    assert result is not None
    return result


def unseen(errors: list[FluvioError], more: int = 0) -> DeliveryError:
    return DeliveryError("several", failed=len(errors) + more, errors=errors)


# Of the outcomes of several: what the error says of all, and whether it is retriable where it may be.
AGREED: list[tuple[list[Optional[str]], str, bool]] = [
    (["not_sent"], "not_sent", True),
    (["not_sent", "not_sent"], "not_sent", True),
    (["not_sent", "unknown"], "unknown", False),
    (["not_sent", "written"], "unknown", False),
    (["written", "written"], "written", False),
    (["unknown", "written"], "unknown", False),
    (["not_sent", None], "unknown", False),
]


@pytest.mark.parametrize(("outcomes", "outcome", "retriable"), AGREED)
def test_of_all_of_them(outcomes: list[Optional[str]], outcome: str, retriable: bool) -> None:
    for order in (outcomes, outcomes[::-1]):
        errors = [failure(item) for item in order]
        for error in (unseen(errors), partial(errors)):
            assert (error.outcome, error.retriable) == (outcome, retriable)
        # Closing again does nothing, whatever it found.
        closed = CloseError("several", errors)
        assert (closed.outcome, closed.retriable) == (outcome, False)


def test_what_is_not_known_of_some() -> None:
    errors = [failure("not_sent")] * 2
    assert (unseen(errors, more=1).outcome, unseen(errors, more=1).retriable) == ("unknown", False)
    # Of the records that failed; but the call cannot be made again, as others were written.
    assert (partial(errors, delivered=1).outcome, partial(errors, delivered=1).retriable) == (
        "not_sent",
        False,
    )
    # What no record has anything to do with.
    assert CloseError("several", [failure(None), failure(None)]).outcome is None
    assert CloseError("several", [failure("not_sent"), ValueError()]).outcome == "unknown"
    assert CloseError("several", [ValueError(), OSError()]).retriable is False


def test_what_they_are_about() -> None:
    """A topic, a partition ... only if all of them are about it."""
    one, same, other = failure("unknown"), failure("unknown"), failure("unknown", "bills", 3)
    makers: list[Callable[[list[FluvioError]], FluvioError]] = [
        unseen,
        partial,
        lambda errors: CloseError("several", errors),
    ]
    for make in makers:
        assert (make([one, same]).topic, make([one, same]).partition) == ("orders", 0)
        assert (make([one, other]).topic, make([one, other]).partition) == (None, None)


def examples() -> Iterator[FluvioError]:
    """One of each class, with everything that an error can have."""
    facts: dict[str, Any] = {"code": 3, "topic": "orders", "partition": 1, "spu": 5001, "outcome": "unknown"}
    for name in fluvio_cffi.errors.__all__:
        cls: Any = getattr(fluvio_cffi.errors, name)
        if not issubclass(cls, FluvioError):
            continue
        member = FluvioError("member", detail={"failed": 1, "of": "it"}, endpoint="h:1", **facts)
        member.__dict__["__notes__"] = ["of the member"]
        if cls is DeliveryError:
            yield unseen([member, failure("unknown")])
        elif cls is CloseError:
            yield CloseError("several", [member, ValueError("mine")])
            yield CloseError("nested", [member, CloseError("inner", [failure("unknown")])])
        elif cls is PartialDeliveryError:
            yield partial([member], delivered=2)
        else:
            yield cls("message", retriable=True, detail={"of": "it"}, endpoint="h:1", **facts)


def seen(thing: Any) -> Any:
    """All that one can see of an error, in plain values."""
    if isinstance(thing, Deliveries):
        errors = {index: seen(error) for index, error in thing.errors.items()}
        return (list(thing.partitions), list(thing.offsets), errors)
    if isinstance(thing, BaseException):
        facts = {name: seen(value) for name, value in vars(thing).items() if name[:4] != "_exc"}
        return (type(thing), str(thing), thing.args, facts, seen(list(getattr(thing, "exceptions", []))))
    if isinstance(thing, dict):
        return {name: seen(value) for name, value in thing.items()}
    return [seen(item) for item in thing] if isinstance(thing, list) else thing


def pickled(protocol: int) -> Callable[[Any], Any]:
    return lambda error: pickle.loads(pickle.dumps(error, protocol))


COPIES: dict[str, Callable[[Any], Any]] = {
    "fresh": lambda error: error._fresh(),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle {protocol}": pickled(protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)},
}


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("error", list(examples()), ids=lambda error: f"{type(error).__name__}-{error}")
def test_another_one_like_it(way: str, error: FluvioError) -> None:
    error.detail["changed"] = "later"
    error.topic = "changed later"
    error.__dict__["__notes__"] = ["noted"]
    before = seen(error)
    another = COPIES[way](error)
    assert another is not error
    assert seen(another) == before
    assert another.__traceback__ is None
    # What one does to it is not seen by others.
    another.detail["of"] = "another"
    another.__dict__["__notes__"].append("of another")
    for list_of in ("errors", "exceptions"):
        for member in getattr(another, list_of, []) if way != "copy" else []:
            if isinstance(member, FluvioError):
                member.__dict__.setdefault("__notes__", []).append("of another's member")
    if isinstance(another, DeliveryError):
        another.errors.pop()
    assert seen(error) == before
