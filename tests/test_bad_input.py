"""Wrong values get a typed error at the call that names them, and leave everything usable."""

from __future__ import annotations

from typing import Any, Callable

import pytest

import fluvio_cffi
from fluvio_cffi import (
    Client,
    FluvioError,
    InvalidArgumentError,
    InvalidTypeError,
    Offset,
    PartitionNotFoundError,
    RecordTooLargeError,
)

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
    ({"request_timeout": "3"}, InvalidTypeError, "request_timeout must be a number of seconds"),
    ({"close_timeout": float("nan")}, InvalidArgumentError, "close_timeout"),
    ({"close_timeout": True}, InvalidTypeError, "close_timeout"),
]


@pytest.mark.parametrize(
    ("arguments", "error", "message"), BAD_CONNECTS, ids=[str(case[0]) for case in BAD_CONNECTS]
)
def test_connect(arguments: dict[str, Any], error: type[FluvioError], message: str) -> None:
    for connect in (fluvio_cffi.connect, fluvio_cffi.sync.connect):
        with pytest.raises(error, match=message):
            connect(**arguments)


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
    (lambda c, p, r: p.send_many([b""], keys=["k"]), InvalidTypeError, r"keys\[0\] must be bytes"),
    (
        lambda c, p, r: p.send_many([(b"k", b"v"), b"v"]),
        InvalidTypeError,
        r"values\[1\] must be a Record or a pair",
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
    (lambda c, p, r: c.producer("t", batch_size=0), InvalidArgumentError, "batch_size must be at least 1: 0"),
    (lambda c, p, r: c.producer("t", batch_size="many"), InvalidArgumentError, "batch_size"),
    (lambda c, p, r: c.producer("t", linger=-1), InvalidArgumentError, "linger"),
    (lambda c, p, r: c.producer("t", in_flight=0), InvalidArgumentError, "in_flight"),
    (lambda c, p, r: c.producer("t", isolation="x"), InvalidArgumentError, "isolation must be one of"),
    (lambda c, p, r: c.consumer(""), InvalidArgumentError, "topic must not be empty"),
    (lambda c, p, r: c.consumer("t", start=5), InvalidTypeError, "start must be an Offset"),
    (
        lambda c, p, r: c.consumer("t", partitions=[-1]),
        InvalidArgumentError,
        "partition must not be negative: -1",
    ),
    (lambda c, p, r: c.consumer("t", partitions=[]), InvalidArgumentError, "at least one"),
    (lambda c, p, r: c.consumer("t", partitions="0"), InvalidTypeError, "partitions"),
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
