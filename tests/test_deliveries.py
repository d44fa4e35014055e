"""What `submit` gives: the face of a future, and nothing else; errors that are nobody else's."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

import fluvio_cffi
from fluvio_cffi import (
    Ack,
    Client,
    Delivery,
    DeliveryError,
    ErrorKind,
    FluvioConnectionError,
    FluvioError,
    FluvioSystemError,
    FluvioTimeoutError,
    InternalError,
    PartialDeliveryError,
    sync,
)
from fluvio_cffi._receipts import Ledger
from fluvio_cffi.devserver import DevServer
from fluvio_cffi.errors import from_parts
from tests.support import TIMEOUT, collect, eventually

STORAGE_ERROR = 56


@pytest.fixture(scope="module")
def server() -> Iterator[DevServer]:
    with DevServer() as server:
        yield server


@pytest.fixture
def endpoint(server: DevServer) -> str:
    return server.endpoint


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_only_what_is_the_users() -> None:
    face = {"add_done_callback", "cancelled", "done", "exception", "remove_done_callback", "result", "wait"}
    assert public(Delivery) == face
    assert public(sync.Delivery) == face | {"cancel", "running"}


async def test_the_face_of_a_future(client: Client, topic: str) -> None:
    async with client.producer(topic, linger="100ms") as producer:
        delivery = await producer.submit(b"")
        called: list[Any] = []
        removed: list[Any] = []
        delivery.add_done_callback(called.append)
        delivery.add_done_callback(removed.append)
        assert delivery.remove_done_callback(removed.append) == 1
        assert delivery.remove_done_callback(removed.append) == 0
        assert (delivery.done(), delivery.cancelled()) == (False, False)
        for read in (delivery.result, delivery.exception):
            with pytest.raises(asyncio.InvalidStateError):
                read()
        assert repr(delivery) == "<Delivery pending>"
        assert await delivery == Ack(0, 0)
        assert delivery.done()
        assert delivery.result() == await delivery.wait() == Ack(0, 0)
        assert delivery.exception() is None
        await eventually(lambda: called == [delivery])
        # Late ones are called too, but not inside of the call that adds them.
        delivery.add_done_callback(called.append)
        assert len(called) == 1
        await eventually(lambda: called == [delivery] * 2)
        assert removed == []
        assert "partition=0" in repr(delivery)


async def test_a_callback_that_raises(client: Client, topic: str, caplog: pytest.LogCaptureFixture) -> None:
    def bad(_: Any) -> None:
        raise ValueError("of the callback")

    async with client.producer(topic) as producer:
        delivery = await producer.submit(b"")
        delivery.add_done_callback(bad)
        with caplog.at_level(logging.ERROR, "fluvio_cffi"):
            await eventually(lambda: "of the callback" in caplog.text)
        assert await delivery == Ack(0, 0)


async def test_a_callback_has_the_context_of_its_caller(client: Client, topic: str) -> None:
    """Whoever adds it, or the one that is given; not that of the library."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nobody's")
    seen: list[str] = []
    async with client.producer(topic) as producer:
        variable.set("given")
        given = contextvars.copy_context()
        variable.set("caller's")
        delivery = await producer.submit(b"")
        delivery.add_done_callback(lambda _: seen.append(variable.get()))
        delivery.add_done_callback(lambda _: seen.append(variable.get()), context=given)
        await eventually(lambda: len(seen) == 2)
        variable.set("later")
        delivery.add_done_callback(lambda _: seen.append(variable.get()))
        await eventually(lambda: len(seen) == 3)
    assert seen == ["caller's", "given", "later"]


async def test_asyncio_takes_it(client: Client, topic: str, anyio_backend_name: str) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("functions of asyncio")
    async with client.producer(topic, linger="10ms") as producer:

        async def submitted() -> list[Delivery]:
            return [await producer.submit(b"") for _ in range(3)]

        acks = await asyncio.gather(*await submitted())
        assert [ack.offset for ack in acks] == [0, 1, 2]
        assert (await asyncio.wait_for((await submitted())[0], TIMEOUT)).offset == 3
        assert (await asyncio.shield((await submitted())[0])).offset == 6
        done, pending = await asyncio.wait([asyncio.ensure_future(d) for d in await submitted()])
        assert (len(done), pending) == (3, set())
        seen = [await future for future in asyncio.as_completed(await submitted())]
        assert len(seen) == 3
        assert (await asyncio.create_task((await submitted())[0].wait())).offset == 15


async def test_in_a_nursery(client: Client, topic: str) -> None:
    async with client.producer(topic, linger="10ms") as producer, anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon((await producer.submit(b"")).wait)


