"""Finds the Python interpreters of this machine and makes the virtual environments of the tree.

Standard library only, any Python >= 3.9: it runs before anything is installed.

Invariants:
* An interpreter counts as found only if it ran and said who it is: version managers leave shims on PATH
  that exist and cannot run.
* An environment is made anew when its interpreter changed, brought up to date when its requirements changed,
  and left alone otherwise.

Run as a program, it makes `.venv`: `python3 -m scripts.environments`.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EVERYDAY = ROOT / ".venv"
# The version that the everyday environment prefers; any >= 3.9 will do.
PREFERRED = "3.11"
PROBE = (
    "import platform, sys;"
    "print(platform.python_implementation(), '%d.%d' % sys.version_info[:2], sys.executable)"
)


@dataclass(frozen=True)
class Interpreter:
    """A Python that ran."""

    implementation: str
    version: str
    executable: str

    @property
    def name(self) -> str:
        """How messages call it, such as "CPython 3.11"."""
        return f"{self.implementation} {self.version}"

    @property
    def has_venv(self) -> bool:
        """Whether it can make environments: distributions package that apart."""
        return _succeeds([self.executable, "-c", "import ensurepip, venv"])


def _succeeds(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def probe(executable: str) -> Interpreter | None:
    """Runs it and asks; None if it does not run."""
    try:
        result = subprocess.run([executable, "-c", PROBE], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    fields = result.stdout.strip().split(" ", 2)
    if result.returncode != 0 or len(fields) != 3:
        return None
    return Interpreter(fields[0], fields[1], fields[2])


def _pyenv_candidates(version: str) -> list[str]:
    root = os.environ.get("PYENV_ROOT", "")
    if not root and shutil.which("pyenv"):
        result = subprocess.run(["pyenv", "root"], capture_output=True, text=True)
        root = result.stdout.strip()
    root = root or str(Path.home() / ".pyenv")
    return sorted(glob.glob(f"{glob.escape(root)}/versions/{version}*/bin/python{version}"), reverse=True)


def find_cpython(version: str) -> Interpreter | None:
    """A CPython of this version ("3.11") that runs and can make environments."""
    on_path = [
        str(Path(folder) / f"python{version}")
        for folder in os.environ.get("PATH", "").split(os.pathsep)
        if folder
    ]
    for candidate in [sys.executable, *on_path, *_pyenv_candidates(version)]:
        found = probe(candidate)
        if found and (found.implementation, found.version) == ("CPython", version) and found.has_venv:
            return found
    return None


def find_pypy() -> Interpreter | None:
    """PyPy 3.9 or later as `pypy3`."""
    executable = shutil.which("pypy3")
    found = probe(executable) if executable else None
    if found is None or found.implementation != "PyPy" or not found.has_venv:
        return None
    return found if tuple(map(int, found.version.split("."))) >= (3, 9) else None


def everyday_interpreter() -> Interpreter:
    """What `.venv` is made of: the preferred version, or else the Python that runs this."""
    found = find_cpython(PREFERRED) or probe(sys.executable)
    if found is None or sys.version_info < (3, 9):
        sys.exit("fluvio-cffi needs Python 3.9 or later")
    return found


def python_of(environment: Path) -> Path:
    """The interpreter inside an environment."""
    return environment / "bin" / "python"


def _lines(requirements: Path) -> list[str]:
    """The lines of a requirement file and of those that it includes."""
    lines = []
    for line in requirements.read_text().splitlines():
        included = line[3:].strip() if line.startswith("-r ") else None
        lines += _lines(requirements.with_name(included)) if included else [line]
    return lines


def make_environment(environment: Path, interpreter: Interpreter, requirements: Path) -> Path:
    """Makes or keeps an environment that holds these requirements; returns its Python."""
    stamp = environment / ".requirements-stamp"
    wanted = "\n".join([interpreter.name, interpreter.executable, *_lines(requirements)])
    python = python_of(environment)
    present = probe(str(python))
    if present and stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"making {environment.name} with {interpreter.name}", flush=True)
    if present is None or present.name != interpreter.name:
        subprocess.run([interpreter.executable, "-m", "venv", "--clear", str(environment)], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "-r", str(requirements)], check=True)
    stamp.write_text(wanted)
    return python


def make_everyday() -> Path:
    """Makes or keeps `.venv`; returns its Python."""
    return make_environment(EVERYDAY, everyday_interpreter(), ROOT / "requirements" / "dev.txt")


if __name__ == "__main__":
    make_everyday()
