"""Wrong values get a typed error at the call that names them, and leave everything usable."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any, Callable, NamedTuple, Optional

import pytest

import fluvio_cffi
from fluvio_cffi import (
    BusyError,
    Client,
    ClosedError,
    FluvioError,
    FluvioTimeoutError,
    InvalidArgumentError,
    InvalidTypeError,
    Offset,
    PartitionNotFoundError,
    RecordTooLargeError,
    _arguments,
    _options,
)
from fluvio_cffi.devserver import DevServer
from tests.support import take

BAD_CONNECTS: list[tuple[dict[str, Any], type[FluvioError], str]] = [
    ({"endpoint": ""}, InvalidArgumentError, "endpoint must not be empty"),
    ({"endpoint": b"localhost:1"}, InvalidTypeError, "endpoint must be a str"),
    ({"endpoint": 9003}, InvalidTypeError, "endpoint must be a str, not int"),
    ({"endpoint": "a:1\0"}, InvalidArgumentError, "NUL"),
    ({"endpoint": "a:1", "profile": "b"}, InvalidArgumentError, "either endpoint or profile"),
    ({"profile": ""}, InvalidArgumentError, "profile must not be empty"),
    ({"client_id": 5}, InvalidTypeError, "client_id must be a str"),
    ({"connect_timeout": -1}, InvalidArgumentError, "connect_timeout must be a positive time: -1"),
    ({"connect_timeout": 0}, InvalidArgumentError, "connect_timeout"),
    ({"request_timeout": "3"}, InvalidArgumentError, "request_timeout must be a time such as .*: '3'"),
    ({"request_timeout": None}, InvalidTypeError, "request_timeout must be a number of seconds, a timedelta"),
    ({"close_timeout": float("nan")}, InvalidArgumentError, "close_timeout"),
    ({"close_timeout": True}, InvalidTypeError, "close_timeout"),
    ({"close_timeout": "5 parsecs"}, InvalidArgumentError, "close_timeout .*'5 parsecs'"),
    ({"close_timeout": timedelta(seconds=-5)}, InvalidArgumentError, "close_timeout .*: -1 day, 23:59:55"),
    ({"close_timeout": timedelta.max}, InvalidArgumentError, "at most .* 999999999 days"),
    ({"close_timeout": 1e300}, InvalidArgumentError, r"at most .*math\.inf: no limit.*: 1e\+300"),
    ({"endpoint": "localhost"}, InvalidArgumentError, "endpoint must be \"host:port\".*'localhost'"),
    ({"endpoint": "h:0"}, InvalidArgumentError, "'h:0'"),
    ({"endpoint": "h:99999"}, InvalidArgumentError, "'h:99999'"),
    ({"endpoint": ":9003"}, InvalidArgumentError, "':9003'"),
    ({"endpoint": "h:65536"}, InvalidArgumentError, "port between 1 and 65535: 'h:65536'"),
    ({"endpoint": "h:" + "1" * 5000}, InvalidArgumentError, "port between 1 and 65535"),
    ({"endpoint": "h:1:2"}, InvalidArgumentError, "'h:1:2'"),
    ({"endpoint": "http://h:1"}, InvalidArgumentError, "'http://h:1'"),
    ({"endpoint": "h h:1"}, InvalidArgumentError, "'h h:1'"),
    ({"client_id": "x" * 256}, InvalidArgumentError, "client_id must have at most 255 bytes, not 256: 'xxx"),
    ({"client_id": "é" * 200}, InvalidArgumentError, "client_id must have at most 255 bytes, not 400"),
]


@pytest.mark.parametrize(
    ("arguments", "error", "message"), BAD_CONNECTS, ids=[str(case[0]) for case in BAD_CONNECTS]
)
def test_connect(arguments: dict[str, Any], error: type[FluvioError], message: str) -> None:
    for connect in (fluvio_cffi.connect, fluvio_cffi.sync.connect):
        with pytest.raises(error, match=message):
            connect(**arguments)


class Triple(NamedTuple):
    """Not a pair."""

    first: bytes
    second: bytes
    third: bytes


class LyingTriple(Triple):
    """Says that it is a pair."""

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[bytes]:
        return iter((b"k", b"v"))


AnyServer: Any = DevServer
RELEASED = memoryview(b"")
RELEASED.release()
Call = Callable[[Any, Any, Any], Any]
BAD_CALLS: list[tuple[Call, Any, str]] = [
    (lambda c, p, r: p.send("text"), InvalidTypeError, r"value must be bytes, not the str 'text': encode it"),
    (
        lambda c, p, r: p.send(None),
        InvalidTypeError,
        "value must be bytes, bytearray or memoryview, not NoneType",
    ),
    (lambda c, p, r: p.send(5), InvalidTypeError, "value must be .* not int"),
    (lambda c, p, r: p.send(memoryview(b"0123")[::2]), InvalidTypeError, "value must be contiguous"),
    (lambda c, p, r: p.send(b"", key="k"), InvalidTypeError, "key must be bytes, not the str 'k'"),
    (lambda c, p, r: p.send(b"", key=1), InvalidTypeError, "key must be .* not int"),
    (lambda c, p, r: p.send(b"", partition=-1), InvalidArgumentError, "partition must not be negative: -1"),
    (lambda c, p, r: p.send(b"", partition="0"), InvalidTypeError, "partition must be an int, not str"),
    (lambda c, p, r: p.send(b"", partition=2**31), InvalidArgumentError, "partition must be at most"),
    (lambda c, p, r: p.send(b"", partition=7), (PartitionNotFoundError, InvalidArgumentError), "7"),
    (lambda c, p, r: p.send(b"x" * 50_000_000), (RecordTooLargeError, InvalidArgumentError), "500000"),
    (lambda c, p, r: p.submit("text"), InvalidTypeError, "value must be bytes"),
    (lambda c, p, r: p.submit(b"", partition=-1), InvalidArgumentError, "-1"),
    (lambda c, p, r: p.submit(b"", partition=7), (PartitionNotFoundError, InvalidArgumentError), "7"),
    (lambda c, p, r: p.send_many(b"bytes"), InvalidTypeError, r"use send\(\)"),
    (lambda c, p, r: p.send_many("text"), InvalidTypeError, r"use send\(\)"),
    (lambda c, p, r: p.send_many(5), InvalidTypeError, "iterable"),
    (lambda c, p, r: p.send_many([b"", "text"]), InvalidTypeError, r"values\[1\] must be bytes, not the str"),
    (lambda c, p, r: p.send_many([b""] * 9999 + [None]), InvalidTypeError, r"values\[9999\]"),
    (lambda c, p, r: p.send_many([b""], keys=[]), InvalidArgumentError, "0 keys for 1 values"),
    (lambda c, p, r: p.send_many([b""], keys=b"k"), InvalidTypeError, "keys must be an iterable"),
    (lambda c, p, r: p.send_many([b""], keys=5), InvalidTypeError, "keys must be an iterable .*, not int"),
    (lambda c, p, r: p.send_many([b""], keys={b"k": 1}), InvalidTypeError, "keys must be .*, not dict"),
    (lambda c, p, r: p.send_many({b"k": b"v"}), InvalidTypeError, r"not a dict: pass its items\(\)"),
    (lambda c, p, r: p.send_many(None), InvalidTypeError, "values must be an iterable .*, not NoneType"),
    (lambda c, p, r: p.send(RELEASED), InvalidArgumentError, "value cannot be read: .*released"),
    (lambda c, p, r: p.send_many([RELEASED]), InvalidArgumentError, r"values\[0\] cannot be read"),
    (lambda c, p, r: p.send_many([b""], keys=["k"]), InvalidTypeError, r"keys\[0\] must be bytes"),
    (
        lambda c, p, r: p.send_many([(b"k", b"v"), b"v"]),
        InvalidTypeError,
        r"values\[1\] must be a Record or a pair",
    ),
    (
        lambda c, p, r: p.send_many([Triple(b"a", b"b", b"c")]),
        InvalidTypeError,
        r"values\[0\] must be a Record or a pair \(key, value\), not Triple of 3 items",
    ),
    (
        lambda c, p, r: p.send_many(pair for pair in [(b"k", b"v"), Triple(b"a", b"b", b"c")]),
        InvalidTypeError,
        r"values\[1\] must be a Record or a pair \(key, value\) as values\[0\] is, not Triple of 3 items",
    ),
    (
        lambda c, p, r: p.send_many([(b"v",)]),
        InvalidTypeError,
        r"values\[0\] must be a Record .*, not tuple of 1 items",
    ),
    (
        lambda c, p, r: p.send_many([LyingTriple(b"a", b"b", b"c")]),
        InvalidTypeError,
        r"values\[0\] must be a Record .*, not LyingTriple of 3 items",
    ),
    (
        lambda c, p, r: p.send_many([b"v", Triple(b"a", b"b", b"c")]),
        InvalidTypeError,
        r"values\[1\] must be bytes, bytearray or memoryview, not Triple",
    ),
    (
        lambda c, p, r: p.send_many([Triple(b"a", b"b", b"c")], keys=[b"k"]),
        InvalidTypeError,
        r"values\[0\] must be bytes, bytearray or memoryview, not Triple",
    ),
    (lambda c, p, r: p.send_many([(b"k", "v")]), InvalidTypeError, r"values\[0\] must be bytes"),
    (lambda c, p, r: p.send_many([b""], partition=-2), InvalidArgumentError, "-2"),
    (lambda c, p, r: p.send_many([b""], partition=7), (PartitionNotFoundError, InvalidArgumentError), "7"),
    (lambda c, p, r: p.send_many([b"x" * 50_000_000]), (RecordTooLargeError, InvalidArgumentError), "500000"),
    (lambda c, p, r: c.producer(""), InvalidArgumentError, "topic must not be empty"),
    (lambda c, p, r: c.producer(b"topic"), InvalidTypeError, "topic must be a str, not the bytes"),
    (lambda c, p, r: c.producer(None), InvalidTypeError, "topic must be a str"),
    (lambda c, p, r: c.producer("t\0"), InvalidArgumentError, "NUL"),
    (lambda c, p, r: c.producer("\udcff"), InvalidArgumentError, "encoded"),
    (
        lambda c, p, r: c.producer("t", batch_size=0),
        InvalidArgumentError,
        "batch_size must be at least 1024: 0",
    ),
    (lambda c, p, r: c.producer("t", batch_size="many"), InvalidArgumentError, "batch_size"),
    (
        lambda c, p, r: c.producer("t", linger="2m"),
        InvalidArgumentError,
        "linger must be at most \"1m\": '2m'",
    ),
    (
        lambda c, p, r: c.producer("t", linger=math.inf),
        InvalidArgumentError,
        'linger must be at most "1m": inf',
    ),
    (lambda c, p, r: c.producer("t", buffer=math.inf), InvalidTypeError, "buffer must be a number of bytes"),
    (
        lambda c, p, r: c.producer("t", buffer="1 B"),
        InvalidArgumentError,
        "buffer must be at least 1024: '1 B'",
    ),
    (lambda c, p, r: c.producer("t", buffer="2GiB"), InvalidArgumentError, "buffer must be at most .*'2GiB'"),
    (lambda c, p, r: c.producer("t", in_flight=65), InvalidArgumentError, "in_flight must be at most 64: 65"),
    (
        lambda c, p, r: c.producer("t", batch_size="2MiB"),
        InvalidArgumentError,
        "batch_size must be at most max_request_size: batch_size='2MiB' was given",
    ),
    (
        lambda c, p, r: c.producer("t", retry_initial="1s", retry_max=0.5),
        InvalidArgumentError,
        r"retry_initial must be at most retry_max: retry_initial='1s' was given, retry_max=0\.5 was given",
    ),
    (lambda c, p, r: c.consumer("t", prefetch="1KiB"), InvalidArgumentError, "prefetch .*'1KiB'"),
    (
        lambda c, p, r: c.producer("Not a topic"),
        InvalidArgumentError,
        "topic must be lower-case .*'Not a topic'",
    ),
    (lambda c, p, r: c.consumer("-t"), InvalidArgumentError, "topic must be lower-case .*'-t'"),
    (
        lambda c, p, r: c.producer("x" * 64),
        InvalidArgumentError,
        "topic must have at most 63 characters, not 64",
    ),
    (lambda c, p, r: c.admin.topics.create("a_b"), InvalidArgumentError, "topic name must be .*'a_b'"),
    (lambda c, p, r: c.admin.topics.delete("ä"), InvalidArgumentError, "topic name must be .*'ä'"),
    (
        lambda c, p, r: c.admin.topics.create("t", retention="1h 10500ms"),
        InvalidArgumentError,
        "retention must be whole seconds: '1h 10500ms'",
    ),
    (
        lambda c, p, r: c.admin.topics.create("t", retention=timedelta(seconds=5)),
        InvalidArgumentError,
        'retention must be at least "10s": 0:00:05',
    ),
    (
        lambda c, p, r: c.admin.topics.create("t", segment_size="1MiB", max_partition_size=4096),
        InvalidArgumentError,
        "segment_size must be at most max_partition_size: segment_size='1MiB' was given, .*=4096 was given",
    ),
    (
        lambda c, p, r: p.send_many([b""] * 9999 + [b"x" * 1_048_576]),
        RecordTooLargeError,
        r"values\[9999\] has 1048576 bytes",
    ),
    (
        lambda c, p, r: p.send_many([b""] * 9999 + [b"x" * 600_000], keys=[None] * 9999 + [b"x" * 600_000]),
        RecordTooLargeError,
        r"values\[9999\] with its key has 1200000 bytes",
    ),
    (lambda c, p, r: p.send(b"x" * 2_000_000), RecordTooLargeError, "2000000 bytes.*raise max_request_size"),
    (
        lambda c, p, r: p.submit(b"x" * 2_000_000),
        RecordTooLargeError,
        "2000000 bytes.*raise max_request_size",
    ),
    (lambda c, p, r: c.producer("t", linger=-1), InvalidArgumentError, "linger"),
    (lambda c, p, r: c.producer("t", linger=-1), InvalidArgumentError, "linger"),
    (lambda c, p, r: c.producer("t", in_flight=0), InvalidArgumentError, "in_flight"),
    (lambda c, p, r: c.producer("t", isolation="x"), InvalidArgumentError, "isolation must be one of"),
    (lambda c, p, r: c.consumer(""), InvalidArgumentError, "topic must not be empty"),
    (lambda c, p, r: c.consumer("t", start=5), InvalidTypeError, "start must be an Offset"),
    (
        lambda c, p, r: c.consumer("t", partitions=[-1]),
        InvalidArgumentError,
        r"partitions\[0\] must not be negative: -1",
    ),
    (
        lambda c, p, r: c.consumer("t", partitions=-1),
        InvalidArgumentError,
        "partitions must not be negative: -1",
    ),
    (
        lambda c, p, r: c.admin.topics.create("t", assignment=[[0], [-1]]),
        InvalidArgumentError,
        "each SPU id in assignment of partition 1 must not be negative: -1",
    ),
    (lambda c, p, r: c.admin.topics.list(["a", 5]), InvalidTypeError, r"filters\[1\] must be a str"),
    (lambda c, p, r: c.admin.topics.list(["x" * 64]), InvalidArgumentError, r"filters\[0\] .* at most 63"),
    (lambda c, p, r: c.consumer("t", partitions=[]), InvalidArgumentError, "at least one"),
    *[
        (call, InvalidTypeError, f"^{what} must be .*not {re.escape(repr(wrong))}$")
        for wrong in ("0", b"01", bytearray(b"01"), memoryview(b"01"), {0: [1]}, {1})
        for call, what in (
            (lambda c, p, r, w=wrong: c.consumer("t", partitions=w), "partitions"),
            (lambda c, p, r, w=wrong: c.admin.topics.create("t", assignment=w), "assignment"),
            (
                lambda c, p, r, w=wrong: c.admin.topics.create("t", assignment=[w]),
                "assignment of partition 0",
            ),
            (lambda c, p, r, w=wrong: c.admin.topics.list(w), "filters"),
            (lambda c, p, r, w=wrong: AnyServer(arguments=w), "arguments"),
        )
    ],
    (lambda c, p, r: c.consumer("t", check_crc=1), InvalidTypeError, "check_crc"),
    (
        lambda c, p, r: c.consumer(p.topic, partitions=[7]),
        (PartitionNotFoundError, InvalidArgumentError),
        "7",
    ),
    (lambda c, p, r: c.admin.topics.create(""), InvalidArgumentError, "topic name must not be empty"),
    (lambda c, p, r: c.admin.topics.create(5), InvalidTypeError, "topic name must be a str"),
    (
        lambda c, p, r: c.admin.topics.create("t", partitions=0),
        InvalidArgumentError,
        "partitions must be at least 1: 0",
    ),
    (lambda c, p, r: c.admin.topics.create("t", replication=0), InvalidArgumentError, "replication"),
    (
        lambda c, p, r: c.admin.topics.create("t", retention="soon"),
        InvalidArgumentError,
        "retention .*'soon'",
    ),
    (lambda c, p, r: c.admin.topics.create("t", retention=-5), InvalidArgumentError, "retention"),
    (
        lambda c, p, r: c.admin.topics.create("t", compression="rar"),
        InvalidArgumentError,
        "compression must be one of",
    ),
    (lambda c, p, r: c.admin.topics.create("t", segment_size="big"), InvalidArgumentError, "segment_size"),
    (
        lambda c, p, r: c.admin.topics.create("t", assignment=[[]]),
        InvalidTypeError,
        "assignment of partition 0",
    ),
    (
        lambda c, p, r: c.admin.topics.create("t", assignment=[[0]], partitions=2),
        InvalidArgumentError,
        "assignment",
    ),
    (lambda c, p, r: c.admin.topics.create("t", dry_run="yes"), InvalidTypeError, "dry_run"),
    (lambda c, p, r: c.admin.topics.delete(""), InvalidArgumentError, "topic name must not be empty"),
    (lambda c, p, r: c.admin.topics.list("all"), InvalidTypeError, "filters must be a sequence"),
    (lambda c, p, r: c.admin.topics.list([""]), InvalidArgumentError, "filter"),
]


async def test_calls(client: Client, topic: str) -> None:
    async with client.producer(topic) as producer, client.consumer(topic) as consumer:
        for call, error, message in BAD_CALLS:
            with pytest.raises(error, match=message) as caught:
                await call(client, producer, consumer)
            assert isinstance(caught.value, FluvioError)
            assert not caught.value.retriable
        # Nothing of it was sent, and all of it is as good as before.
        assert (await producer.send(b"first")).offset == 0
        assert (await consumer.receive()).value == b"first"


class Lying(bytes):
    """Says more of its length than is true."""

    def __len__(self) -> int:
        return 4000


class LyingArray(bytearray):
    """See Lying."""

    def __len__(self) -> int:
        return 4000


class LyingStr(str):
    """See Lying."""

    def __len__(self) -> int:
        return 4000

    def encode(self, encoding: str = "", errors: str = "") -> bytes:
        return Lying(b"encoded")

    def __str__(self) -> str:
        return "text"


async def test_what_says_too_much_of_its_length(client: Client, name: str) -> None:
    await client.admin.topics.create(LyingStr(name))
    async with client.producer(LyingStr(name)) as producer:
        for wrong in (Lying(b"value"), LyingArray(b"value")):
            await producer.send(wrong, key=wrong)
            await (await producer.submit(wrong, key=wrong))
            await producer.send_many([wrong, (b"value")], keys=[wrong, b"value"])
            await producer.send_many([(wrong, wrong)])
        assert producer.topic == name
    isolation: Any = LyingStr("read_committed")
    async with client.consumer(LyingStr(name), start=Offset.beginning(), isolation=isolation) as records:
        for record in await take(records, 10):
            assert (record.key, record.value) == (b"value", b"value")


async def test_what_an_iterator_of_the_caller_raises(client: Client, topic: str) -> None:
    def failing(error: Exception) -> Iterator[bytes]:
        yield b""
        raise error

    async with client.producer(topic) as producer:
        for error in (TypeError("mine"), KeyError("mine"), BusyError("mine")):
            with pytest.raises(type(error), match="mine") as caught:
                await producer.send_many(failing(error))
            assert caught.value is error
            assert getattr(error, "outcome", None) is None
            with pytest.raises(type(error), match="mine"):
                await producer.send_many([b"", b""], keys=failing(error))


REFUSED: list[tuple[dict[str, Any], type[FluvioError]]] = [
    ({"value": "text"}, InvalidTypeError),
    ({"value": b"", "key": 5}, InvalidTypeError),
    ({"value": b"x" * 2_000_000}, RecordTooLargeError),
    ({"value": b"", "partition": 7}, PartitionNotFoundError),
    ({"value": b"", "partition": -1}, InvalidArgumentError),
]


async def test_what_is_refused_was_not_sent(client: Client, topic: str) -> None:
    """Every refusal at the call says so, and of which topic."""
    producer = await client.producer(topic)

    async def many(value: Any, key: Any = None, partition: Optional[int] = None) -> Any:
        return await producer.send_many([value], keys=[key], partition=partition)

    closed: tuple[dict[str, Any], type[FluvioError]] = ({"value": b""}, ClosedError)
    refused = [*REFUSED, closed]
    for arguments, kind in refused:
        if kind is ClosedError:
            await producer.aclose()
        for call in (producer.send, producer.submit, many):
            with pytest.raises(kind) as caught:
                await call(**arguments)
            assert (caught.value.outcome, caught.value.topic) == ("not_sent", topic), (arguments, call)


REFUSED_MANY: list[dict[str, Any]] = [
    {"values": "text"},
    {"values": b"bytes"},
    {"values": None},
    {"values": 5},
    {"values": {b"k": b"v"}},
    {"values": [b"", "text"]},
    {"values": [b""], "keys": 5},
    {"values": [b""], "keys": b"k"},
    {"values": [b""], "keys": []},
    {"values": [], "keys": [b""]},
    {"values": [b""], "keys": ["k"]},
    {"values": [b""], "partition": -2},
    {"values": [b""], "partition": 99},
]


@pytest.mark.parametrize("arguments", REFUSED_MANY, ids=str)
async def test_many_that_are_refused_were_not_sent(
    client: Client, topic: str, arguments: dict[str, Any]
) -> None:
    async with client.producer(topic) as producer:
        with pytest.raises(FluvioError) as caught:
            await producer.send_many(**arguments)
        assert (caught.value.outcome, caught.value.topic) == ("not_sent", topic)


def test_what_the_twin_refuses_was_not_sent(name: str) -> None:
    with DevServer() as server, fluvio_cffi.sync.connect(server.endpoint, close_timeout="100ms") as client:
        client.admin.topics.create(name)
        producer = client.producer(name, buffer=4096, batch_size=1024)
        full = b"x" * 3500

        def told(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
            with pytest.raises(FluvioError) as caught:
                call(*arguments, **options)
            return type(caught.value), caught.value.outcome, caught.value.topic

        for arguments, kind in REFUSED:
            for call in (producer.send, producer.submit):
                assert told(call, **arguments) == (kind, "not_sent", name)
        for many in REFUSED_MANY:
            assert told(producer.send_many, **many)[1:] == ("not_sent", name)
        server.fault("never-answer", request="produce")
        small = b"x" * 100
        # It is accepted, and waits: nobody knows yet.
        assert told(producer.send, small, timeout="10ms") == (FluvioTimeoutError, "unknown", name)
        assert told(producer.send_many, [small], timeout="10ms") == (FluvioTimeoutError, "unknown", name)
        # There is no room for it.
        assert told(producer.send, full, timeout="10ms") == (FluvioTimeoutError, "not_sent", name)
        assert told(producer.submit, full, timeout="10ms") == (FluvioTimeoutError, "not_sent", name)
        assert told(producer.send_many, [full], timeout="10ms") == (FluvioTimeoutError, "not_sent", name)
        # An argument of the twin's own. Of what was handed over before it says nothing.
        delivery = producer.submit(b"")
        consumer = client.consumer(name)
        late: list[Callable[..., Any]] = [delivery.wait, delivery.result, delivery.exception]
        late += [producer.flush, producer.close, consumer.receive, consumer.receive_batch, consumer.close]
        for wrong in (-1, math.nan, -math.inf, timedelta(-1), "abc", b"1s", True):
            kind = InvalidTypeError if wrong in (b"1s", True) else InvalidArgumentError
            for call in (producer.send, producer.submit):
                assert told(call, b"", timeout=wrong) == (kind, "not_sent", name)
            assert told(producer.send_many, [b""], timeout=wrong) == (kind, "not_sent", name)
            for later in late:
                assert told(later, timeout=wrong) == (kind, None, name)
        with pytest.raises(FluvioTimeoutError):
            producer.close()
        for call in (producer.send, producer.submit):
            assert told(call, b"") == (ClosedError, "not_sent", name)
        assert told(producer.send_many, []) == (ClosedError, "not_sent", name)


def test_timeouts_of_a_delivery(endpoint: str, name: str) -> None:
    with fluvio_cffi.sync.connect(endpoint) as client:
        client.admin.topics.create(name)
        with client.producer(name) as producer:
            delivery = producer.submit(b"")
            for done in (False, True):
                if done:
                    delivery.result(timeout=math.inf)
                    assert delivery.exception(timeout=math.inf) is None
                calls: list[Callable[..., Any]] = [delivery.result, delivery.exception]
                for call in calls:
                    for value in (-1, math.nan, -math.inf, timedelta(-1)):
                        with pytest.raises(InvalidArgumentError, match="timeout must be a non-negative time"):
                            call(timeout=value)
                    for wrong in (True, b"1s", object(), 1j):
                        with pytest.raises(InvalidTypeError, match="timeout must be a number of seconds"):
                            call(timeout=wrong)


@pytest.mark.parametrize(
    ("given", "milliseconds"),
    [
        (5, 5000),
        (0.25, 250),
        (0.001, 1),
        (1e-9, 1),
        ("5ms", 5),
        ("1h 30m", 5_400_000),
        (" 2 D ", 172_800_000),
        ("0.5s", 500),
        ("1w", 604_800_000),
        (timedelta(milliseconds=7), 7),
        (timedelta(days=1), 86_400_000),
        (math.inf, _arguments.NO_LIMIT_MS),
    ],
)
def test_one_grammar_of_times(given: Any, milliseconds: int) -> None:
    assert _arguments.duration("time", given) == milliseconds
    expected = None if given == math.inf else milliseconds / 1000
    assert _arguments.timeout(given) == expected


@pytest.mark.parametrize(
    ("given", "count"),
    [
        (4096, 4096),
        ("4096", 4096),
        ("4096B", 4096),
        ("1KiB", 1024),
        ("1 kb", 1024),
        ("1.5m", 3 << 19),
        ("1GiB", 1 << 30),
        ("9007199254740993", 9007199254740993),
        ("0" * 100 + "1024", 1024),
    ],
)
def test_one_grammar_of_sizes(given: Any, count: int) -> None:
    assert _arguments.size("size", given) == count


async def test_every_time_and_size_is_given_like_this(endpoint: str, name: str, anyio_backend: Any) -> None:
    async with fluvio_cffi.connect(
        endpoint, connect_timeout="10s", request_timeout=math.inf, close_timeout=timedelta(seconds=10)
    ) as client:
        await client.admin.topics.create(
            name, retention=math.inf, segment_size="1MiB", max_partition_size="16MiB"
        )
        async with client.producer(
            name,
            batch_size="64KiB",
            max_request_size="1MiB",
            buffer="8MiB",
            linger="1ms",
            delivery_timeout=math.inf,
            retry_initial="10ms",
            retry_max=timedelta(seconds=1),
        ) as producer:
            assert (await producer.send(b"")).offset == 0
        async with client.consumer(name, start=Offset.beginning(), prefetch="64KiB") as consumer:
            assert (await consumer.receive()).offset == 0
    with fluvio_cffi.sync.connect(endpoint, timeout=math.inf) as twin:
        twin.admin.topics.list(timeout="10s")
        twin.admin.topics.delete(name, timeout=timedelta(seconds=10))


HUGE = 10**5000
WRONG_SIZES: list[Any] = [
    Decimal(4096),
    Fraction(4096),
    4096.0,
    math.nan,
    math.inf,
    True,
    b"4096",
    [4096],
    4096j,
]
BAD_SIZES: list[Any] = [10**30, HUGE, -HUGE, -1, "9" * 400, "9" * 5000 + "TiB", "-1", "1e6", "", "٣MiB"]
WRONG_TIMES: list[Any] = [Decimal(5), Fraction(5), True, b"5s", [5], 5j]
BAD_TIMES: list[Any] = [
    10**30,
    HUGE,
    -HUGE,
    -1,
    -math.inf,
    math.nan,
    1e308,
    "9" * 400 + "s",
    "9" * 5000 + "d",
    "-5s",
    "",
    "٣s",
    timedelta.max,
    timedelta(-1),
]
WRONG_COUNTS: list[Any] = [Decimal(2), Fraction(2), 2.0, math.nan, math.inf, True, "2", b"2", [[2]]]
BAD_COUNTS: list[Any] = [10**30, HUGE, -HUGE, -1]


async def test_extreme_values_of_every_option(client: Client) -> None:
    """Each is refused at the call, by the option's name."""
    functions: list[tuple[_options.Table, Callable[..., Any]]] = [
        (_options.CLIENT, partial(fluvio_cffi.connect, "h:1")),
        (_options.PRODUCER, partial(client.producer, "t")),
        (_options.CONSUMER, partial(client.consumer, "t")),
    ]
    for table, function in functions:
        for option in table.options:
            if option.key.endswith("_bytes"):
                values = [(WRONG_SIZES, InvalidTypeError), (BAD_SIZES, InvalidArgumentError)]
            elif option.key.endswith("_ms"):
                values = [(WRONG_TIMES, InvalidTypeError), (BAD_TIMES, InvalidArgumentError)]
            elif option.name in ("in_flight", "partitions"):
                values = [(WRONG_COUNTS, InvalidTypeError), (BAD_COUNTS, InvalidArgumentError)]
            else:
                continue
            for wrong, error in values:
                for value in wrong:
                    with pytest.raises(error, match=f"^{option.name}.* (must|of)") as caught:
                        function(**{option.name: value})
                    assert len(str(caught.value)) < 250
    for option in _options.TOPIC.options:
        if option.key.endswith(("_bytes", "_ms")):
            for value in [*BAD_SIZES] if option.key.endswith("_bytes") else BAD_TIMES:
                with pytest.raises(InvalidArgumentError, match=f"^{option.name} "):
                    await client.admin.topics.create("t", **{option.name: value})
    for make in (Offset.beginning, Offset.end, Offset.absolute):
        for value in BAD_COUNTS:
            with pytest.raises(InvalidArgumentError):
                make(value)
        for value in WRONG_COUNTS:
            with pytest.raises(InvalidTypeError):
                make(value)


def test_offsets() -> None:
    makers: list[Any] = [Offset.beginning, Offset.end, Offset.absolute]
    for make in makers:
        with pytest.raises(InvalidArgumentError, match="must not be negative: -1"):
            make(-1)
        for wrong in ("1", 1.0, None, True):
            with pytest.raises(InvalidTypeError, match="must be an int"):
                make(wrong)
    assert Offset.beginning() == Offset.beginning(0) != Offset.end()
    assert hash(Offset.absolute(3)) == hash(Offset.absolute(3))
    assert [repr(Offset.beginning()), repr(Offset.end(5)), repr(Offset.absolute(0))] == [
        "Offset.beginning()",
        "Offset.end(5)",
        "Offset.absolute(0)",
    ]
    with pytest.raises(TypeError):
        Offset()
    with pytest.raises(AttributeError):
        Offset.end().n = 3


async def test_an_offset_beyond_the_end(client: Client, topic: str) -> None:
    async with client.producer(topic) as producer:
        await producer.send(b"")
        with pytest.raises(FluvioError, match="1000"):
            async with client.consumer(topic, start=Offset.absolute(1000)) as consumer:
                await consumer.receive()
        assert (await producer.send(b"")).offset == 1
