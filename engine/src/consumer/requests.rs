//! The requests of a consumer, for many partitions at a time where the protocol allows it.

use fluvio_spu_schema::Isolation as WireIsolation;
use fluvio_spu_schema::fetch::{FetchPartition, FetchRequest, FetchableTopic};
use fluvio_spu_schema::server::fetch_offset::{FetchOffsetPartition, FetchOffsetTopic, FetchOffsetsRequest};
use fluvio_spu_schema::server::stream_fetch::StreamFetchRequest;

use crate::producer::Isolation;
use crate::protocol::RecordBytes;

/// Asks for first and last offset of partitions.
pub(super) fn offsets(topic: &str, partitions: &[u32]) -> FetchOffsetsRequest {
    let partitions =
        partitions.iter().map(|index| FetchOffsetPartition { partition_index: *index }).collect();
    FetchOffsetsRequest {
        topics: vec![FetchOffsetTopic { name: topic.to_owned(), partitions }],
        ..Default::default()
    }
}

/// Opens a stream.
pub(super) fn stream(
    topic: &str,
    partition: u32,
    offset: i64,
    max_bytes: usize,
    isolation: Isolation,
) -> StreamFetchRequest<RecordBytes> {
    let mut request = StreamFetchRequest::default();
    request.topic = topic.to_owned();
    request.partition = partition;
    request.fetch_offset = offset;
    // Bounded by the frame cap, which has 31 bits.
    request.max_bytes = max_bytes as i32;
    request.isolation = wire_isolation(isolation);
    request
}

/// Asks once for so many bytes of each partition, from an offset of it on.
pub(super) fn fetch(
    topic: &str,
    wanted: impl IntoIterator<Item = (u32, i64)>,
    max_bytes: usize,
    isolation: Isolation,
) -> FetchRequest<RecordBytes> {
    let max_bytes = max_bytes as i32;
    let partition = |(partition_index, fetch_offset)| FetchPartition {
        partition_index,
        fetch_offset,
        max_bytes,
        ..Default::default()
    };
    let fetch_partitions = wanted.into_iter().map(partition).collect();
    FetchRequest {
        max_bytes,
        isolation_level: wire_isolation(isolation),
        topics: vec![FetchableTopic { name: topic.to_owned(), fetch_partitions }],
        ..Default::default()
    }
}

fn wire_isolation(isolation: Isolation) -> WireIsolation {
    match isolation {
        Isolation::ReadUncommitted => WireIsolation::ReadUncommitted,
        Isolation::ReadCommitted => WireIsolation::ReadCommitted,
    }
}
