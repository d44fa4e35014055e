"""All options, once: name, type, default, check and meaning of each.

The parameters of `connect`, `Client.producer`, `Client.consumer` and `Topics.create` and their documentation
are written from here (`python tools/generate_options.py`), what callers pass is checked from here, and the
document for the library is made from here. A test compares it with what the library says of its options, in
both directions: name with unit, and default.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Literal, NamedTuple, Optional

from . import _arguments
from ._offset import Offset
from .errors import InvalidArgumentError, InvalidTypeError

__all__ = ["CLIENT", "CONSUMER", "PRODUCER", "TOPIC", "Compression", "Isolation", "document"]

Isolation = Literal["read_uncommitted", "read_committed"]
"""What an acknowledgement, or a read, refers to: the leader's log, or that of all replicas."""

Compression = Literal["any", "none", "gzip", "snappy", "lz4", "zstd"]
"""What producers of a topic may use; "any" leaves it to them."""

ISOLATIONS = ("read_uncommitted", "read_committed")
COMPRESSIONS = ("any", "none", "gzip", "snappy", "lz4", "zstd")
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

Check = Callable[[str, Any], Any]


class Option(NamedTuple):
    """One option.

    Attributes:
        name: The parameter.
        key: In the document of the library: the name with its unit.
        type: The annotation of the parameter.
        default: As the signature has it, in Python's own words. "None" leaves it out of the document.
        check: From name and value to what the document holds; raises for what cannot be right.
        meaning: For the documentation.
    """

    name: str
    key: str
    type: str
    default: str
    check: Check
    meaning: str


class Table(NamedTuple):
    """The options of one function.

    Attributes:
        options: In the order of the signature.
        ordered: Pairs of which the first must not be more than the second.
        adapting: Of those, what follows the other where it was not given: the library has it smaller then.
    """

    options: tuple[Option, ...]
    ordered: tuple[tuple[str, str], ...] = ()
    adapting: tuple[str, ...] = ()


def size(name: str, default: str, low: int, high: int, meaning: str) -> Option:
    """A number of bytes."""
    annotation = "Optional[Size]" if default == "None" else "Size"
    return Option(
        name,
        f"{name}_bytes",
        annotation,
        default,
        lambda what, value: _arguments.size(what, value, low, high),
        meaning,
    )


def time(name: str, default: str, meaning: str, low: int = 1, high: int = _arguments.NO_LIMIT_MS) -> Option:
    """A length of time."""
    annotation = "Optional[Duration]" if default == "None" else "Duration"
    return Option(
        name,
        f"{name}_ms",
        annotation,
        default,
        lambda what, value: _arguments.duration(what, value, low, high),
        meaning,
    )


def flag(name: str, default: str, meaning: str) -> Option:
    """True or False."""
    return Option(name, name, "bool", default, _arguments.boolean, meaning)


def isolation(meaning: str) -> Option:
    """Which log counts."""
    return Option(
        "isolation",
        "isolation",
        "Isolation",
        '"read_uncommitted"',
        lambda what, value: _arguments.choice(what, value, ISOLATIONS),
        meaning,
    )


def _start(what: str, value: object) -> dict[str, int]:
    if not isinstance(value, Offset):
        raise InvalidTypeError(
            f"{what} must be an Offset, such as Offset.beginning(), not {_arguments.typed(value)}"
        )
    return value._document()


def _partitions(what: str, value: object) -> list[int]:
    if isinstance(value, int) and not isinstance(value, bool):
        return [_arguments.partition(value, what)]
    return _arguments.partitions(value)


def _count(what: str, value: object) -> int:
    return _arguments.integer(what, value, 1, 2**31 - 1)


def _retention(what: str, value: object) -> int:
    milliseconds = _arguments.duration(what, value, 10_000)
    if milliseconds % 1000:
        raise InvalidArgumentError(f"{what} must be whole seconds: {_arguments.typed(value)}")
    return milliseconds


def _assignment(what: str, value: object) -> list[list[int]]:
    wanted = "the SPU ids of each partition, such as [[1, 2], [2, 3]]"
    result = []
    for number, replicas in enumerate(_some(what, wanted, value)):
        ids = _some(f"{what} of partition {number}", "a sequence of SPU ids", replicas)
        each = f"each SPU id in {what} of partition {number}"
        result.append([_arguments.integer(each, spu, 0, 2**31 - 1) for spu in ids])
    return result


def _some(what: str, wanted: str, value: object) -> Sequence[Any]:
    given = _arguments.sequence(what, wanted, value)
    if not given:
        raise InvalidTypeError(f"{what} must be {wanted}, not {_arguments.typed(value)}")
    return given


CLIENT = Table(
    (
        Option(
            "profile",
            "profile",
            "Optional[str]",
            "None",
            _arguments.text,
            "A profile of the `fluvio` command line's configuration file; without it, the active one.",
        ),
        Option(
            "client_id",
            "client_id",
            "str",
            '"fluvio_cffi"',
            lambda what, value: _arguments.text(what, value, _arguments.LONGEST_CLIENT_ID),
            "A name for the server's logs.",
        ),
        time(
            "connect_timeout",
            "10",
            'Limit for connecting: seconds, a timedelta or a text such as "5ms"; math.inf for no limit. '
            'Every other time is given like this too, and every size in bytes or as in "64MiB".',
        ),
        time("request_timeout", "30", "Limit for the answer to one request."),
        time(
            "close_timeout",
            "10",
            "Limit for sending what is left when a producer or the client, with all of its producers, is "
            "closed.",
        ),
        size(
            "max_frame_size",
            '"64MiB"',
            128 * KIB,
            2**31 - 1,
            "The largest answer that is accepted from a server.",
        ),
    ),
)

