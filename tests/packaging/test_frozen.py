"""A program frozen by PyInstaller, which finds the hook in the installed package."""

from __future__ import annotations

from pathlib import Path

from fluvio_cffi.devserver import DevServer
from scripts.environments import everyday_interpreter
from tests.packaging import artifacts

PROGRAM = """
import sys
import fluvio_cffi.sync
with fluvio_cffi.sync.connect(sys.argv[1]) as client:
    print(client.admin.topics.list())
"""


def test_a_frozen_program(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    interpreter = everyday_interpreter()
    artifacts.run([interpreter.executable, "-m", "venv", str(environment)], cwd=tmp_path)
    python = str(environment / "bin" / "python")
    clean = {"PYTHONPATH": "", "FLUVIO_CFFI_LIBRARY": ""}
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    artifacts.run([*pip, str(wheel), "pyinstaller>=6"], cwd=tmp_path, environment=clean)
    (tmp_path / "program.py").write_text(PROGRAM)
    # What a new environment brings of setuptools is not the program's.
    without = ["--exclude-module", "setuptools", "--exclude-module", "pkg_resources"]
    freeze = [python, "-m", "PyInstaller", "--noconfirm", "--log-level", "ERROR", *without, "program.py"]
    artifacts.run(freeze, cwd=tmp_path, environment=clean)
    with DevServer() as server:
        frozen = [str(tmp_path / "dist" / "program" / "program"), server.endpoint]
        assert artifacts.run(frozen, cwd=tmp_path, environment=clean).strip() == "[]"
