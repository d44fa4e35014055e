"""What PyInstaller cannot see by itself: the library, which is loaded by its path, and cffi behind it.

The development server is not frozen in: a program that needs it names it with FLUVIO_DEVSERVER.
"""

import os

from PyInstaller.utils.hooks import get_package_paths  # type: ignore[import-not-found,unused-ignore]

_folder = get_package_paths("fluvio_cffi")[1]
_named = os.environ.get("FLUVIO_CFFI_LIBRARY")
_found = [os.path.join(_folder, name) for name in ("libfluvio_cffi.so", "libfluvio_cffi.dylib")]
# The name in the frozen program is the one that the package looks for, wherever the file was.
binaries = [(path, "fluvio_cffi") for path in _found if os.path.isfile(path)] or (
    [(_named, "fluvio_cffi")] if _named else []
)
hiddenimports = ["_cffi_backend"]
