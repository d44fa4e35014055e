"""What is in the wheel, how it is tagged and how its library is linked."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

from tests.packaging import artifacts

# Roomy for today's content; a wheel that outgrows it carries something that it should not.
LARGEST_WHEEL = 12 * 1024 * 1024


def readelf(*arguments: str) -> str:
    return artifacts.run(["readelf", "--wide", *arguments])


def test_one_wheel_for_all_pythons_tagged_as_auditwheel_finds(wheel: Path) -> None:
    match = re.fullmatch(r"fluvio_cffi-[\d.]+-py3-none-(manylinux_2_\d+_\w+)\.whl", wheel.name)
    assert match, wheel.name
    shown = artifacts.run([sys.executable, "-m", "auditwheel", "show", str(wheel)])
    # The first quoted tag is the finding; what follows is advice on reaching older platforms.
    found = re.search(r"platform\s+tag:\s*\"(\w+)\"", shown)
    assert found, shown
    assert found.group(1) == match.group(1), shown
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/WHEEL"))
        text = archive.read(name).decode()
    assert f"Tag: py3-none-{match.group(1)}" in text
    assert "Root-Is-Purelib: false" in text


def test_it_holds_the_package_the_library_and_the_server(wheel: Path) -> None:
    names = artifacts.names_in(wheel)
    package = {name for name in names if name.startswith(("fluvio_cffi/", "fluvio_cffi_plugins/"))}
    metadata = {name.split("/", 1)[1] for name in names - package}
    expected = {"__init__.py", "_ffi.py", "py.typed", "libfluvio_cffi.so", "bin/fluvio-devserver"}
    assert {f"fluvio_cffi/{name}" for name in expected} <= package
    assert metadata == {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
    sources = {str(file.relative_to(artifacts.ROOT)) for file in artifacts.ROOT.glob("fluvio_cffi*/**/*.py")}
    assert sources <= package, "Python files are missing from the wheel"
    assert not {name for name in package if "__pycache__" in name or name.endswith(".new")}
    assert wheel.stat().st_size < LARGEST_WHEEL


def test_the_metadata_says_what_is_needed(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    assert metadata["Name"] == "fluvio-cffi"
    assert metadata["Requires-Python"] == ">=3.9"
    assert metadata["License-Expression"] == "Apache-2.0"
    requirements = [str(line) for line in metadata.get_all("Requires-Dist") or []]
    needed = [line for line in requirements if "extra ==" not in line]
    assert sorted(re.split(r"[<>=;\s]", line)[0] for line in needed) == ["anyio", "cffi"]
    assert any("PyPy" in line for line in needed if line.startswith("cffi")), "PyPy brings its own cffi"


def test_pytest_finds_the_plugin(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
        entry_points = archive.read(name).decode()
    assert "[pytest11]\nfluvio_cffi_plugins.testing = fluvio_cffi_plugins.testing\n" in entry_points


def test_the_library_stays_mapped_and_has_its_soname(unpacked: Path) -> None:
    dynamic = readelf("--dynamic", str(unpacked / artifacts.LIBRARY))
    assert re.search(r"FLAGS_1.*NODELETE", dynamic), dynamic
    assert "Library soname: [libfluvio_cffi.so.0]" in dynamic, dynamic
    assert "RPATH" not in dynamic
    assert "RUNPATH" not in dynamic


def test_only_our_symbols_are_exported(unpacked: Path) -> None:
    table = artifacts.run(["nm", "--dynamic", "--defined-only", str(unpacked / artifacts.LIBRARY)])
    exported = {line.split()[-1] for line in table.splitlines() if line.strip()}
    header = (artifacts.ROOT / "capi" / "include" / "fluvio.h").read_text()
    declared = set(re.findall(r"\b(fluvio_\w+)\s*\(", header))
    assert exported
    assert not {name for name in exported if not name.startswith("fluvio_")}
    assert exported <= declared, "exported, but not in the header"
    assert "fluvio_live_objects" not in exported, "the counter is for tests only"


def test_the_server_runs_from_the_wheel(wheel: Path, unpacked: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        mode = archive.getinfo(artifacts.SERVER).external_attr >> 16
    assert mode & 0o111 == 0o111, oct(mode)
    server = unpacked / artifacts.SERVER
    server.chmod(0o755)  # zipfile extracts without modes; installers keep them
    result = subprocess.run([str(server), "--version"], capture_output=True, text=True, timeout=30)
    assert result.returncode == 0, result.stderr
    version = wheel.name.split("-")[1]
    assert version in result.stdout
