"""The private names of asyncio, trio and anyio that this package uses: all of them, and nowhere else.

They tell for every call and every record whether the running task is cancelled, which a checkpoint would need
ten times as long for. None of them is needed: where a release has the name no more, its reader raises
AttributeError or `is_cancelled` says yes, and whoever asked makes a checkpoint, which is the public way and
always right. tests/test_internals.py pins the names and takes each of them away.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from operator import attrgetter
from typing import Any, Callable

_modules = sys.modules
# Asyncio's own dictionary: before 3.12 asyncio.current_task is written in Python and three times as slow.
_current_tasks: Any = None if sys.version_info >= (3, 12) else vars(asyncio.tasks).get("_current_tasks")

current_task: Callable[[Any], Any] = asyncio.current_task if _current_tasks is None else _current_tasks.get
"""The current task of an asyncio loop."""

must_cancel: Callable[[Any], bool] = attrgetter("_must_cancel")
"""Whether an asyncio task was cancelled while it ran."""

trio_cancelled: Callable[[Any], bool] = attrgetter("_cancel_status.effectively_cancelled")
"""Whether a trio task is within a cancelled scope."""


class _Unknown:
    """What is known of a task whose scopes cannot be read: it has no `cancel_scope`."""


_UNKNOWN = _Unknown()


def scopes(task: Any) -> Any:
    """Anyio's note on an asyncio task: its `cancel_scope` is for `scope_cancelled`. None without a note."""
    backend: Any = _modules.get("anyio._backends._asyncio")
    if backend is None:
        return None
    try:
        # The dictionary inside of a WeakKeyDictionary: its own get() is a function in Python.
        return backend._task_states.data.get(weakref.ref(task))
    except AttributeError:
        return _UNKNOWN


def scope_cancelled(scope: Any) -> bool:
    """Whether a scope of anyio, or one around it that it does not shield from, is cancelled."""
    while scope is not None:
        if scope._cancel_called:
            return True
        if scope._shield:
            return False
        scope = scope._parent_scope
    return False


def is_cancelled(task: Any) -> bool:
    """Whether the next checkpoint of the running asyncio task would raise; True where that is not known."""
    try:
        if must_cancel(task):
            return True
        noted = scopes(task)
        return noted is not None and scope_cancelled(noted.cancel_scope)
    except AttributeError:
        return True