PRODUCER = Table(
    (
        size("batch_size", '"128KiB"', KIB, 32 * MIB, "A batch is sent once it has this many bytes."),
        size(
            "max_request_size", '"1MiB"', KIB, 32 * MIB, "The most bytes of one request, and so of a record."
        ),
        time("linger", "0", "How long to gather records even when nothing is in flight.", 0, 60_000),
        size("buffer", '"32MiB"', KIB, GIB, "Bytes of records that may wait for their answer."),
        Option(
            "in_flight",
            "in_flight",
            "int",
            "1",
            lambda what, value: _arguments.integer(what, value, 1, 64),
            "Batches in flight per partition. More than one gives up order when one is retried.",
        ),
        isolation(
            '"read_uncommitted": acknowledged once the leader has it; "read_committed": its replicas too.'
        ),
        time(
            "delivery_timeout", "120", "How long the records of a batch are tried for, from its first one on."
        ),
        time("retry_initial", '"20ms"', "First pause between tries."),
        time("retry_max", "5", "Longest pause between tries."),
    ),
    (
        ("batch_size", "max_request_size"),
        ("batch_size", "buffer"),
        ("linger", "delivery_timeout"),
        ("retry_initial", "retry_max"),
    ),
    ("batch_size",),
)

CONSUMER = Table(
    (
        Option(
            "start",
            "start",
            "Offset",
            "Offset.end()",
            _start,
            "Where to start in each partition.",
        ),
        Option(
            "partitions",
            "partitions",
            "Union[int, Sequence[int], None]",
            "None",
            _partitions,
            "Which partitions; without it all of them, also those that are added later.",
        ),
        size("prefetch", '"8MiB"', 64 * KIB, GIB, "Bytes to read ahead."),
        isolation('"read_uncommitted": what the leader has; "read_committed": what its replicas have too.'),
        flag("check_crc", "True", "Verify the checksum of each batch."),
    ),
)

TOPIC = Table(
    (
        Option(
            "partitions", "partitions", "Optional[int]", "None", _count, "How many; without assignment, 1."
        ),
        Option(
            "replication",
            "replication",
            "Optional[int]",
            "None",
            _count,
            "How many replicas of each partition; without assignment, 1.",
        ),
        Option(
            "retention",
            "retention_ms",
            "Optional[Duration]",
            "None",
            _retention,
            'How long records are kept: "7d", "1h 30m", seconds or a timedelta; None: as the cluster does.',
        ),
        size("segment_size", "None", KIB, 2**32 - 1, "Size of a segment file; None: as the cluster does."),
        size(
            "max_partition_size",
            "None",
            2 * KIB,
            2**63 - 1,
            "Size at which the oldest segments are removed; None: as the cluster does.",
        ),
        Option(
            "compression",
            "compression",
            "Compression",
            '"any"',
            lambda what, value: _arguments.choice(what, value, COMPRESSIONS),
            'The compression that producers must use; "any" leaves it to them.',
        ),
        Option(
            "assignment",
            "assignment",
            "Optional[Sequence[Sequence[int]]]",
            "None",
            _assignment,
            "The SPU ids of each partition's replicas, instead of partitions and replication.",
        ),
        flag("ignore_rack", "False", "Place replicas without regard to racks."),
        flag("dry_run", "False", "Check only."),
        Option(
            "provision_timeout",
            "timeout_ms",
            "Optional[Duration]",
            "None",
            lambda what, value: _arguments.duration(what, value, 1, 2**31 - 1),
            "How long the cluster may take to provide the partitions; None: as the cluster does.",
        ),
    ),
    (("segment_size", "max_partition_size"),),
)


def _contradiction(table: Table, passed: Mapping[str, Any], small: str, large: str) -> None:
    """Two values do not go together: say so of what was given."""
    options = {option.name: option for option in table.options}

    def is_default(name: str) -> bool:
        # However it was written: the library sees the value only.
        default = ast.literal_eval(options[name].default)
        return default is not None and options[name].check(name, passed[name]) == options[name].check(
            name, default
        )

    def told(name: str) -> str:
        # A signature does not tell whether its default was given: that it is the default is true either way.
        origin = "is the default" if is_default(name) else "was given"
        return f"{name}={_arguments.typed(passed[name])} {origin}"

    if is_default(small) and small in table.adapting:
        return
    raise InvalidArgumentError(f"{small} must be at most {large}: {told(small)}, {told(large)}")


def document(table: Table, passed: Mapping[str, Any], **more: Optional[Any]) -> bytes:
    """The document of `table` for what was passed, by parameter name; and of more, which is not None.

    Raises:
        InvalidArgumentError: A value that cannot be right, or two that contradict each other.
        InvalidTypeError: A value of the wrong type.
    """
    checked = {
        option.name: option.check(option.name, passed[option.name])
        for option in table.options
        if passed[option.name] is not None or option.default != "None"
    }
    for small, large in table.ordered:
        if small in checked and large in checked and checked[small] > checked[large]:
            _contradiction(table, passed, small, large)
    result = {key: value for key, value in more.items() if value is not None}
    for option in table.options:
        if option.name in checked:
            result[option.key] = checked[option.name]
    return json.dumps(result).encode("utf-8")
