"""The loaded C library: `ffi`, `lib`, `NULL`, and errors of the library as exceptions.

Nothing else touches the generated module. `FLUVIO_CFFI_LIBRARY` names another file to load.
"""

from __future__ import annotations

import importlib.resources
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from operator import is_
from pathlib import Path
from typing import Any, Optional

from . import _platform
from .errors import ClosedError, FluvioError, InternalError, from_parts

try:
    from ._ffi import ffi as _ffi
except ImportError as error:
    if "subinterpreter" in str(error):
        raise ImportError(
            f"fluvio_cffi works in the main interpreter and in those that share its GIL: {error}"
        ) from error
    raise ImportError(f"fluvio_cffi needs the cffi package ({error}): pip install cffi") from error

ffi: Any = _ffi

# A completion as the border hands it over: (user_data, status, kind, value, offset, partition, owner).
# `value` is an address, 0 for none. It belongs to whoever has the completion if `owner` is 0, else to
# `owner`, whose `release()` frees it.
Completion = tuple[int, int, int, int, int, int, Any]

OK = 0
FULL = 1
EMPTY = 2
END = 3
CANCELLED = 4
ERROR = 5
WOKEN = 6
INTERRUPTED = 7


@contextmanager
def _file() -> Iterator[Path]:
    """The file to load; it may be gone once it is loaded."""
    named = os.environ.get("FLUVIO_CFFI_LIBRARY")
    if named:
        path = Path(named)
        if not path.is_file():
            raise ImportError(f"FLUVIO_CFFI_LIBRARY names {named!r}, which is not a file")
        yield path
        return
    # A real file, or one in a zip archive, which is unpacked for as long as it takes to load it.
    packed = importlib.resources.files(__package__ or "fluvio_cffi").joinpath(_platform.LIBRARY_NAME)
    with ExitStack() as stack:
        unpacked: Optional[Path] = None
        try:
            unpacked = stack.enter_context(importlib.resources.as_file(packed))
        except (OSError, KeyError):
            pass
        if unpacked is None or not unpacked.is_file():
            missing = Path(__file__).parent / _platform.LIBRARY_NAME
            raise ImportError(
                f"{missing} is missing: this package was not built for this platform. Install a wheel, run "
                "`make build` in the source tree, or name the library with FLUVIO_CFFI_LIBRARY"
            )
        yield unpacked


def _load() -> Any:
    with _file() as path:
        return _loaded(path)


def _loaded(path: Path) -> Any:
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


OUTCOMES = {
    lib.FLUVIO_OUTCOME_NOT_SENT: "not_sent",
    lib.FLUVIO_OUTCOME_UNKNOWN: "unknown",
    lib.FLUVIO_OUTCOME_WRITTEN: "written",
}


def library_version() -> str:
    """The version of the loaded library."""
    return text(lib.fluvio_version())


def text(pointer: Any) -> str:
    """A NUL-terminated string of the library."""
    return str(ffi.string(pointer).decode("utf-8", "replace"))


def read_error(error: Any) -> FluvioError:
    """A borrowed `fluvio_error` as an exception."""
    try:
        detail = json.loads(text(lib.fluvio_error_get_detail(error)))
    except ValueError:
        detail = {}
    return from_parts(
        int(lib.fluvio_error_get_kind(error)),
        text(lib.fluvio_error_get_message(error)),
        code=lib.fluvio_error_get_code(error),
        retriable=bool(lib.fluvio_error_is_retriable(error)),
        detail=detail,
        topic=_text_or_none(lib.fluvio_error_get_topic(error)),
        partition=_unless(lib.fluvio_error_get_partition(error), lib.FLUVIO_NO_PARTITION),
        spu=_unless(lib.fluvio_error_get_spu(error), lib.FLUVIO_NO_SPU),
        endpoint=_text_or_none(lib.fluvio_error_get_endpoint(error)),
        outcome=OUTCOMES.get(int(lib.fluvio_error_get_outcome(error))),
    )


def _text_or_none(pointer: Any) -> Optional[str]:
    return None if pointer == NULL else text(pointer)


def _unless(number: int, none: int) -> Optional[int]:
    return None if number == none else number


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
    try:
        return read_failure(completion)
    finally:
        discard(completion)


def read_failure(completion: Completion) -> FluvioError:
    """The exception for a completion whose status is not OK, which keeps its error."""
    if completion[1] == ERROR and completion[2] == lib.FLUVIO_VALUE_KIND_ERROR:
        return read_error(ffi.cast("fluvio_error *", completion[3]))
    return ClosedError(
        "the client was closed before the answer came: the outcome is unknown", outcome="unknown"
    )


def discard(completion: Completion) -> None:
    """Free what a completion carries."""
    if completion[6]:
        completion[6].release()
    elif completion[3]:
        lib.fluvio_value_free(completion[2], ffi.cast("void *", completion[3]))


def options(document: bytes) -> Any:
    """The library's options for a JSON document, freed when nothing refers to them any more."""
    error = ffi.new("fluvio_error **")
    handle = lib.fluvio_options_new(document, len(document), error)
    if handle == NULL:
        raise take_error(error[0])
    return ffi.gc(handle, lib.fluvio_options_free)


def own(type_name: str, completion: Completion, destructor: Any) -> Any:
    """The handle that came with a completion, freed when nothing refers to it any more."""
    handle = ffi.cast(type_name, completion[3])
    # With an owner: a destructor that does nothing but hold it. It is no function of Python, in which Ctrl-C
    # could strike and would be dropped.
    return ffi.gc(handle, partial(is_, completion[6]) if completion[6] else destructor)
