"""What the figures were taken on."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

ENVIRONMENTS = {
    "everyday": "ours on asyncio, uvloop, trio and the sync twin",
    "official": "the official client",
    "pypy": "ours on PyPy",
}


def _first(path: str, key: str) -> str:
    for line in Path(path).read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return "unknown"


def version_of(python: Path) -> str:
    """How a table names this interpreter."""
    probe = (
        "import platform, sys; v = getattr(sys, 'pypy_version_info', None);"
        "print(platform.python_implementation(), platform.python_version(),"
        " '' if v is None else '(%d.%d.%d)' % v[:3])"
    )
    return subprocess.run([python, "-c", probe], capture_output=True, text=True, check=True).stdout.strip()


def load() -> float:
    """Processes that wanted to run during the last minute, on average."""
    return os.getloadavg()[0]


def describe(pythons: dict[str, Path]) -> list[tuple[str, str]]:
    """Facts about the machine and the interpreters, by name."""
    memory = int(_first("/proc/meminfo", "MemTotal").split()[0]) / 2**20
    facts = [
        ("CPU", f"{len(os.sched_getaffinity(0))} cores, {_first('/proc/cpuinfo', 'model name')}"),
        ("memory", f"{memory:.0f} GiB"),
        ("kernel", f"{platform.system()} {'.'.join(platform.release().split('.')[:2])} {platform.machine()}"),
    ]
    facts += [(ENVIRONMENTS[name], version_of(python)) for name, python in pythons.items()]
    packages = (("uvloop", "everyday"), ("trio", "everyday"), ("fluvio", "official"))
    for package, environment in packages:
        if environment in pythons:
            facts.append((package, package_version(pythons[environment], package)))
    rustc = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout
    facts.append(("rustc", rustc.strip()))
    return facts


def package_version(python: Path, package: str) -> str:
    """The version of a package in an environment."""
    probe = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run([python, "-c", probe], capture_output=True, text=True, check=True).stdout.strip()