async def test_each_raise_is_fresh(client: Client, server: DevServer, topic: str) -> None:
    def depth(error: BaseException) -> int:
        count, traceback = 0, error.__traceback__
        while traceback is not None:
            count, traceback = count + 1, traceback.tb_next
        return count

    async with client.producer(topic) as producer:
        server.fault("produce-error", code=STORAGE_ERROR, topic=topic, count=1)
        delivery = await producer.submit(b"")
        errors = []
        for _ in range(3):
            with pytest.raises(FluvioError) as caught:
                await delivery
            errors.append(caught.value)
        assert len({id(error) for error in errors}) == 3
        assert len({depth(error) for error in errors}) == 1
        errors[0].detail["of"] = "the first"
        errors[0].__dict__["__notes__"] = ["of the first"]
        again = delivery.exception()
        assert again is not None
        assert again.detail == {}
        assert not hasattr(again, "__notes__")
        assert (again.topic, again.kind, str(again)) == (topic, errors[0].kind, str(errors[0]))

        with server.fault("produce-error", code=STORAGE_ERROR, topic=topic):
            with pytest.raises(PartialDeliveryError) as partial:
                await producer.send_many([b""] * 5000)
        deliveries = partial.value.deliveries
        assert len({id(error) for error in deliveries.errors.values()}) == 5000
        with pytest.raises(FluvioError) as first:
            deliveries[0]
        with pytest.raises(FluvioError) as second:
            deliveries[0]
        assert first.value is not second.value
        assert depth(first.value) == depth(second.value)


async def test_an_error_says_what_it_is_about(client: Client, server: DevServer, topic: str) -> None:
    async with client.producer(topic) as producer:
        server.fault("produce-error", code=STORAGE_ERROR, topic=topic, count=1)
        with pytest.raises(FluvioError) as caught:
            await producer.send(b"")
        error = caught.value
        assert (error.topic, error.partition, error.code) == (topic, 0, STORAGE_ERROR)
        assert error.outcome == "unknown"
        assert not error.retriable
        with pytest.raises(FluvioError) as missing:
            await producer.send(b"", partition=7)
        assert missing.value.topic == topic
        assert missing.value.retriable is False
        again = pickle.loads(pickle.dumps(error))
        assert (again.topic, again.partition, again.spu, again.endpoint, again.outcome) == (
            error.topic,
            error.partition,
            error.spu,
            error.endpoint,
            error.outcome,
        )
    with pytest.raises(FluvioConnectionError) as unreachable:
        await fluvio_cffi.connect("127.0.0.1:1")
    assert unreachable.value.endpoint == "127.0.0.1:1"
    assert unreachable.value.retriable


def test_every_kind_has_its_class() -> None:
    for kind in ErrorKind:
        error = from_parts(int(kind), "message")
        assert error.kind is kind
        assert (type(error) is InternalError) == (kind in (ErrorKind.PANIC, ErrorKind.DUPLICATE)), kind
    assert isinstance(from_parts(int(ErrorKind.SYSTEM), "no descriptors"), FluvioSystemError)
    assert issubclass(FluvioSystemError, OSError)
    assert type(from_parts(12345, "of a newer library")) is InternalError


async def test_buffers_are_the_callers_again(client: Client, server: DevServer, topic: str) -> None:
    async with client.producer(topic) as producer:
        value, key = bytearray(b"value"), bytearray(b"key")
        server.fault("produce-error", code=STORAGE_ERROR, topic=topic, count=3)
        calls = (
            lambda: producer.send(value, key=key),
            lambda: producer.submit(value, key=key),
            lambda: producer.send_many([value], keys=[key]),
            lambda: producer.send(value, key=key, partition=99),
            lambda: producer.send_many([value], keys=[key], partition=99),
        )
        call: Any
        for call in calls:
            with pytest.raises(FluvioError) as caught:  # noqa: PT012
                result = await call()
                value.append(1)
                await result
            # While the error, and so the frames of the call, are kept.
            value.append(1)
            key.append(1)
            del caught
        collect()


