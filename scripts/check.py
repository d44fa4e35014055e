"""Runs the checks of the project and closes with what passed, what failed and what could not run.

`python3 -m scripts.check [--soak] [GROUP...]`; without a group, all of them. Standard library only.

Invariants:
* A failing check stops nothing but what needs its result: the closing list is always complete.
* What could not run is named there with its reason. Where CI=true, it is a failure if apt, pip or cargo could
  have brought what was missing; without CI it is only named.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scripts.environments import (
    EVERYDAY,
    ROOT,
    Interpreter,
    everyday_interpreter,
    find_cpython,
    find_pypy,
    make_environment,
    make_everyday,
    python_of,
)
from scripts.report import Report

# Every Rust command uses the same packages and features, so that all of them share one build.
WORKSPACE = ["--workspace", "--locked", "--features", "fluvio-cffi-capi/live-objects"]
CPYTHONS = ("3.9", "3.11", "3.13")
# So many interpreters are tested at the same time.
PYTESTS = 2
# Debian's package for each program that a check calls.
SYSTEM_PROGRAMS = {
    "cc": "gcc",
    "c++": "g++",
    "readelf": "binutils",
    "nm": "binutils",
    "openssl": "openssl",
    "clang": "clang",
    "wasm-ld": "lld",
    "valgrind": "valgrind",
    "pypy3": "pypy3",
}
MINUTE = 60
# The build of a wheel takes longer than a test may before it is asked where it hangs.
NO_DUMP = ("-o", "faulthandler_timeout=0")


class Checks:
    """The groups of checks; each public method is one."""

    def __init__(self, report: Report, soak: bool) -> None:
        self.report = report
        self.soak = soak
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self.target = Path(os.environ.get("CARGO_TARGET_DIR") or cache / "fluvio-cffi" / "target").absolute()
        os.environ["CARGO_TARGET_DIR"] = str(self.target)
        self._built: dict[str, bool] = {}

    # Set-up -----------------------------------------------------------------------------------------

    def set_up(self) -> None:
        """Brings what the checks need, as far as this user may."""
        missing = sorted(
            {package for program, package in SYSTEM_PROGRAMS.items() if not shutil.which(program)}
        )
        if find_pypy() is None:
            missing = sorted({*missing, "pypy3", "pypy3-venv"})
        if missing and shutil.which("apt-get") and os.geteuid() == 0:
            environment = {"DEBIAN_FRONTEND": "noninteractive"}
            self.report.run("apt-get update", ["apt-get", "update", "-q"], environment=environment)
            install = ["apt-get", "install", "-q", "-y", "--no-install-recommends", *missing]
            self.report.run("apt-get install", install, environment=environment)
        for program, package in SYSTEM_PROGRAMS.items():
            if not shutil.which(program):
                self.report.missing(
                    program, f"not on PATH; Debian's package {package} has it", obtainable=True
                )
        make_everyday()

    def interpreters(self) -> list[Interpreter]:
        """Those that the Python tests run on; the others are named as missing."""
        found = []
        everyday = everyday_interpreter()
        for version in CPYTHONS:
            interpreter = everyday if everyday.name == f"CPython {version}" else find_cpython(version)
            if interpreter is None:
                # No package registry carries CPython itself, so this is never a failure.
                self.report.missing(f"CPython {version}", "no such interpreter runs here", obtainable=False)
            else:
                found.append(interpreter)
        if everyday not in found:
            found.append(everyday)
        pypy = find_pypy()
        if pypy is None:
            self.report.missing("PyPy", "pypy3 with venv; Debian has pypy3 and pypy3-venv", obtainable=True)
        else:
            found.append(pypy)
        return found

    def _environment_of(self, interpreter: Interpreter) -> Path:
        if interpreter == everyday_interpreter():
            return python_of(EVERYDAY)
        suffix = "pypy" if interpreter.implementation == "PyPy" else interpreter.version
        return make_environment(ROOT / f".venv-{suffix}", interpreter, ROOT / "requirements" / "test.txt")

    def _build(self, profile: str) -> bool:
        """Compiles once per run: "dev" for the tests, "release" for what is shipped."""
        if profile not in self._built:
            commands = {"dev": ["cargo", "build", *WORKSPACE, "--all-targets"], "release": ["make", "build"]}
            command = commands[profile]
            self._built[profile] = self.report.run(f"build ({profile})", command, timeout=60 * MINUTE)
        return self._built[profile]

    def _test_environment(self) -> dict[str, str]:
        """Points the Python tests at the library and the server that the Rust tests have just used."""
        environment = {
            "FLUVIO_CFFI_LIBRARY": str(self.target / "debug" / "libfluvio_cffi.so"),
            "FLUVIO_DEVSERVER": str(self.target / "debug" / "fluvio-devserver"),
        }
        if self.soak:
            environment["FLUVIO_TEST_RACES"] = os.environ.get("FLUVIO_TEST_RACES", "100000")
            environment["FLUVIO_TEST_SOAK"] = "1"
        return environment

    def _pytest(self, name: str, python: Path, *arguments: str, prefix: str = "") -> None:
        minutes = 600 if self.soak else 20
        command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
        environment = self._test_environment()
        if python != python_of(EVERYDAY) and not self.soak:
            # Every run is a process: the everyday interpreter does all of them, the others a part.
            environment.setdefault("FLUVIO_TEST_EXITS", os.environ.get("FLUVIO_TEST_EXITS", "25"))
        self.report.run(name, command, environment=environment, timeout=minutes * MINUTE, prefix=prefix)

    # Groups -----------------------------------------------------------------------------------------

    def lint(self) -> None:
        """Formatting, clippy, ruff, type checks."""
        tools = EVERYDAY / "bin"
        for component in ("fmt", "clippy"):
            if subprocess.run(["cargo", component, "--version"], capture_output=True).returncode != 0:
                self.report.missing(
                    f"cargo {component}", "not part of this Rust installation", obtainable=False
                )
            elif component == "fmt":
                self.report.run("rustfmt", ["cargo", "fmt", "--all", "--check"])
            else:
                command = ["cargo", "clippy", *WORKSPACE, "--all-targets", "--", "-D", "warnings"]
                self.report.run("clippy", command, timeout=60 * MINUTE)
        self.report.run("ruff", [str(tools / "ruff"), "check", "."])
        self.report.run("ruff format", [str(tools / "ruff"), "format", "--check", "."])
        self.report.run("mypy --strict", [str(tools / "mypy")])
        self.report.run("pyright", [str(tools / "pyright")])

    def rust(self) -> None:
        """Rust tests and, driven by them, the C tests and the checks of the header."""
        # First, because the server that the other tests use is built to the same place.
        command = ["cargo", "test", *WORKSPACE, "--no-default-features", "--test", "suite"]
        command += ["--", "without_engine::", "replay::"]
        self.report.run("Rust tests without the SmartModule engine", command, timeout=60 * MINUTE)
        if self._build("dev"):
            command = ["cargo", "test", *WORKSPACE, "--no-fail-fast"]
            minutes = 600 if self.soak else 30
            environment = self._test_environment()
            self.report.run("Rust and C tests", command, environment=environment, timeout=minutes * MINUTE)

    def python(self) -> None:
        """The Python tests on every interpreter found."""
        if self._build("dev"):
            # They wait more than they work, and what holds only on an idle machine does not hold.
            with ThreadPoolExecutor(PYTESTS) as pool:
                ends = []
                for interpreter in self.interpreters():
                    name, python = interpreter.name, self._environment_of(interpreter)
                    ends.append(
                        pool.submit(self._pytest, f"pytest on {name}", python, prefix=f"{name:12} | ")
                    )
                try:
                    for end in ends:
                        end.result()
                except KeyboardInterrupt:
                    pool.shutdown(wait=False, cancel_futures=True)
                    self.report.stop()
                    raise

    def packaging(self) -> None:
        """The wheel and the source archive."""
        if self._build("release"):
            self.interpreters()  # names those that the tests will not find
            self._pytest("wheel and sdist", python_of(EVERYDAY), "-m", "packaging", *NO_DUMP)

    def interop(self) -> None:
        """The official Python client, in an environment of its own."""
        if self._build("dev"):
            official = ROOT / "requirements" / "official.txt"
            make_environment(ROOT / ".venv-official", everyday_interpreter(), official)
            self._pytest("official Python client", python_of(EVERYDAY), "-m", "interop")

    def examples(self) -> None:
        """The Python examples and the demo, on what is shipped; the C examples run with the Rust tests."""
        if self._build("release"):
            python = str(python_of(EVERYDAY))
            self.report.run(
                "example quickstart.py", [python, "examples/python/quickstart.py"], timeout=MINUTE
            )
            self.report.run("demo", [python, "examples/python/earthquakes.py"], timeout=2 * MINUTE)


def main() -> int:
    """Runs the chosen groups."""
    groups = ["lint", "rust", "python", "interop", "packaging", "examples"]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--soak", action="store_true", help="the long forms")
    parser.add_argument("group", nargs="*", metavar="GROUP", help=f"of {', '.join(groups)}; default: all")
    arguments = parser.parse_args()
    chosen: list[str] = arguments.group or groups
    unknown = [group for group in chosen if group not in groups]
    if unknown:
        parser.error(f"no such group: {', '.join(unknown)}")
    report = Report(strict=os.environ.get("CI") == "true", folder=ROOT)
    checks = Checks(report, arguments.soak)
    # The order puts what is quick and fails often first.
    methods: dict[str, Callable[[], None]] = {group: getattr(checks, group) for group in groups}
    checks.set_up()
    for group in chosen:
        report.attempt(group, methods[group])
    return report.close()


if __name__ == "__main__":
    sys.exit(main())
