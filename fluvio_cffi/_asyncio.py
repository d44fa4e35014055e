"""The port on asyncio (and uvloop): one persistent reader on the loop, one future per waiting task."""

from __future__ import annotations

import asyncio
import sys
import threading
import weakref
from threading import get_ident
from time import monotonic
from typing import TYPE_CHECKING, Any, Callable, Optional

from . import _platform
from ._completions import Pending, completed
from ._library import FULL, OK, Completion, discard, lib
from ._port import TURN_SECONDS, Pacer, Port

if TYPE_CHECKING:
    from weakref import WeakKeyDictionary

    Loops = WeakKeyDictionary[asyncio.AbstractEventLoop, "AsyncioPort"]

get_running_loop = asyncio.get_running_loop
_module = sys.modules.get
# The current task of a loop. Before 3.12 asyncio.current_task is written in Python and three times as slow.
_current_tasks: Any = None if sys.version_info >= (3, 12) else vars(asyncio.tasks).get("_current_tasks")
current_task: Callable[[Any], Any] = asyncio.current_task if _current_tasks is None else _current_tasks.get


def _nothing() -> None:
    return None


class AsyncioPort(Port):
    """See Port. The loop is referred to weakly: it refers to the port through its reader."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop: Callable[[], Optional[asyncio.AbstractEventLoop]] = weakref.ref(loop)
        self._thread = get_ident()
        self._fd = self.fd
        loop.add_reader(self._fd, self.drain)

    def check(self) -> None:
        if _running() is not self._loop() or self._stopped:
            raise self._refusal()

    def _enter(self) -> asyncio.AbstractEventLoop:
        # asyncio.get_running_loop() asks the kernel for the process id before 3.12: too much for each call.
        # Where the loop's task runs in the loop's thread, the loop is the running one.
        self.check()
        self._thread = get_ident()
        return get_running_loop()

    def _refusal(self) -> Exception:
        if self.forked or self._stopped:
            return super()._refusal()
        return RuntimeError(
            "this client belongs to another event loop: use it in the loop that called connect(), "
            "or connect in this one"
        )

    async def call(self, function: Callable[..., int], handle: Any, *arguments: Any) -> Optional[Completion]:
        loop = self._loop()
        if loop is None or get_ident() != self._thread:
            loop = self._enter()
        task = current_task(loop)
        if task is None:
            loop = self._enter()
        elif _is_cancelled(task):
            # Nothing is started for a task that is cancelled already; this raises.
            await asyncio.sleep(0)
        token = next(self._tokens)
        waiter: asyncio.Future[Completion] = loop.create_future()
        self._waiters[token] = waiter
        # From here an exception may strike anywhere (KeyboardInterrupt): nothing stays behind.
        try:
            status = function(handle, self._context, *arguments, token, self._error)
            if status == OK:
                completion = await waiter
            elif status == FULL:
                del self._waiters[token]
                return None
            else:
                raise self._refused()
        except BaseException:
            if self._waiters.pop(token, None) is not None:
                lib.fluvio_cancel(self._context, token)
            elif waiter.done() and not waiter.cancelled():
                # Completed and cancelled in the same turn of the loop.
                discard(waiter.result())
            raise
        if completion[1]:
            completed(completion)
        return completion

    async def park(self, pending: Pending) -> None:
        self.check()
        loop = get_running_loop()
        waiter: asyncio.Future[Completion] = loop.create_future()
        parked = pending.parked
        parked.append(waiter)
        try:
            await waiter
        finally:
            parked.remove(waiter)

    async def checkpoint(self) -> None:
        self.check()
        await asyncio.sleep(0)

    def pacer(self) -> Pacer:
        return AsyncioPacer(self)

    def release_from_finalizer(self) -> None:
        loop = self._loop()
        if loop is not None:
            try:
                loop.call_soon_threadsafe(self.release)
            except RuntimeError:
                return  # The loop is closed: the port goes with its last reference.

    def _detach(self) -> None:
        loop = self._loop()
        self._loop = _nothing
        if loop is None:
            return
        with _lock:
            if _ports.get(loop) is self:
                del _ports[loop]
        if not loop.is_closed():
            loop.remove_reader(self._fd)

    def _leave_to_parent(self) -> None:
        super()._leave_to_parent()
        self._loop = _nothing


class AsyncioPacer(Pacer):
    """See Pacer. A task can only be cancelled from within itself here: by `Task.cancel` or an anyio scope."""

    __slots__ = ("_loop", "_port", "_scopes", "_task", "_until")

    def __init__(self, port: AsyncioPort) -> None:
        self._port = port
        self._loop: Any = None
        self._task: Any = None
        self._scopes: Any = None
        self._until = 0.0

    def due(self) -> bool:
        try:
            task = current_task(self._loop)
            if task is not self._task or task is None or task._must_cancel or monotonic() >= self._until:
                return True
            scopes = self._scopes
            if scopes is not None:
                scope = scopes.cancel_scope
                return scope is not None and _is_scope_cancelled(scope)
        except (AttributeError, RuntimeError):
            # Another kind of task, another anyio, no loop: the checkpoint is always right.
            return True
        return False

    async def pause(self) -> None:
        await self._port.checkpoint()
        self.restart()

    def reset(self) -> None:
        self._task = None

    def restart(self) -> None:
        loop = self._loop = get_running_loop()
        task = self._task = current_task(loop)
        self._scopes = _scopes(task)
        self._until = monotonic() + TURN_SECONDS


# What anyio.lowlevel.checkpoint_if_cancelled() looks at, without what that costs for each call and record.


def _scopes(task: Any) -> Any:
    """Anyio's note on the cancel scopes of a task, if there is one."""
    backend: Any = _module("anyio._backends._asyncio")
    if backend is None:
        return None
    try:
        # The dictionary inside of a WeakKeyDictionary: its own get() is a function in Python.
        return backend._task_states.data.get(weakref.ref(task))
    except AttributeError:
        return None


def _is_scope_cancelled(scope: Any) -> bool:
    while scope is not None:
        if scope._cancel_called:
            return True
        if scope._shield:
            return False
        scope = scope._parent_scope
    return False


def _is_cancelled(task: Any) -> bool:
    """Whether the next checkpoint of the running task would raise."""
    try:
        if task._must_cancel:
            return True
        scopes = _scopes(task)
        return scopes is not None and _is_scope_cancelled(scopes.cancel_scope)
    except AttributeError:
        return False


def _running() -> Optional[asyncio.AbstractEventLoop]:
    try:
        return get_running_loop()
    except RuntimeError:
        return None


_ports: Loops = weakref.WeakKeyDictionary()
_lock = threading.Lock()
_left_to_parent: list[Any] = []


def current_asyncio_port() -> AsyncioPort:
    """The port of the running asyncio loop."""
    loop = _running()
    if loop is None:
        raise RuntimeError(
            "no event loop is running here: use fluvio_cffi.connect() in asyncio or trio, "
            "or fluvio_cffi.sync.connect() without one"
        )
    with _lock:
        port = _ports.get(loop)
    if port is None:
        port = AsyncioPort(loop)
        with _lock:
            _ports[loop] = port
    return port


def _after_fork() -> None:
    global _ports, _lock
    # Another thread may have held the lock or been inside the dictionary: start afresh, free nothing.
    _left_to_parent.append(_ports)
    _ports = weakref.WeakKeyDictionary()
    _lock = threading.Lock()


_platform.after_fork_in_child(_after_fork)
