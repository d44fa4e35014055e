"""The build hook of the wheel: compiles the library and the development server, and sets the wheel's tag.

hatchling runs it for `pip wheel .` and `pip install .`. The two files go into the wheel beside the Python
code; an editable install (`make build`) puts the same files into the source tree, where git ignores them.

Invariants:
* Nothing is compiled into the source tree: cargo's target folder is CARGO_TARGET_DIR, or the user's cache.
* One wheel serves every CPython and PyPy of a platform (`py3-none-<platform>`), because the Python code
  loads the library through cffi's ABI mode. The platform is what auditwheel finds, not what is hoped for.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGES = ("fluvio-cffi-capi", "fluvio-devserver")
LIBRARY = "libfluvio_cffi.so"
SERVER = "fluvio-devserver"
# Where the files live inside the package; fluvio_cffi looks for them there.
DESTINATIONS = {LIBRARY: f"fluvio_cffi/{LIBRARY}", SERVER: f"fluvio_cffi/bin/{SERVER}"}


def target_folder() -> Path:
    """Cargo's target folder: outside the tree unless CARGO_TARGET_DIR says otherwise."""
    configured = os.environ.get("CARGO_TARGET_DIR")
    if configured:
        return Path(configured).absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "fluvio-cffi" / "target"


def compile_release(root: Path) -> dict[str, Path]:
    """Compiles the release profile and returns the built files by name."""
    target = target_folder()
    command = ["cargo", "build", "--release", "--locked"]
    for package in PACKAGES:
        command += ["--package", package]
    try:
        subprocess.run(command, cwd=root, env={**os.environ, "CARGO_TARGET_DIR": str(target)}, check=True)
    except FileNotFoundError:
        sys.exit("building fluvio-cffi needs Rust: cargo was not found on PATH")
    except subprocess.CalledProcessError as error:
        sys.exit(f"cargo ended with status {error.returncode}; what it said is above")
    return {name: target / "release" / name for name in DESTINATIONS}


def platform_tag(files: dict[str, Path]) -> str:
    """The oldest platform that auditwheel finds these binaries to run on, such as manylinux_2_34_x86_64."""
    fallback = re.sub(r"[-.]", "_", sysconfig.get_platform())
    if not sys.platform.startswith("linux"):
        return fallback
    with tempfile.TemporaryDirectory() as folder:
        # auditwheel judges wheels, and ours needs its tag before it is written: a minimal one stands in.
        probe = Path(folder) / f"probe-0-py3-none-{fallback}.whl"
        with zipfile.ZipFile(probe, "w") as archive:
            for name, file in files.items():
                archive.write(file, f"probe/{name}")
            archive.writestr("probe-0.dist-info/METADATA", "Metadata-Version: 2.1\nName: probe\nVersion: 0\n")
            archive.writestr(
                "probe-0.dist-info/WHEEL",
                f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: py3-none-{fallback}\n",
            )
            # It looks at the files that RECORD lists, and does not compare their hashes.
            archive.writestr("probe-0.dist-info/RECORD", "".join(f"probe/{name},,\n" for name in files))
        command = [sys.executable, "-m", "auditwheel", "show", str(probe)]
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    # The first quoted tag is the one found; later ones belong to the advice on reaching older platforms.
    found = re.search(r"platform\s+tag:\s*\"(\w+)\"", result.stdout)
    if result.returncode != 0 or found is None:
        sys.exit(f"auditwheel could not judge the library:\n{result.stdout}")
    return found.group(1)


def place(source: Path, destination: Path) -> None:
    """Copies by rename, so that a process which has the old file mapped keeps it."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    staged = destination.with_name(destination.name + ".new")
    shutil.copy2(source, staged)
    os.replace(staged, destination)


class NativeBuildHook(BuildHookInterface[Any]):
    """Adds the compiled files to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compiles before the wheel is written: its tag and two of its files come from there."""
        root = Path(self.root)
        files = compile_release(root)
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag(files)}"
        if version == "editable":
            for name, file in files.items():
                place(file, root / DESTINATIONS[name])
        else:
            for name, file in files.items():
                build_data["force_include"][str(file)] = DESTINATIONS[name]
