"""Administration: topics."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional

from .. import _arguments, _topics
from .._bound import Bound
from .._library import ffi, lib, own
from .._library import options as library_options
from .._topics import TopicInfo

if TYPE_CHECKING:
    from .._arguments import Duration, Size
    from .._options import Compression
    from .client import Client

__all__ = ["Admin", "Topics"]


class Admin(Bound):
    """What can be administered.

    Attributes:
        topics: The topics.
    """

    def __init__(self, client: Client) -> None:
        self.topics = Topics(client)


class Topics(Bound):
    """Create, delete and list topics."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def create(
        self,
        name: str,
        *,
        partitions: Optional[int] = None,
        replication: Optional[int] = None,
        retention: Optional[Duration] = None,
        segment_size: Optional[Size] = None,
        max_partition_size: Optional[Size] = None,
        compression: Compression = "any",
        assignment: Optional[Sequence[Sequence[int]]] = None,
        ignore_rack: bool = False,
        dry_run: bool = False,
        provision_timeout: Optional[Duration] = None,
    ) -> None:
        """Create a topic and wait until the cluster has it.

        Cancelled, or failed with a timeout or a lost connection, the outcome is unknown.

        Args:
            name: Lower-case letters, digits and hyphens.
            partitions: How many; without assignment, 1.
            replication: How many replicas of each partition; without assignment, 1.
            retention: How long records are kept: "7d", "1h 30m", seconds or a timedelta; None: as the cluster
                does.
            segment_size: Size of a segment file; None: as the cluster does.
            max_partition_size: Size at which the oldest segments are removed; None: as the cluster does.
            compression: The compression that producers must use; "any" leaves it to them.
            assignment: The SPU ids of each partition's replicas, instead of partitions and replication.
            ignore_rack: Place replicas without regard to racks.
            dry_run: Check only.
            provision_timeout: How long the cluster may take to provide the partitions; None: as the cluster
                does.

        Raises:
            TopicAlreadyExistsError: There is one of that name.
            InvalidArgumentError, InvalidTypeError: A value that cannot be right; nothing was sent.
            FluvioConnectionError, FluvioTimeoutError: The cluster does not answer.
            ClosedError: The client is closed.
        """
        document = _topics.creation(name, locals())
        client = self._client
        handle = client._open()
        await client._port.call(
            lib.fluvio_admin_create, handle, lib.FLUVIO_OBJECT_KIND_TOPIC, library_options(document)
        )

    async def delete(self, name: str) -> None:
        """Delete a topic.

        Cancelled, or failed with a timeout or a lost connection, the outcome is unknown.

        Raises:
            TopicNotFoundError: There is none of that name.
            InvalidArgumentError, InvalidTypeError: A name that no topic has; nothing was sent.
            FluvioConnectionError, FluvioTimeoutError: The cluster does not answer.
            ClosedError: The client is closed.
        """
        encoded = _arguments.resource("topic name", name)
        client = self._client
        handle = client._open()
        await client._port.call(
            lib.fluvio_admin_delete, handle, lib.FLUVIO_OBJECT_KIND_TOPIC, encoded, len(encoded)
        )

    async def list(
        self, filters: Optional[Sequence[str]] = None, *, system: bool = False
    ) -> builtins.list[TopicInfo]:
        """The topics whose name contains one of `filters`; `system`: the platform's own instead.

        Raises:
            FluvioConnectionError, FluvioTimeoutError: The cluster does not answer.
            InvalidArgumentError, InvalidTypeError: A value that cannot be right; nothing was sent.
            ClosedError: The client is closed.
        """
        options = _topics.selection(filters, system)
        client = self._client
        handle = client._open()
        completion: Any = await client._port.call(
            lib.fluvio_admin_list, handle, lib.FLUVIO_OBJECT_KIND_TOPIC, library_options(options)
        )
        document = own("fluvio_document *", completion, lib.fluvio_document_free)
        text = ffi.unpack(lib.fluvio_document_get_text(document), lib.fluvio_document_get_length(document))
        ffi.release(document)
        return _topics.listed(text.decode("utf-8"))
