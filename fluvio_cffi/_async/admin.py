"""Administration: topics."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional

from .. import _arguments, _topics
from .._library import ffi, lib, own
from .._topics import TopicInfo

if TYPE_CHECKING:
    from .._arguments import Duration, Size
    from .client import Client

__all__ = ["Admin", "Topics"]


class Admin:
    """What can be administered.

    Attributes:
        topics: The topics.
    """

    def __init__(self, client: Client) -> None:
        self.topics = Topics(client)


class Topics:
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
        compression: Optional[str] = None,
        assignment: Optional[Sequence[Sequence[int]]] = None,
        ignore_rack: bool = False,
        dry_run: bool = False,
    ) -> None:
        """Create a topic and wait until the cluster has it.

        Cancelled, or failed with a timeout or a lost connection, the outcome is unknown.

        Args:
            name: Lower-case letters, digits and hyphens.
            partitions: How many (1).
            replication: How many replicas of each (1).
            retention: How long records are kept: "7d", "1h 30m", seconds or a timedelta.
            segment_size: Size of a segment file, in bytes or as "512MiB".
            max_partition_size: Size at which the oldest segments are removed.
            compression: The compression that producers must use: any, none, gzip, snappy, lz4 or zstd.
            assignment: The SPU ids of each partition's replicas, instead of partitions and replication.
            ignore_rack: Place replicas without regard to racks.
            dry_run: Check only.

        Raises:
            TopicAlreadyExistsError: There is one of that name.
            InvalidArgumentError: A value that cannot be right.
        """
        document = _topics.creation(
            name,
            partitions,
            replication,
            retention,
            segment_size,
            max_partition_size,
            compression,
            assignment,
            ignore_rack,
            dry_run,
        )
        client = self._client
        handle = client._open()
        await client._port.call(
            lib.fluvio_admin_create, handle, lib.FLUVIO_OBJECT_TOPIC, document, len(document)
        )

    async def delete(self, name: str) -> None:
        """Delete a topic.

        Cancelled, or failed with a timeout or a lost connection, the outcome is unknown.

        Raises:
            TopicNotFoundError: There is none of that name.
        """
        encoded = _arguments.name("topic name", name)
        client = self._client
        handle = client._open()
        await client._port.call(
            lib.fluvio_admin_delete, handle, lib.FLUVIO_OBJECT_TOPIC, encoded, len(encoded)
        )

    async def list(
        self, filters: Optional[Sequence[str]] = None, *, system: bool = False
    ) -> builtins.list[TopicInfo]:
        """The topics whose name contains one of `filters`; `system` adds the platform's own."""
        options = _topics.selection(filters, system)
        client = self._client
        handle = client._open()
        completion: Any = await client._port.call(
            lib.fluvio_admin_list, handle, lib.FLUVIO_OBJECT_TOPIC, options, len(options)
        )
        document = own("fluvio_document *", completion[3], lib.fluvio_document_free)
        text = ffi.unpack(lib.fluvio_document_text(document), lib.fluvio_document_length(document))
        ffi.release(document)
        return _topics.listed(text.decode("utf-8"))
