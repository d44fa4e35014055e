"""What is generated is what its source says; what is loaded is what was declared."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import fluvio_cffi
import fluvio_cffi.sync
from fluvio_cffi import _library
from fluvio_cffi.errors import ErrorKind
from tests.support import ROOT, run_program

HEADER = ROOT / "capi" / "include" / "fluvio.h"


def tool(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_ffi_is_what_the_header_says() -> None:
    cffi = pytest.importorskip("cffi")
    if sys.implementation.name == "pypy" or tuple(map(int, cffi.__version__.split(".")[:2])) < (2, 1):
        pytest.skip("cffi 2.1 writes the committed file; others write it differently")
    generated = tool("generate_ffi").generate()
    assert (ROOT / "fluvio_cffi" / "_ffi.py").read_text() == generated, "run python tools/generate_ffi.py"


def test_the_options_are_what_the_table_says() -> None:
    generated = tool("generate_options").generate()
    present = {name: (ROOT / "fluvio_cffi" / "_async" / name).read_text() for name in generated}
    assert present == generated, "run python tools/generate_options.py and python tools/generate_sync.py"


def test_the_twin_is_what_its_source_says() -> None:
    pytest.importorskip("ruff")
    generated = tool("generate_sync").generate()
    present = {path.name: path.read_text() for path in (ROOT / "fluvio_cffi" / "_sync").glob("*.py")}
    assert present == generated, "run python tools/generate_sync.py"


def test_all_symbols_resolve() -> None:
    names = [name for name in dir(_library.lib) if name.startswith("fluvio_")]
    assert len(names) > 40
    for name in names:
        assert getattr(_library.lib, name)
    declared = set(
        re.findall(r"\b(fluvio_\w+)\(", re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL))
    )
    declared = {name for name in declared if not name.endswith("_fn")}
    assert declared == set(names)


def test_layouts() -> None:
    sizes = {
        "fluvio_completion": 64,
        "fluvio_sink": 32,
        "fluvio_batch_view": 120,
        "fluvio_deliveries_view": 64,
    }
    for structure, size in sizes.items():
        assert _library.ffi.sizeof(structure) == size, structure
    offsets = {"user_data": 0, "status": 8, "kind": 12, "value": 16, "offset": 24, "partition": 32}
    for field, offset in offsets.items():
        assert _library.ffi.offsetof("fluvio_completion", field) == offset, field


def test_numbers() -> None:
    lib: Any = _library.lib
    for kind in ErrorKind:
        assert getattr(lib, f"FLUVIO_ERROR_KIND_{kind.name}") == kind
    for name in ("OK", "FULL", "EMPTY", "END", "CANCELLED", "ERROR", "WOKEN"):
        assert getattr(lib, f"FLUVIO_STATUS_{name}") == getattr(_library, name)


def test_versions() -> None:
    (declared,) = re.findall(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert fluvio_cffi.__version__ == declared
    assert fluvio_cffi.library_version() == declared


def test_the_twin_has_the_same_names() -> None:
    def public(cls: type) -> dict[str, Any]:
        return {
            name.replace("aclose", "close"): member
            for name, member in vars(cls).items()
            if not name.startswith("_") and callable(member)
        }

    for name in ("Admin", "BatchIterator", "Client", "Consumer", "Delivery", "Producer", "Topics"):
        ours, twin = public(getattr(fluvio_cffi, name)), public(getattr(fluvio_cffi.sync, name))
        assert ours.keys() == twin.keys()
        for method, function in ours.items():
            expected = list(inspect.signature(function).parameters)
            waits = inspect.iscoroutinefunction(function) or method in ("producer", "consumer")
            assert list(inspect.signature(twin[method]).parameters) == expected + ["timeout"] * waits, method
    expected = [*inspect.signature(fluvio_cffi.connect).parameters, "timeout"]
    assert list(inspect.signature(fluvio_cffi.sync.connect).parameters) == expected


def test_trio_is_not_imported() -> None:
    status, out, err = run_program(
        """
        import sys, fluvio_cffi, fluvio_cffi.sync
        assert "trio" not in sys.modules
        """
    )
    assert (status, out, err) == (0, "", "")


@pytest.mark.parametrize(
    ("library", "message"),
    [
        ("/nowhere/lib.so", "is not a file"),
        (__file__, "cannot be loaded"),
        ("libc.so.6", "is not a fluvio_cffi library"),
    ],
)
def test_a_wrong_library(library: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if library == "libc.so.6":
        maps = Path("/proc/self/maps").read_text()
        library = next(word for word in maps.split() if "/libc" in word and ".so" in word)
    monkeypatch.setenv("FLUVIO_CFFI_LIBRARY", library)
    status, _, err = run_program("import fluvio_cffi")
    assert status == 1
    assert "ImportError" in err
    assert message in err
    assert library in err
