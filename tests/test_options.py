"""Every option: Python and the library know the same, each works, and what cannot be right is named."""

from __future__ import annotations

import inspect
import json
import uuid
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Callable

import pytest

import fluvio_cffi
import fluvio_cffi.sync
from fluvio_cffi import Client, InvalidArgumentError, InvalidTypeError, Offset, _library, _options
from fluvio_cffi._async.admin import Topics

TABLES = {
    "client": _options.CLIENT,
    "producer": _options.PRODUCER,
    "consumer": _options.CONSUMER,
    "topic": _options.TOPIC,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "client": fluvio_cffi.connect,
    "producer": Client.producer,
    "consumer": Client.consumer,
    "topic": Topics.create,
}
# What is no option: it says what the function is about.
SUBJECTS = {"self", "endpoint", "topic", "name"}
# One value for each option that is not its default.
VALUES: dict[str, dict[str, Any]] = {
    "client": {
        "profile": "tests",
        "client_id": "tests",
        "connect_timeout": "9s",
        "request_timeout": 29.5,
        "close_timeout": "1m",
        "max_frame_size": "1MiB",
    },
    "producer": {
        "batch_size": "16KiB",
        "max_request_size": 1 << 19,
        "linger": "1ms",
        "buffer": "2MiB",
        "in_flight": 2,
        "isolation": "read_committed",
        "delivery_timeout": "60s",
        "retry_initial": "10ms",
        "retry_max": 2.5,
    },
    "consumer": {
        "start": Offset.beginning(),
        "partitions": [0],
        "prefetch": "1MiB",
        "isolation": "read_committed",
        "check_crc": False,
    },
    "topic": {
        "partitions": 2,
        "replication": 1,
        "retention": "1d",
        "segment_size": "1MiB",
        "max_partition_size": "2GiB",
        "compression": "zstd",
        "assignment": [[5001], [5001]],
        "ignore_rack": True,
        "dry_run": True,
        "provision_timeout": "30s",
    },
}
OPTIONS = [(kind, name) for kind, values in VALUES.items() for name in values]


def described() -> dict[str, Any]:
    return json.loads(_library.text(_library.lib.fluvio_options_describe()))  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", TABLES)
def test_python_and_the_library_have_the_same(kind: str) -> None:
    theirs = described()[kind]
    ours = {option.key: option for option in TABLES[kind].options}
    subjects = {"client": {"endpoint"}, "topic": {"name"}}.get(kind, set())
    assert ours.keys() | subjects == theirs.keys()
    for key, option in ours.items():
        default = eval(option.default, {"Offset": Offset})
        # None is the library's own default, and "any" compression the cluster's.
        if default is not None and option.name != "compression":
            assert option.check(option.name, default) == theirs[key]["default"], key


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_signature_and_documentation_have_them(kind: str) -> None:
    parameters = inspect.signature(FUNCTIONS[kind]).parameters
    options = {option.name: option for option in TABLES[kind].options}
    assert parameters.keys() - SUBJECTS == options.keys() == VALUES[kind].keys()
    documentation = inspect.getdoc(FUNCTIONS[kind])
    assert documentation is not None
    for name, option in options.items():
        assert parameters[name].default == eval(option.default, {"Offset": Offset})
        assert f"    {name}: " in documentation


