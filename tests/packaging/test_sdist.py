"""The source archive: complete, and enough to build the same wheel."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from tests.packaging import artifacts

FOLDERS = ("wire", "engine", "capi", "devserver", "bench", "fluvio_cffi")
FILES = ("Cargo.toml", "Cargo.lock", "pyproject.toml", "build.py", "README.md", "LICENSE", "CHANGELOG.md")


@pytest.fixture(scope="session")
def members(sdist: Path) -> set[str]:
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
    return {name.split("/", 1)[1] for name in names if "/" in name}


def test_every_source_file_is_in_it(members: set[str]) -> None:
    tracked = artifacts.run(["git", "ls-files", "--", *FOLDERS, *FILES]).splitlines()
    assert tracked
    assert not set(tracked) - members


def test_nothing_compiled_is_in_it(members: set[str]) -> None:
    assert not {name for name in members if name.endswith((".so", ".pyc", ".o", "fluvio-devserver"))}
    assert not {name for name in members if name.startswith(("target/", ".venv", "dist/"))}


def test_it_builds_the_same_wheel(
    sdist: Path, wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A target folder of its own: the archive is unpacked elsewhere, and cargo must not take the library that
    # was compiled there for the tree's. It stays in the cache, so only our own crates are compiled again.
    target = Path(os.environ["CARGO_TARGET_DIR"]).with_name("target-sdist")
    monkeypatch.setenv("CARGO_TARGET_DIR", str(target))
    # What matters is that it builds and what is in it: not optimised, that takes a fraction of the time.
    for setting, value in {"OPT_LEVEL": "0", "LTO": "off", "CODEGEN_UNITS": "16"}.items():
        monkeypatch.setenv(f"CARGO_PROFILE_RELEASE_{setting}", value)
    rebuilt = artifacts.build_wheel(sdist, tmp_path)
    assert rebuilt.name == wheel.name
    assert artifacts.names_in(rebuilt) == artifacts.names_in(wheel)
