//! Offsets: how far partitions reach, and where consumers have stored that they are.

use std::time::{SystemTime, UNIX_EPOCH};

use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::record::ReplicaKey;
use fluvio_spu_schema::server::consumer_offset::{
    ConsumerOffset, DeleteConsumerOffsetRequest, DeleteConsumerOffsetResponse, FetchConsumerOffsetsRequest,
    FetchConsumerOffsetsResponse, UpdateConsumerOffsetResponse,
};
use fluvio_spu_schema::server::fetch_offset::{
    FetchOffsetPartitionResponse, FetchOffsetTopicResponse, FetchOffsetsRequest, FetchOffsetsResponse,
};
use fluvio_types::PartitionId;

use super::stream::Session;
use crate::cluster::{Cluster, StoredOffset};

/// First and last offsets of partitions.
pub(super) fn fetch(cluster: &Cluster, request: FetchOffsetsRequest) -> FetchOffsetsResponse {
    let topics = request
        .topics
        .into_iter()
        .map(|topic| FetchOffsetTopicResponse {
            partitions: topic
                .partitions
                .iter()
                .map(|partition| range(cluster, &topic.name, partition.partition_index))
                .collect(),
            name: topic.name,
        })
        .collect();
    FetchOffsetsResponse { topics }
}

fn range(cluster: &Cluster, topic: &str, partition_index: PartitionId) -> FetchOffsetPartitionResponse {
    let mut response =
        FetchOffsetPartitionResponse { partition_index, ..FetchOffsetPartitionResponse::default() };
    match cluster.replica(topic, partition_index) {
        Some(replica) => {
            (response.start_offset, response.last_stable_offset) = replica.log.range();
        }
        None => response.error_code = ErrorCode::PartitionNotLeader,
    }
    response
}

/// Stores the offset of the consumer that a stream belongs to.
pub(super) fn store(
    cluster: &Cluster,
    session: Option<&Session>,
    offset: i64,
) -> UpdateConsumerOffsetResponse {
    let failed = |error_code| UpdateConsumerOffsetResponse { offset: 0, error_code };
    let Some(session) = session else {
        return failed(ErrorCode::FetchSessionNotFoud);
    };
    let Some(consumer_id) = &session.consumer_id else {
        return failed(ErrorCode::Other("stream without consumer id".to_owned()));
    };
    let modified = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    cluster
        .consumer_offsets
        .lock()
        .insert((session.replica.clone(), consumer_id.clone()), StoredOffset { offset, modified });
    UpdateConsumerOffsetResponse { offset, error_code: ErrorCode::None }
}

/// The stored offsets, of existing partitions only.
pub(super) fn stored(
    cluster: &Cluster,
    request: &FetchConsumerOffsetsRequest,
) -> FetchConsumerOffsetsResponse {
    let wanted = |replica: &ReplicaKey, consumer: &str| {
        let Some(filter) = &request.filter_opts else {
            return true;
        };
        filter.replica_id.as_ref().is_none_or(|wanted| wanted == replica)
            && filter.consumer_id.as_ref().is_none_or(|wanted| wanted == consumer)
    };
    let consumers = cluster
        .consumer_offsets
        .lock()
        .iter()
        .filter(|((replica, consumer), _)| wanted(replica, consumer))
        .filter(|((replica, _), _)| cluster.replica(&replica.topic, replica.partition).is_some())
        .map(|((replica, consumer), stored)| {
            ConsumerOffset::new(consumer, replica.clone(), stored.offset, stored.modified)
        })
        .collect();
    FetchConsumerOffsetsResponse { error_code: ErrorCode::None, consumers }
}

/// Forgets a stored offset; that there is none is no error.
pub(super) fn forget(
    cluster: &Cluster,
    request: DeleteConsumerOffsetRequest,
) -> DeleteConsumerOffsetResponse {
    cluster.consumer_offsets.lock().remove(&(request.replica_id, request.consumer_id));
    DeleteConsumerOffsetResponse { error_code: ErrorCode::None }
}
