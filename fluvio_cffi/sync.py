"""The synchronous twin: the same names for scripts, notebooks and threads.

    with fluvio_cffi.sync.connect("127.0.0.1:9003") as client:
        client.admin.topics.create("greetings")
        with client.producer("greetings") as producer:
            producer.send(b"hello", key=b"42")
        with client.consumer("greetings", start=Offset.beginning()) as records:
            for record in records:
                print(record.value)

It is made from the same source as the asynchronous client. What differs: nothing is awaited, `aclose` is
`close`, a `Delivery` has the face of a `concurrent.futures.Future`, and every function that waits takes
`timeout=` and raises `FluvioTimeoutError` when it is over. Waiting releases the GIL and notices Ctrl-C.
Clients and producers may be shared by threads; a consumer is read by one thread at a time.
"""

from __future__ import annotations

from ._deliveries import Ack, Deliveries
from ._offset import Offset
from ._records import Batch, Record
from ._sync.admin import Admin, Topics
from ._sync.client import Client, connect
from ._sync.consumer import BatchIterator, Consumer
from ._sync.delivery import Delivery
from ._sync.producer import Producer
from ._topics import TopicInfo

__all__ = [
    "Ack",
    "Admin",
    "Batch",
    "BatchIterator",
    "Client",
    "Consumer",
    "Deliveries",
    "Delivery",
    "Offset",
    "Producer",
    "Record",
    "TopicInfo",
    "Topics",
    "connect",
]