@pytest.fixture
def profile(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile "tests"."""
    text = f"""
        version = "2.0"
        current_profile = "other"
        [profile.tests]
        cluster = "tests"
        [cluster.tests]
        endpoint = "{endpoint}"
        [cluster.tests.tls]
        tls_policy = "disabled"
    """
    (tmp_path / "config").write_text(text)
    monkeypatch.setenv("FLV_PROFILE_PATH", str(tmp_path / "config"))


def with_endpoint(options: Mapping[str, Any], endpoint: str) -> dict[str, Any]:
    return dict(options) if "profile" in options else {"endpoint": endpoint, **options}


@pytest.mark.usefixtures("profile")
@pytest.mark.parametrize(("kind", "option"), OPTIONS)
def test_each_of_them_works(kind: str, option: str, endpoint: str) -> None:
    given: dict[str, dict[str, Any]] = {name: {} for name in VALUES}
    given["consumer"]["start"] = Offset.beginning()
    given[kind][option] = VALUES[kind][option]
    name = f"option-{uuid.uuid4().hex[:16]}"
    with fluvio_cffi.sync.connect(**with_endpoint(given["client"], endpoint)) as client:
        client.admin.topics.create(name, **given["topic"])
        if kind == "topic":
            return
        with (
            client.producer(name, **given["producer"]) as producer,
            client.consumer(name, **given["consumer"]) as consumer,
        ):
            producer.send(b"x")
            assert consumer.receive(timeout=30).value == b"x"


@pytest.mark.usefixtures("profile")
async def test_all_of_them_together(endpoint: str, name: str) -> None:
    async with fluvio_cffi.connect(**VALUES["client"]) as client:
        topic = {**VALUES["topic"], "dry_run": False, "compression": "any"}
        del topic["partitions"], topic["replication"]
        await client.admin.topics.create(name, **topic)
        async with (
            client.producer(name, **VALUES["producer"]) as producer,
            client.consumer(name, **VALUES["consumer"]) as consumer,
        ):
            await producer.send(b"x", partition=0)
            assert (await consumer.receive()).value == b"x"


async def test_a_default_follows_what_was_given(client: Client, topic: str) -> None:
    """A batch is as large as a request and the buffer let it be, unless one says a size of one's own."""
    given: list[dict[str, Any]] = [
        {"max_request_size": "64KiB"},
        {"buffer": 65536},
        {"buffer": 65536, "batch_size": "128KiB"},
        {"buffer": 65536, "batch_size": 131072},
    ]
    for options in given:
        async with client.producer(topic, **options) as producer:
            await producer.send(b"x")


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (
            "producer",
            {"batch_size": "2MiB"},
            "batch_size must be at most max_request_size: "
            "batch_size='2MiB' was given, max_request_size='1MiB' is the default",
        ),
        (
            "producer",
            {"batch_size": "512KiB", "max_request_size": "256KiB"},
            "batch_size must be at most max_request_size: "
            "batch_size='512KiB' was given, max_request_size='256KiB' was given",
        ),
        (
            "producer",
            {"batch_size": "512KiB", "buffer": 4096},
            "batch_size must be at most buffer: batch_size='512KiB' was given, buffer=4096 was given",
        ),
        (
            "producer",
            {"retry_initial": 6},
            "retry_initial must be at most retry_max: retry_initial=6 was given, retry_max=5 is the default",
        ),
        (
            # Given in so many words, it is the default all the same.
            "producer",
            {"retry_initial": 6, "retry_max": timedelta(seconds=5)},
            "retry_initial=6 was given, retry_max=0:00:05 is the default",
        ),
        (
            "producer",
            {"retry_max": 0.01},
            "retry_initial must be at most retry_max: "
            "retry_initial='20ms' is the default, retry_max=0.01 was given",
        ),
        (
            "producer",
            {"linger": "5s", "delivery_timeout": timedelta(seconds=1)},
            "linger must be at most delivery_timeout: "
            "linger='5s' was given, delivery_timeout=0:00:01 was given",
        ),
        (
            "topic",
            {"segment_size": "2MiB", "max_partition_size": "1MiB"},
            "segment_size='2MiB' was given, max_partition_size='1MiB' was given",
        ),
        ("producer", {"linger": None}, "linger must be a number of seconds"),
        ("producer", {"in_flight": True}, "in_flight must be an int"),
        ("producer", {"isolation": "committed"}, "isolation must be one of read_uncommitted, read_committed"),
        ("consumer", {"start": 5}, "start must be an Offset"),
        ("consumer", {"partitions": [True]}, "partitions[0] must be an int"),
        ("consumer", {"partitions": []}, "partitions must name at least one partition"),
        ("topic", {"compression": "lzma"}, "compression must be one of any, none, gzip"),
        ("topic", {"retention": 10.5}, "retention must be whole seconds: 10.5"),
    ],
)
async def test_what_cannot_be_right(client: Client, kind: str, options: Any, message: str) -> None:
    functions: dict[str, Any] = {
        "producer": client.producer,
        "consumer": client.consumer,
        "topic": client.admin.topics.create,
    }
    with pytest.raises((InvalidArgumentError, InvalidTypeError)) as caught:
        await functions[kind]("topic", **options)
    assert message in str(caught.value)
