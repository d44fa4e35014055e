"""What differs between operating systems: the library's file name, how it is loaded, fork.

Linux is what is promised today. Everything that assumes it stands here; the wake-up descriptor itself is
the library's business (an eventfd or a socket) and is only ever polled for readability.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    from pathlib import Path

LIBRARY_NAME = "libfluvio_cffi.dylib" if sys.platform == "darwin" else "libfluvio_cffi.so"
SERVER_NAME = "fluvio-devserver"


def load(ffi: Any, path: Path) -> Any:
    """Open the library and keep it open: its threads outlive the interpreter's interest in it.

    cffi closes a library when its object is collected, at interpreter exit; unmapping code that threads
    still run would crash, hence RTLD_NODELETE (the library is linked with it as well).
    """
    return ffi.dlopen(str(path), ffi.RTLD_NOW | getattr(ffi, "RTLD_NODELETE", 0))


def after_fork_in_child(function: Callable[[], None]) -> None:
    """Have `function` called in every forked child, before other Python code runs there."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)
