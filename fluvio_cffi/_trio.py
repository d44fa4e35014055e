"""The port on trio: one system task waits for the descriptor and reschedules the waiting tasks.

Imported only when the program has imported trio. A system task runs no user code and ends with the run;
at the end of the run it goes on while tasks wait (finalizers of async generators, shielded clean-up), after
that waits fail at once and closing only frees.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, Callable, Optional

import outcome
import sniffio
import trio

from ._completions import Pending, completed
from ._internals import trio_cancelled
from ._library import Completion
from ._port import TURN_SECONDS, Pacer, Port
from .errors import ClosedError

if TYPE_CHECKING:
    from trio.lowlevel import RaiseCancelT, Task

    from ._receipts import Receipt

current_task = trio.lowlevel.current_task
current_trio_token = trio.lowlevel.current_trio_token
checkpoint_if_cancelled = trio.lowlevel.checkpoint_if_cancelled
wait_task_rescheduled = trio.lowlevel.wait_task_rescheduled
reschedule = trio.lowlevel.reschedule
Value = outcome.Value


class _Parked:
    """A task that waits, with the face of a future."""

    __slots__ = ("_task",)

    def __init__(self, task: Task) -> None:
        self._task: Optional[Task] = task

    def done(self) -> bool:
        return self._task is None

    def abort(self, _: RaiseCancelT) -> trio.lowlevel.Abort:
        # At once: the task is still in the list when a completion comes in the same turn.
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def set_result(self, completion: Completion) -> None:
        task, self._task = self._task, None
        if task is not None:
            try:
                reschedule(task, Value(completion))
            except AttributeError:
                raise RuntimeError("the task's trio run is over") from None


class TrioPort(Port):
    """See Port."""

    def __init__(self) -> None:
        super().__init__()
        self._token: Optional[trio.lowlevel.TrioToken] = current_trio_token()
        self._waiting = 0
        self._gone = False
        self._fd = self.fd
        trio.lowlevel.spawn_system_task(self._pump, name="fluvio_cffi completions")

    @property
    def attached(self) -> bool:
        return not self._stopped and not self._gone

    def check(self) -> None:
        token = running()
        if token is None or token is not self._token or self._stopped or self._gone:
            raise self._refusal()

    def _refusal(self) -> Exception:
        if self.forked or self._stopped:
            return super()._refusal()
        if running() is not self._token:
            return RuntimeError(
                "this client belongs to another event loop: use it in the trio run that called connect(), "
                "or connect here"
            )
        return ClosedError("the trio run is ending: nothing can be waited for any more")

    @trio.lowlevel.enable_ki_protection
    async def call(self, function: Callable[..., int], handle: Any, *arguments: Any) -> Optional[Completion]:
        self.check()
        await checkpoint_if_cancelled()
        token = next(self._tokens)
        if not self.begin(token, _Parked(current_task()), function, handle, *arguments):
            return None

        def abort(_: RaiseCancelT) -> trio.lowlevel.Abort:
            self.abandon(token)
            return trio.lowlevel.Abort.SUCCEEDED

        self._waiting += 1
        try:
            completion: Completion = await wait_task_rescheduled(abort)
        finally:
            self._waiting -= 1
        if completion[1]:
            completed(completion)
        return completion

    @trio.lowlevel.enable_ki_protection
    async def run(self, receipt: Receipt, function: Callable[..., int], handle: Any, *arguments: Any) -> bool:
        self.check()
        await checkpoint_if_cancelled()
        if not self.start(receipt, function, handle, *arguments):
            return False
        try:
            await self.park(receipt)
        except BaseException:
            receipt.leave()
            raise
        return True

    def soon(self, function: Callable[..., object], *arguments: object) -> None:
        token = self._token
        if token is not None:
            try:
                token.run_sync_soon(function, *arguments)
            except trio.RunFinishedError:
                return

    @trio.lowlevel.enable_ki_protection
    async def park(self, pending: Pending) -> None:
        self.check()
        waiter = _Parked(current_task())
        parked = pending.parked
        parked.append(waiter)
        self._waiting += 1
        try:
            await wait_task_rescheduled(waiter.abort)
        finally:
            self._waiting -= 1
            parked.remove(waiter)

    async def checkpoint(self) -> None:
        self.check()
        await trio.lowlevel.checkpoint()

    def pacer(self) -> Pacer:
        return TrioPacer(self)

    def release_from_finalizer(self) -> None:
        token = self._token
        if token is not None:
            try:
                token.run_sync_soon(self.release)
            except trio.RunFinishedError:
                return  # The port goes with its last reference.

    async def _pump(self) -> None:
        try:
            await self._serve(lambda: True)
        except trio.ClosedResourceError:
            return  # _detach() said so.
        except trio.Cancelled:
            # The run is ending. Those who still wait are shielded, or will be cancelled like this task.
            with trio.CancelScope(shield=True):
                await self._serve_the_last()
            raise
        finally:
            self._gone = True

    async def _serve(self, more: Callable[[], bool]) -> None:
        # Asked again each time: once the port is stopped, the descriptor's number may be somebody else's.
        while more() and not self._stopped:
            await trio.lowlevel.wait_readable(self._fd)
            self.drain()

    async def _serve_the_last(self) -> None:
        try:
            await self._serve(lambda: self._waiting > 0)
        except trio.ClosedResourceError:
            return

    def _detach(self) -> None:
        ours = running() is self._token
        self._token = None
        if ours:
            if _port_of_run.get(None) is self:
                _port_of_run.set(None)
            # Before the descriptor is closed: it wakes the system task, which ends.
            trio.lowlevel.notify_closing(self._fd)

    def _leave_to_parent(self) -> None:
        super()._leave_to_parent()
        self._token = None


class TrioPacer(Pacer):
    """See Pacer."""

    __slots__ = ("_port", "_task", "_until")

    def __init__(self, port: TrioPort) -> None:
        self._port = port
        self._task: Any = None
        self._until = 0.0

    def due(self) -> bool:
        try:
            task: Any = current_task()
            return (
                task is not self._task
                # What trio.lowlevel.checkpoint_if_cancelled() looks at, without its cost for each record.
                or trio_cancelled(task)
                or monotonic() >= self._until
            )
        except (AttributeError, RuntimeError):
            # Another trio, or not in one: the checkpoint is always right.
            return True

    async def pause(self) -> None:
        await self._port.checkpoint()
        self.restart()

    def reset(self) -> None:
        self._task = None

    def restart(self) -> None:
        self._task = current_task()
        self._until = monotonic() + TURN_SECONDS


_port_of_run: trio.lowlevel.RunVar[Optional[TrioPort]] = trio.lowlevel.RunVar("fluvio_cffi port", None)


def in_trio_task() -> bool:
    """Whether a trio task runs here, as such: trio-asyncio runs asyncio's code in trio tasks."""
    if sniffio.thread_local.name != "trio":
        return False
    try:
        current_task()
    except RuntimeError:
        return False
    return True


def running() -> Optional[trio.lowlevel.TrioToken]:
    """The run whose task runs here. None in callbacks, and in the host of a run that is a guest."""
    return current_trio_token() if in_trio_task() else None


def current_trio_port() -> TrioPort:
    """The port of the running trio run."""
    port = _port_of_run.get(None)
    if port is None or not port.attached:
        port = TrioPort()
        _port_of_run.set(port)
    return port
