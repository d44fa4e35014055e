"""The port on asyncio (and uvloop): one persistent reader on the loop, one future per waiting task."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import weakref
from threading import get_ident
from time import monotonic
from typing import TYPE_CHECKING, Any, Callable, Optional

from . import _internals, _platform
from ._completions import Pending, completed
from ._internals import current_task, is_cancelled, must_cancel, scope_cancelled
from ._library import Completion, discard
from ._port import TURN_SECONDS, Pacer, Port

if TYPE_CHECKING:
    from weakref import WeakKeyDictionary

    from ._receipts import Receipt

    Loops = WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.ref["AsyncioPort"]]

get_running_loop = asyncio.get_running_loop


def _nothing() -> None:
    return None


class AsyncioPort(Port):
    """See Port. The loop is referred to weakly: it refers to the port through its reader.

    Nothing else but its clients and waiting tasks keeps a port alive, so that a loop that was closed while
    tasks waited, and all that hangs on it, can be collected.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop: Callable[[], Optional[asyncio.AbstractEventLoop]] = weakref.ref(loop)
        self._fd = self.fd
        # Not in the caller's context, which the loop would keep as long as the reader.
        contextvars.Context().run(loop.add_reader, self._fd, self.drain)

    def check(self) -> None:
        loop = _running()
        if loop is None or loop is not self._loop() or self._stopped:
            raise self._refusal()

    def _enter(self) -> asyncio.AbstractEventLoop:
        # asyncio.get_running_loop() asks the kernel for the process id before 3.12: too much for each call.
        # Where the loop's task runs in the loop's thread, the loop is the running one.
        self.enter()
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
        elif is_cancelled(task):
            # Nothing is started for a task that is cancelled already; this raises.
            await asyncio.sleep(0)
        token = next(self._tokens)
        waiter: asyncio.Future[Completion] = loop.create_future()
        # From here an exception may strike anywhere (KeyboardInterrupt): nothing stays behind.
        try:
            if not self.begin(token, waiter, function, handle, *arguments):
                return None
            completion = await waiter
        except BaseException:
            if not self.abandon(token) and waiter.done() and not waiter.cancelled():
                # Completed and cancelled in the same turn of the loop.
                discard(waiter.result())
            raise
        if completion[1]:
            completed(completion)
        return completion

    async def run(self, receipt: Receipt, function: Callable[..., int], handle: Any, *arguments: Any) -> bool:
        loop = self._loop()
        if loop is None or get_ident() != self._thread:
            loop = self._enter()
        task = current_task(loop)
        if task is None:
            loop = self._enter()
        elif is_cancelled(task):
            await asyncio.sleep(0)
        # The receipt waits, not the future: that may be cancelled when the answer comes in the same turn.
        waiter: asyncio.Future[Completion] = loop.create_future()
        receipt.parked.append(waiter)
        if not self.start(receipt, function, handle, *arguments):
            receipt.parked.clear()
            return False
        try:
            await waiter
        except BaseException:
            receipt.leave()
            raise
        return True

    def soon(self, function: Callable[..., object], *arguments: object) -> None:
        loop = self._loop()
        if loop is not None and not loop.is_closed():
            loop.call_soon(function, *arguments)

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
            if _port_of(loop) is self:
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
            if (
                task is not self._task
                or task is None
                or must_cancel(task)
                or monotonic() >= self._until
                # The loop's task is this one only in the loop's thread.
                or get_ident() != self._port._thread
            ):
                return True
            scopes = self._scopes
            if scopes is not None:
                scope = scopes.cancel_scope
                return scope is not None and scope_cancelled(scope)
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
        self._scopes = _internals.scopes(task)
        self._until = monotonic() + TURN_SECONDS


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
        port = _port_of(loop)
    if port is None:
        port = AsyncioPort(loop)
        with _lock:
            _ports[loop] = weakref.ref(port)
    return port


def _port_of(loop: asyncio.AbstractEventLoop) -> Optional[AsyncioPort]:
    reference = _ports.get(loop)
    return None if reference is None else reference()


def _after_fork() -> None:
    global _ports, _lock
    # Another thread may have held the lock or been inside the dictionary: start afresh, free nothing.
    _left_to_parent.append(_ports)
    _ports = weakref.WeakKeyDictionary()
    _lock = threading.Lock()


_platform.after_fork_in_child(_after_fork)
