"""Everything public is documented, and typed so that a user's program passes the strictest checkers."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Callable

import pytest

import fluvio_cffi
import fluvio_cffi.devserver
import fluvio_cffi.sync
from tests.support import ROOT

MODULES: list[ModuleType] = [fluvio_cffi, fluvio_cffi.sync, fluvio_cffi.devserver]
# What waits for nothing and has nothing to check.
CANNOT_FAIL = {
    "fluvio_cffi.devserver.DevServer.kill",
    "fluvio_cffi.devserver.DevServer.counters",
}
PROGRAM = ROOT / "tests" / "typing" / "program.py"


def functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """All public functions and methods, by qualified name."""
    for module in MODULES:
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isfunction(thing):
                yield f"{module.__name__}.{name}", thing
            if inspect.isclass(thing):
                for attribute, member in vars(thing).items():
                    function = getattr(member, "__func__", getattr(member, "fget", member))
                    if not attribute.startswith("_") and inspect.isfunction(function):
                        yield f"{module.__name__}.{name}.{attribute}", function


FUNCTIONS = dict(functions())


def test_everything_is_documented() -> None:
    assert len(FUNCTIONS) > 60
    missing = [name for name, function in FUNCTIONS.items() if not inspect.getdoc(function)]
    for module in MODULES:
        for name in module.__all__:
            thing = getattr(module, name)
            # A class that says nothing would show its base's words.
            if inspect.isclass(thing) and not thing.__doc__:
                missing.append(f"{module.__name__}.{name}")
    assert not missing


def can_fail(name: str, function: Callable[..., Any]) -> bool:
    """Whether it waits for a server: a coroutine, an opening, or what has a time limit in the twin."""
    if name in CANNOT_FAIL:
        return False
    returns = str(inspect.signature(function).return_annotation)
    return (
        inspect.iscoroutinefunction(function)
        or returns.startswith("Opening[")
        or "timeout" in inspect.signature(function).parameters
        or ".DevServer." in name
    )


def test_what_can_fail_says_with_what() -> None:
    failing = {name: function for name, function in FUNCTIONS.items() if can_fail(name, function)}
    assert len(failing) > 30
    documentation = {name: inspect.getdoc(function) or "" for name, function in failing.items()}
    assert not [name for name, text in documentation.items() if "\nRaises:\n" not in text]
    # The classes that are named exist.
    for name, text in documentation.items():
        section = text.partition("\nRaises:\n")[2].partition("\n\n")[0]
        for classes in re.findall(r"^    ([\w., ]+): ", section, re.MULTILINE):
            for cls in classes.split(", "):
                found = re.fullmatch(r"anyio\.\w+|RuntimeError|asyncio\.\w+", cls) or hasattr(
                    fluvio_cffi, cls
                )
                assert found, f"{name} raises {cls}"


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_a_program_of_a_user(checker: str) -> None:
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} is in the everyday environment only")
    strict = {
        "mypy": ["--strict", "--no-incremental", "--config-file=", "--python-version=3.10"],
        "pyright": ["--project", str(PROGRAM.parent), "--pythonpath", sys.executable],
    }
    result = subprocess.run(
        [sys.executable, "-m", checker, *strict[checker], *([str(PROGRAM)] if checker == "mypy" else [])],
        cwd=ROOT,
        # Where a user has it: among what is installed.
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr
