"""gevent: a wait of the synchronous twin is a wait of the library, which gevent cannot turn into a switch.

In a program that gevent has patched, threads are greenlets of one thread, and all of them would stand still.
"""

from __future__ import annotations

import os
import sys
import threading

__all__ = ["refuse_in_a_hub"]


def refuse_in_a_hub() -> None:
    """RuntimeError where this thread runs the greenlets of a patched program; real threads may wait."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("threading"):
        return
    import gevent.hub  # type: ignore[import-not-found,import-untyped,unused-ignore]
    import greenlet  # type: ignore[import-not-found,import-untyped,unused-ignore]

    in_a_greenlet = isinstance(greenlet.getcurrent().parent, gevent.hub.Hub)
    if in_a_greenlet or threading.get_native_id() == os.getpid():
        raise RuntimeError(
            "fluvio_cffi.sync waits in the library, which would stop every greenlet of this gevent hub: make "
            "and use the client in a thread of its own, such as gevent.get_hub().threadpool.apply(function)"
        )
