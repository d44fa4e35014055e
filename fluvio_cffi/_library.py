"""The loaded C library: `ffi`, `lib`, `NULL`, and errors of the library as exceptions.

Nothing else touches the generated module. `FLUVIO_CFFI_LIBRARY` names another file to load.
"""

from __future__ import annotations

import atexit
import json
import os
import time
import warnings
from pathlib import Path
from typing import Any

from . import _platform
from .errors import ClosedError, FluvioError, InternalError, from_parts

try:
    from ._ffi import ffi as _ffi
except ImportError as error:
    raise ImportError(f"fluvio_cffi needs the cffi package ({error}): pip install cffi") from error

ffi: Any = _ffi

# A completion as the border hands it over: (user_data, status, kind, value, offset, partition, reserved).
# `value` is an address, 0 for none.
Completion = tuple[int, int, int, int, int, int, int]

OK = 0
FULL = 1
EMPTY = 2
END = 3
CANCELLED = 4
ERROR = 5


def _path() -> Path:
    named = os.environ.get("FLUVIO_CFFI_LIBRARY")
    if named:
        path = Path(named)
        if not path.is_file():
            raise ImportError(f"FLUVIO_CFFI_LIBRARY names {named!r}, which is not a file")
        return path
    path = Path(__file__).resolve().parent / _platform.LIBRARY_NAME
    if not path.is_file():
        raise ImportError(
            f"{path} is missing: this package was not built for this platform. Install a wheel, run "
            "`make build` in the source tree, or name the library with FLUVIO_CFFI_LIBRARY"
        )
    return path


def _load() -> Any:
    path = _path()
    try:
        library = _platform.load(ffi, path)
    except OSError as error:
        raise ImportError(f"{path} cannot be loaded: {error}") from error
    try:
        version = library.fluvio_abi_version()
    except (AttributeError, ffi.error) as error:
        raise ImportError(f"{path} is not a fluvio_cffi library: {error}") from error
    if version != library.FLUVIO_ABI_VERSION:
        raise ImportError(
            f"{path} speaks ABI {version}, this package needs ABI {library.FLUVIO_ABI_VERSION}: "
            "the library and the Python package come from different releases"
        )
    return library


lib: Any = _load()
NULL: Any = ffi.NULL
NO_KEY: int = lib.FLUVIO_NO_KEY
RECORD_OVERHEAD: int = lib.FLUVIO_RECORD_OVERHEAD


def library_version() -> str:
    """The version of the loaded library."""
    return text(lib.fluvio_version())


def text(pointer: Any) -> str:
    """A NUL-terminated string of the library."""
    return str(ffi.string(pointer).decode("utf-8", "replace"))


def read_error(error: Any) -> FluvioError:
    """A borrowed `fluvio_error` as an exception."""
    try:
        detail = json.loads(text(lib.fluvio_error_detail(error)))
    except ValueError:
        detail = {}
    return from_parts(
        int(lib.fluvio_error_get_kind(error)),
        text(lib.fluvio_error_message(error)),
        lib.fluvio_error_code(error),
        bool(lib.fluvio_error_is_retriable(error)),
        detail,
    )


def take_error(error: Any) -> FluvioError:
    """An owned `fluvio_error` as an exception; frees it."""
    if error == NULL:
        return InternalError("the library refused the call without a reason")
    try:
        return read_error(error)
    finally:
        lib.fluvio_error_free(error)


def failure(completion: Completion) -> FluvioError:
    """The exception for a completion whose status is not OK; frees its error."""
    if completion[1] == ERROR and completion[2] == lib.FLUVIO_VALUE_KIND_ERROR:
        return take_error(ffi.cast("fluvio_error *", completion[3]))
    discard(completion)
    return ClosedError("the operation was cancelled because its client was closed")


def discard(completion: Completion) -> None:
    """Free what a completion carries."""
    if completion[3]:
        lib.fluvio_value_free(completion[2], ffi.cast("void *", completion[3]))


def own(type_name: str, address: int, destructor: Any) -> Any:
    """A handle that came with a completion, freed when nothing refers to it any more."""
    return ffi.gc(ffi.cast(type_name, address), destructor)


# How long the interpreter's exit waits for records of producers that were not closed.
EXIT_SECONDS = 3.0


def _flush_at_exit() -> None:
    # In slices, so that Ctrl-C can end it.
    deadline = time.monotonic() + EXIT_SECONDS
    left = lib.fluvio_flush_all(100)
    while left and time.monotonic() < deadline:
        left = lib.fluvio_flush_all(100)
    if left:
        warnings.warn(
            f"{left} records were not acknowledged when the program ended: close producers to wait for them",
            ResourceWarning,
            stacklevel=1,
        )


atexit.register(_flush_at_exit)
