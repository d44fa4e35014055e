"""A pytest plugin: a Fluvio server for the tests of your own project, and a fresh topic for each test.

    @pytest.mark.fluvio_topic(partitions=3)
    def test_orders(fluvio_endpoint: str, fluvio_topic: str) -> None:
        with fluvio_cffi.sync.connect(fluvio_endpoint) as client:
            ...

pytest finds it by itself where fluvio_cffi is installed, in whatever project; nothing starts, and nothing of
fluvio_cffi is imported, before a test asks for it. The fixtures serve synchronous and asynchronous tests
alike. FLUVIO_TEST_ENDPOINT names a cluster to use instead of the development server.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fluvio_cffi.devserver import DevServer

__all__ = ["fluvio_endpoint", "fluvio_server", "fluvio_topic"]

ENDPOINT = "FLUVIO_TEST_ENDPOINT"
ARGUMENTS = "fluvio_server_arguments"
MARKER = "fluvio_topic"
# A topic name has at most 63 characters.
LONGEST_LABEL = 40


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare what can be set in pyproject.toml, pytest.ini and the like."""
    parser.addini(ARGUMENTS, "options of the fluvio-devserver that tests use", type="args", default=[])


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(**options): how the topic of the fixture fluvio_topic is made; the keyword arguments are "
        "those of client.admin.topics.create, such as partitions=3",
    )


@pytest.fixture(scope="session")
def fluvio_server(pytestconfig: pytest.Config) -> Iterator[DevServer]:
    """The development server of this session; a test that needs no more than its address: fluvio_endpoint.

    Skips the test where FLUVIO_TEST_ENDPOINT names a cluster, which can't be stopped or disturbed.
    """
    if os.environ.get(ENDPOINT):
        pytest.skip(f"needs the development server, and {ENDPOINT} names another one")
    from fluvio_cffi.devserver import DevServer

    with DevServer(arguments=pytestconfig.getini(ARGUMENTS)) as server:
        yield server


@pytest.fixture(scope="session")
def fluvio_endpoint(request: pytest.FixtureRequest) -> str:
    """The "host:port" to connect to: FLUVIO_TEST_ENDPOINT, or that of the session's development server."""
    named = os.environ.get(ENDPOINT)
    if named:
        return named
    server: DevServer = request.getfixturevalue("fluvio_server")
    return server.endpoint


@pytest.fixture
def fluvio_topic(request: pytest.FixtureRequest, fluvio_endpoint: str) -> Iterator[str]:
    """The name of a topic that only this test uses; it is deleted afterwards."""
    from fluvio_cffi import TopicNotFoundError, sync

    options: dict[str, Any] = {}
    # A marker of the function counts more than one of its class, and that more than one of its module.
    for marker in reversed(list(request.node.iter_markers(MARKER))):
        if marker.args:
            raise pytest.UsageError(f"the marker {MARKER} takes keyword arguments only, such as partitions=3")
        options.update(marker.kwargs)
    label = re.sub("[^a-z0-9]+", "-", request.node.name.lower())[:LONGEST_LABEL].strip("-")
    name = f"{label or 'test'}-{uuid.uuid4().hex[:16]}"
    # A client for each step: nothing of ours is open while the test runs.
    with sync.connect(fluvio_endpoint) as client:
        client.admin.topics.create(name, **options)
    yield name
    with sync.connect(fluvio_endpoint) as client:
        try:
            client.admin.topics.delete(name)
        except TopicNotFoundError:
            pass  # The test has done it.
