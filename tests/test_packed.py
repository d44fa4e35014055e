"""The package in a zip archive, as zipapp and some deployments have it."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from fluvio_cffi import _platform
from tests.support import PACKAGE, run_program

PROGRAM = """
    import sys
    sys.path.insert(0, sys.argv[1])
    import fluvio_cffi.sync
    assert fluvio_cffi.__file__.startswith(sys.argv[1]), fluvio_cffi.__file__
    with fluvio_cffi.sync.connect(sys.argv[2]) as client:
        client.admin.topics.create(sys.argv[3])
        with client.producer(sys.argv[3]) as producer:
            print(producer.send(b"x").offset)
"""


def archive(folder: Path, library: bool) -> Path:
    path = folder / "packed.zip"
    with zipfile.ZipFile(path, "w") as packed:
        for file in PACKAGE.rglob("*.py"):
            packed.write(file, f"fluvio_cffi/{file.relative_to(PACKAGE)}")
        if library:
            source = os.environ.get("FLUVIO_CFFI_LIBRARY") or str(PACKAGE / _platform.LIBRARY_NAME)
            packed.write(source, f"fluvio_cffi/{_platform.LIBRARY_NAME}")
    return path


def test_it_works(tmp_path: Path, endpoint: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = archive(tmp_path, library=True)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.delenv("FLUVIO_CFFI_LIBRARY", raising=False)
    monkeypatch.setenv("TMPDIR", str(temporary))
    status, out, err = run_program(PROGRAM, str(packed), endpoint, name)
    assert (status, out, err) == (0, "0\n", "")
    # Nothing of what was unpacked is left.
    assert not list(temporary.iterdir())


def test_without_the_library(
    tmp_path: Path, endpoint: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = archive(tmp_path, library=False)
    monkeypatch.delenv("FLUVIO_CFFI_LIBRARY", raising=False)
    status, _, err = run_program(PROGRAM, str(packed), endpoint, name)
    assert status == 1
    assert f"{packed}/fluvio_cffi/{_platform.LIBRARY_NAME} is missing" in err
    assert "name the library with FLUVIO_CFFI_LIBRARY" in err
