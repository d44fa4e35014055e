"""Topics as the library describes them and as it wants them described."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from . import _arguments, _options
from .errors import InvalidArgumentError

__all__ = ["TopicInfo"]


@dataclasses.dataclass(frozen=True)
class TopicInfo:
    """A topic.

    Attributes:
        name: Its name.
        partitions: How many partitions it has.
        replication: How many replicas each partition has.
        compression: "any" (producers decide) or the one compression that is allowed.
        retention_ms: How long records are kept, in milliseconds; None: the server's default.
        segment_size_bytes: Size of a segment file; None: the server's default.
        max_partition_size_bytes: Size at which old segments are removed; None: the server's default.
        system: Whether it is one of the platform's own topics.
        status: What the cluster says about its provisioning.
        reason: Why, if there is something to say.
    """

    name: str
    partitions: int
    replication: int
    compression: str
    retention_ms: Optional[int]
    segment_size_bytes: Optional[int]
    max_partition_size_bytes: Optional[int]
    system: bool
    status: str
    reason: str

    @classmethod
    def _from(cls, document: Mapping[str, Any]) -> TopicInfo:
        # A newer library may tell more; what this version does not know is left out.
        return cls(**{field: document.get(field) for field in _FIELDS})  # type: ignore[arg-type]


_FIELDS = [field.name for field in dataclasses.fields(TopicInfo)]


def listed(text: str) -> list[TopicInfo]:
    """The answer to a list request."""
    return [TopicInfo._from(item) for item in json.loads(text)]


def creation(name: str, passed: Mapping[str, Any]) -> bytes:
    """The document of a create request, for the options that were passed."""
    if passed["assignment"] is not None and not passed["partitions"] is passed["replication"] is None:
        raise InvalidArgumentError(
            "assignment says how many partitions and replicas there are: leave those out"
        )
    return _options.document(_options.TOPIC, passed, name=_arguments.resource("topic name", name).decode())


def selection(filters: Optional[Sequence[str]], system: bool) -> bytes:
    """The options of a list request."""
    document: dict[str, Any] = {"system": _arguments.boolean("system", system)}
    if filters is not None:
        given = _arguments.sequence("filters", 'a sequence of str, such as ["orders"]', filters)
        document["filter"] = [
            _arguments.text(f"filters[{index}]", item, _arguments.LONGEST_NAME)
            for index, item in enumerate(given)
        ]
    return json.dumps(document).encode("utf-8")
