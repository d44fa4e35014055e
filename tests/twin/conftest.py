"""What the tests of the synchronous twin share: a server that cuts its answers, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fluvio_cffi import (
    sync,
)
from fluvio_cffi.devserver import DevServer


@pytest.fixture
def server() -> Iterator[DevServer]:
    with DevServer(cut_batches=True) as server:
        yield server


@pytest.fixture
def twin(server: DevServer) -> Iterator[sync.Client]:
    with sync.connect(server.endpoint) as client:
        client.admin.topics.create("t")
        yield client
