"""The wheel in a clean environment: no compiler, no source tree, every interpreter that was found."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.environments import Interpreter, everyday_interpreter, find_cpython, find_pypy
from tests.packaging import artifacts


def interpreters() -> list[Interpreter]:
    """Those of `make test`; it names the ones that are not here in its closing list."""
    candidates = [everyday_interpreter(), find_cpython("3.9"), find_cpython("3.13"), find_pypy()]
    return list(dict.fromkeys(found for found in candidates if found is not None))


@pytest.mark.parametrize("interpreter", interpreters(), ids=lambda interpreter: interpreter.name)
def test_round_trip_from_the_wheel(interpreter: Interpreter, wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    artifacts.run([interpreter.executable, "-m", "venv", str(environment)], cwd=tmp_path)
    python = str(environment / "bin" / "python")
    # Only the environment's own programs: whatever wants to call a compiler finds none.
    clean = {"PATH": str(environment / "bin"), "PYTHONPATH": "", "CC": "", "FLUVIO_CFFI_LIBRARY": ""}
    clean["FLUVIO_DEVSERVER"] = ""
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    artifacts.run([*pip, "--only-binary", ":all:", f"{wheel}[trio]"], cwd=tmp_path, environment=clean)
    artifacts.run([python, "-m", "pip", "check"], cwd=tmp_path, environment=clean)
    script = Path(__file__).with_name("round_trip.py").read_text()
    (tmp_path / "round_trip.py").write_text(script)
    printed = artifacts.run(
        [python, "-W", "error", str(tmp_path / "round_trip.py"), str(environment)],
        cwd=tmp_path,
        environment=clean,
    )
    assert printed.splitlines() == ["asyncio ok", "trio ok", "sync ok"]
    command = [str(environment / "bin" / "fluvio-devserver"), "--version"]
    assert artifacts.run(command, cwd=tmp_path, environment=clean).startswith("fluvio-devserver ")
