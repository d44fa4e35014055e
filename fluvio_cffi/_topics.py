"""Topics as the library describes them and as it wants them described."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from . import _arguments
from ._arguments import Duration, Size
from .errors import InvalidArgumentError, InvalidTypeError

__all__ = ["TopicInfo"]

COMPRESSIONS = ("any", "none", "gzip", "snappy", "lz4", "zstd")


@dataclasses.dataclass(frozen=True)
class TopicInfo:
    """A topic.

    Attributes:
        name: Its name.
        partitions: How many partitions it has.
        replication: How many replicas each partition has.
        compression: "any" (producers decide) or the one compression that is allowed.
        retention_ms: How long records are kept, in milliseconds; None: the server's default.
        segment_bytes: Size of a segment file; None: the server's default.
        max_partition_bytes: Size at which old segments are removed; None: the server's default.
        system: Whether it is one of the platform's own topics.
        status: What the cluster says about its provisioning.
        reason: Why, if there is something to say.
    """

    name: str
    partitions: int
    replication: int
    compression: str
    retention_ms: Optional[int]
    segment_bytes: Optional[int]
    max_partition_bytes: Optional[int]
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


def creation(
    name: str,
    partitions: Optional[int],
    replication: Optional[int],
    retention: Optional[Duration],
    segment_size: Optional[Size],
    max_partition_size: Optional[Size],
    compression: Optional[str],
    assignment: Optional[Sequence[Sequence[int]]],
    ignore_rack: bool,
    dry_run: bool,
) -> bytes:
    """The document of a create request."""
    document: dict[str, Any] = {
        "name": _arguments.text("topic name", name),
        "ignore_rack": _arguments.boolean("ignore_rack", ignore_rack),
        "dry_run": _arguments.boolean("dry_run", dry_run),
    }
    if assignment is not None:
        if partitions is not None or replication is not None:
            raise InvalidArgumentError(
                "assignment says how many partitions and replicas there are: leave those out"
            )
        document["assignment"] = _assignment(assignment)
    else:
        document["partitions"] = _arguments.integer(
            "partitions", 1 if partitions is None else partitions, 1, 2**31 - 1
        )
        document["replication"] = _arguments.integer(
            "replication", 1 if replication is None else replication, 1, 2**31 - 1
        )
    if retention is not None:
        document["retention_ms"] = _arguments.duration("retention", retention)
    if segment_size is not None:
        document["segment_bytes"] = _arguments.size("segment_size", segment_size)
    if max_partition_size is not None:
        document["max_partition_bytes"] = _arguments.size("max_partition_size", max_partition_size)
    if compression is not None:
        document["compression"] = _arguments.choice("compression", compression, COMPRESSIONS)
    return json.dumps(document).encode("utf-8")


def _assignment(value: object) -> list[list[int]]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence) or not value:
        raise InvalidTypeError(
            f"assignment must be the SPU ids of each partition, such as [[1, 2], [2, 3]], not {value!r}"
        )
    result = []
    for number, replicas in enumerate(value):
        if isinstance(replicas, (str, bytes)) or not isinstance(replicas, Sequence) or not replicas:
            raise InvalidTypeError(
                f"assignment of partition {number} must be a sequence of SPU ids, not {replicas!r}"
            )
        result.append([_arguments.integer("SPU id", spu, 0, 2**31 - 1) for spu in replicas])
    return result


def selection(filters: Optional[Sequence[str]], system: bool) -> bytes:
    """The options of a list request."""
    document: dict[str, Any] = {"system": _arguments.boolean("system", system)}
    if filters is not None:
        if isinstance(filters, str) or not isinstance(filters, Sequence):
            raise InvalidTypeError(f"filters must be a sequence of str, not {filters!r}")
        document["filter"] = [_arguments.text("filter", item) for item in filters]
    return json.dumps(document).encode("utf-8")
