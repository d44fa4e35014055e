from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fluvio_cffi.devserver import DevServer

ROOT = Path(__file__).resolve().parents[2]
# Seconds that the official client gets: it has no timeouts of its own and would wait for ever.
PATIENCE = 60


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.interop)


class Official:
    """The official Python client, a process in its own environment per action."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint

    def _act(self, *arguments: str, given: str = "") -> Any:
        python = ROOT / ".venv-official" / "bin" / "python"
        script = Path(__file__).with_name("official.py")
        result = subprocess.run(
            [str(python), str(script), self._endpoint, *arguments],
            input=given,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def create(self, topic: str, partitions: int = 1) -> None:
        self._act("create", topic, str(partitions))

    def delete(self, topic: str) -> None:
        self._act("delete", topic)

    def topics(self) -> set[str]:
        return set(self._act("topics"))

    def produce(self, topic: str, records: Sequence[tuple[bytes, bytes]]) -> list[tuple[int, int]]:
        """Sends and returns partition and offset of each."""
        given = json.dumps([[key.hex(), value.hex()] for key, value in records])
        return [(partition, offset) for partition, offset in self._act("produce", topic, given=given)]

    def consume(self, topic: str, partition: int) -> list[tuple[int, bytes, bytes]]:
        """Offset, key and value of all that the partition holds."""
        rows = self._act("consume", topic, str(partition))
        return [(offset, bytes.fromhex(key), bytes.fromhex(value)) for offset, key, value in rows]

    def upload(self, name: str, file: Path) -> None:
        """Uploads a SmartModule."""
        self._act("upload", name, str(file))

    def transform(self, topic: str, count: int, by: str, module: str) -> list[bytes]:
        """Values of partition 0 behind a SmartModule, given by "name" or by "path"."""
        values = self._act("transform", topic, str(count), by, module)
        return [bytes.fromhex(value) for value in values]

    def resume(self, topic: str, consumer: str, count: int) -> list[bytes]:
        """The next values of partition 0 for a consumer, which stores that it has them."""
        return [bytes.fromhex(value) for value in self._act("resume", topic, consumer, str(count))]

    def offsets(self) -> list[tuple[str, str, int, int]]:
        """Consumer, topic, partition and offset of all that consumers have stored."""
        return [tuple(entry) for entry in self._act("offsets")]

    def forget(self, topic: str, consumer: str) -> None:
        """Deletes what a consumer has stored for partition 0."""
        self._act("forget", topic, consumer)


@pytest.fixture
def server() -> Iterator[DevServer]:
    with DevServer(cut_batches=True) as running:
        yield running


@pytest.fixture
def official(server: DevServer) -> Official:
    return Official(server.endpoint)
