"""Private names of asyncio, trio and anyio: they are there, in one file only, and nothing depends on them."""

from __future__ import annotations

import ast
import asyncio
import sys
from operator import attrgetter
from typing import Any

import anyio
import pytest
import sniffio

from fluvio_cffi import Client, Offset, _asyncio, _internals
from tests.support import PACKAGE, eventually

NAMES = ("must_cancel", "scopes", "trio_cancelled")


async def test_the_names_are_there() -> None:
    """A release that lacks one is slower, and this test says which."""
    if sniffio.current_async_library() == "trio":
        import trio

        with trio.CancelScope() as scope:
            await trio.lowlevel.checkpoint()
            assert not _internals.trio_cancelled(trio.lowlevel.current_task())
            scope.cancel()
            assert _internals.trio_cancelled(trio.lowlevel.current_task())
        return
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    assert _internals.current_task(loop) is task
    if sys.version_info < (3, 12):
        assert _internals.current_task is not asyncio.current_task
    assert _internals.must_cancel(task) is False
    assert not _internals.is_cancelled(task)
    with anyio.CancelScope() as outer, anyio.CancelScope() as scope:
        await anyio.lowlevel.checkpoint()
        noted = _internals.scopes(task)
        assert not _internals.scope_cancelled(noted.cancel_scope)
        outer.cancel()
        assert _internals.scope_cancelled(noted.cancel_scope)
        assert _internals.is_cancelled(task)
        scope.shield = True
        assert not _internals.scope_cancelled(noted.cancel_scope)
    task.cancel()
    assert _internals.must_cancel(task) is True
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(0)
    if sys.version_info >= (3, 11):
        task.uncancel()


def take_away(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    missing = attrgetter("_no_such_name")
    if name == "scopes":
        monkeypatch.setattr(_internals, "_modules", {"anyio._backends._asyncio": object()})
    elif name == "must_cancel":
        monkeypatch.setattr(_internals, name, missing)
        monkeypatch.setattr(_asyncio, name, missing)
    else:
        from fluvio_cffi import _trio

        monkeypatch.setattr(_trio, name, missing)


@pytest.mark.parametrize("missing", NAMES)
async def test_nothing_depends_on_them(
    client: Client, topic: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_away(monkeypatch, missing)
    async with (
        client.producer(topic) as producer,
        client.consumer(topic, start=Offset.beginning()) as consumer,
    ):
        await producer.send_many([b"%d" % number for number in range(100)])
        # Nothing is started for a task that is cancelled already.
        with anyio.CancelScope() as scope:
            scope.cancel()
            await producer.send(b"never")
        assert scope.cancelled_caught
        assert (await client.admin.topics.list([topic]))[0].name == topic
        # An iteration over records that are there notices a cancellation, and loses nothing.
        seen = []
        with anyio.CancelScope() as scope:
            async for record in consumer:
                seen.append(record.value)
                if len(seen) == 10:
                    scope.cancel()
        assert scope.cancelled_caught
        assert len(seen) == 10
        async for record in consumer:
            seen.append(record.value)
            if len(seen) == 100:
                break
        assert seen == [b"%d" % number for number in range(100)]
        assert (await producer.send(b"last")).offset == 100


@pytest.mark.parametrize("missing", NAMES)
async def test_a_task_of_asyncio_is_cancelled_without_them(
    client: Client, topic: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sniffio.current_async_library() == "trio":
        pytest.skip("asyncio's own way to cancel")
    take_away(monkeypatch, missing)
    async with (
        client.producer(topic) as producer,
        client.consumer(topic, start=Offset.beginning()) as consumer,
    ):
        await producer.send_many([b""] * 100)
        seen = 0

        async def read() -> None:
            nonlocal seen
            async for _ in consumer:
                seen += 1
                if seen == 10:
                    task = asyncio.current_task()
                    assert task is not None
                    task.cancel()

        task = asyncio.ensure_future(read())
        await eventually(task.done)
        assert task.cancelled()
        assert seen == 10


def test_they_are_in_one_file() -> None:
    found = []
    for path in PACKAGE.rglob("*.py"):
        if path.name in ("_internals.py", "_ffi.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and private(node):
                found.append(f"{path.name}:{node.lineno} {ast.unparse(node)}")
    assert not found


PRIVATE = {"_must_cancel", "_cancel_status", "_task_states", "_cancel_called", "_shield", "_parent_scope"}


def private(node: ast.Attribute) -> bool:
    name: Any = node.value
    while isinstance(name, ast.Attribute):
        name = name.value
    ours = not (isinstance(name, ast.Name) and name.id in ("asyncio", "trio", "anyio", "loop", "task"))
    hidden = node.attr.startswith("_") and not node.attr.startswith("__")
    return node.attr in PRIVATE or (hidden and not ours)