def test_the_face_of_a_concurrent_future(endpoint: str, server: DevServer, name: str) -> None:
    with sync.connect(endpoint) as client:
        client.admin.topics.create(name)
        with client.producer(name, linger="1m") as producer:
            delivery = producer.submit(b"")
            called: list[Any] = []
            delivery.add_done_callback(called.append)
            assert not delivery.cancel()
            assert not delivery.cancelled()
            with pytest.raises(FluvioTimeoutError, match="after 0 s"):
                delivery.result(0)
            with pytest.raises(FluvioTimeoutError, match=r"after 0\.001 s"):
                delivery.exception("1ms")
            assert delivery.running()
            producer.flush()
            assert delivery.result(timeout=TIMEOUT) == Ack(0, 0)
            assert delivery.exception() is None
            assert (delivery.done(), delivery.running()) == (True, False)
            assert called == [delivery]
            delivery.add_done_callback(called.append)
            assert called == [delivery] * 2

            server.fault("produce-error", code=STORAGE_ERROR, topic=name, count=1)
            failed = producer.submit(b"")
            producer.flush()
            error = failed.exception(timeout=TIMEOUT)
            assert isinstance(error, FluvioError)
            assert failed.exception() is not error
            with pytest.raises(type(error)):
                failed.result()


def test_callbacks_of_the_twin_come_once(endpoint: str, name: str) -> None:
    """Added by one thread while another one learns of the answers."""
    with sync.connect(endpoint) as client:
        client.admin.topics.create(name)
        with client.producer(name, linger="2ms") as producer:
            called: list[int] = []
            lock = threading.Lock()
            for _ in range(50):
                deliveries = [producer.submit(b"") for _ in range(20)]

                def note(delivery: sync.Delivery) -> None:
                    with lock:
                        called.append(delivery.result().offset)

                thread = threading.Thread(target=lambda waited=deliveries: [d.wait() for d in waited])
                thread.start()
                for delivery in deliveries:
                    delivery.add_done_callback(note)
                thread.join(TIMEOUT)
            assert sorted(called) == list(range(1000))


def test_failures_that_nobody_receives_are_counted_not_kept() -> None:
    """However many records fail unseen, the ledger holds the first errors and a number."""
    ledger = Ledger("orders")
    numbers = [ledger.add(FluvioError(f"number {index}")) for index in range(1_000)]
    given_up = [ledger.add(FluvioError("given up", detail={"undelivered": 1})) for _ in range(10)]
    assert ledger.unseen()[0] == 1_010
    assert len(ledger._failures) == Ledger.KEPT
    # Received, early and late ones.
    for number in (numbers[0], numbers[-1], given_up[0]):
        ledger.remove(number)
    count, first = ledger.unseen()
    assert (count, str(first)) == (1_007, "number 1")
    # Of what was given up by closing, its own error has told.
    error = ledger.failure(told=True)
    assert error is not None
    assert (error.failed, len(error.errors)) == (998, Ledger.KEPT - 1)
    assert ledger.failure(told=False) is None


def test_a_cause_is_told_when_those_that_were_kept_are_received() -> None:
    ledger = Ledger("orders")
    numbers = [ledger.add(FluvioError(f"number {index}")) for index in range(Ledger.KEPT + 3)]
    for number in numbers[: Ledger.KEPT]:
        ledger.remove(number)
    count, first = ledger.unseen()
    assert (count, str(first)) == (3, f"number {Ledger.KEPT + 2}")
    error = ledger.failure(told=False)
    assert error is not None
    assert (error.failed, [str(one) for one in error.errors]) == (3, [f"number {Ledger.KEPT + 2}"])


async def test_a_cause_is_told_of_the_last_of_many(client: Client, topic: str, server: DevServer) -> None:
    """The first ones, whose errors were kept, are received; closing tells of the others, with a cause."""
    producer = await client.producer(topic)
    with server.fault("produce-error", code=STORAGE_ERROR, topic=topic):
        deliveries = [await producer.submit(b"x") for _ in range(Ledger.KEPT + 4)]
        await producer.flush()
        for delivery in deliveries[: Ledger.KEPT]:
            assert delivery.exception() is not None
        with pytest.raises(DeliveryError) as caught:
            await producer.aclose()
    assert (caught.value.failed, caught.value.errors[0].code) == (4, STORAGE_ERROR)


def test_a_cause_is_told_of_the_last_of_many_in_the_twin(server: DevServer, name: str) -> None:
    with sync.connect(server.endpoint) as client:
        client.admin.topics.create(name)
        producer = client.producer(name)
        with server.fault("produce-error", code=STORAGE_ERROR, topic=name):
            deliveries = [producer.submit(b"x") for _ in range(Ledger.KEPT + 4)]
            producer.flush()
            for delivery in deliveries[: Ledger.KEPT]:
                assert delivery.exception() is not None
            with pytest.raises(DeliveryError) as caught:
                producer.close()
        assert (caught.value.failed, caught.value.errors[0].code) == (4, STORAGE_ERROR)
