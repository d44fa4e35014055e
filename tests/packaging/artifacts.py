"""Builds the wheel and the source archive, once per test run, and looks into them.

The builds are those of a user: `pip wheel` with its own isolated build environment, and hatchling's sdist.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = "fluvio_cffi/libfluvio_cffi.so"
SERVER = "fluvio_cffi/bin/fluvio-devserver"


def run(command: list[str], *, cwd: Path = ROOT, environment: dict[str, str] | None = None) -> str:
    """Runs to success and returns what it printed; a failure shows it."""
    result = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1800,
    )
    assert result.returncode == 0, f"{' '.join(command)} ended with {result.returncode}:\n{result.stdout}"
    return result.stdout


def only_file(folder: Path) -> Path:
    """The one file that a build left in its output folder."""
    files = list(folder.iterdir())
    assert len(files) == 1, files
    return files[0]


def build_wheel(source: Path, folder: Path) -> Path:
    """`pip wheel` of a source tree or of a source archive."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    run([*pip, "--no-deps", "--wheel-dir", str(folder), str(source)])
    return only_file(folder)


def build_sdist(folder: Path) -> Path:
    """The source archive."""
    run([sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(folder)])
    return only_file(folder)


def names_in(wheel: Path) -> set[str]:
    """The files of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())
