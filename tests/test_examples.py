"""The Python examples as programs: what they print, and the status that they end with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples" / "python"
PATIENCE = 90
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE)


def test_quickstart() -> None:
    result = run("quickstart.py")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Grace is at offset 1 of partition 0") == 2


def test_earthquakes_arrive_complete() -> None:
    result = run("earthquakes.py", "--records", "5000")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "5,000 records acknowledged" in result.stdout
    assert "Nothing is missing" in result.stdout
    assert "22km NNE of Hualian" in result.stdout


def test_earthquakes_say_which_endpoint_is_unreachable() -> None:
    result = run("earthquakes.py", "--endpoint", "127.0.0.1:1")
    assert result.returncode == 1
    assert "127.0.0.1:1" in result.stdout
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("records", ["0", "-1", "many"])
def test_earthquakes_refuse_a_wrong_number(records: str) -> None:
    result = run("earthquakes.py", f"--records={records}")
    assert result.returncode == 2
    assert records in result.stderr


def test_ctrl_c_ends_the_demo_in_order() -> None:
    # A terminal interrupts the whole process group. The server must outlive that: the demo deletes its topic.
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / "earthquakes.py"), "--records", "100000000"],
        env={**ENVIRONMENT, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        while "records, topic" not in process.stdout.readline():
            assert process.poll() is None, process.stderr
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
