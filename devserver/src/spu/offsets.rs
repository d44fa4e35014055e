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
use fluvio_types::defaults::CONSUMER_STORAGE_TOPIC;
use fluvio_types::{PartitionId, SpuId};

use super::stream::Session;
use crate::cluster::{Cluster, StoredOffset};
use crate::log::StorageError;

/// First and last offsets of partitions.
pub(super) fn fetch(cluster: &Cluster, spu: SpuId, request: FetchOffsetsRequest) -> FetchOffsetsResponse {
    let topics = request
        .topics
        .into_iter()
        .map(|topic| FetchOffsetTopicResponse {
            partitions: topic
                .partitions
                .iter()
                .map(|partition| range(cluster, spu, &topic.name, partition.partition_index))
                .collect(),
            name: topic.name,
        })
        .collect();
    FetchOffsetsResponse { topics }
}

fn range(
    cluster: &Cluster,
    spu: SpuId,
    topic: &str,
    partition_index: PartitionId,
) -> FetchOffsetPartitionResponse {
    let mut response =
        FetchOffsetPartitionResponse { partition_index, ..FetchOffsetPartitionResponse::default() };
    match cluster.replica_led_by(spu, topic, partition_index) {
        Some(replica) => {
            response.start_offset = replica.log.start();
            response.last_stable_offset = replica.log.ends().high_watermark.max(response.start_offset);
        }
        None => response.error_code = ErrorCode::PartitionNotLeader,
    }
    response
}

/// Stores the offset of the consumer that a stream belongs to.
pub(super) fn store(
    cluster: &Cluster,
    spu: SpuId,
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
    // An SPU that does not keep them itself asks the one that does.
    if !keeps_consumer_offsets(cluster, spu) && !are_consumer_offsets_kept(cluster) {
        return failed(ErrorCode::Other("update offset in peer".to_owned()));
    }
    let modified = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // Locked until the offset is stored: the deletion of the topic then finds and removes it.
    let _objects = cluster.objects.lock();
    let Some(replica) = session.replica.upgrade().filter(|replica| !replica.log.ends().deleted) else {
        return failed(ErrorCode::TopicDeleted);
    };
    let key = (replica.key.clone(), consumer_id.clone());
    match cluster.store_consumer_offset(key, Some(StoredOffset { offset, modified })) {
        Ok(()) => UpdateConsumerOffsetResponse { offset, error_code: ErrorCode::None },
        Err(StorageError) => failed(ErrorCode::StorageError),
    }
}

/// The stored offsets, of existing partitions only.
pub(super) fn stored(
    cluster: &Cluster,
    spu: SpuId,
    request: &FetchConsumerOffsetsRequest,
) -> FetchConsumerOffsetsResponse {
    if !keeps_consumer_offsets(cluster, spu) {
        let error_code = ErrorCode::PartitionNotLeader;
        return FetchConsumerOffsetsResponse { error_code, consumers: Vec::new() };
    }
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
    spu: SpuId,
    request: DeleteConsumerOffsetRequest,
) -> DeleteConsumerOffsetResponse {
    if !keeps_consumer_offsets(cluster, spu) {
        return DeleteConsumerOffsetResponse { error_code: ErrorCode::PartitionNotLeader };
    }
    let key = (request.replica_id, request.consumer_id);
    let error_code = match cluster.store_consumer_offset(key, None) {
        Ok(()) => ErrorCode::None,
        Err(StorageError) => ErrorCode::StorageError,
    };
    DeleteConsumerOffsetResponse { error_code }
}

/// Whether `spu` is the one that consumer offsets are stored on: the leader of the system topic.
fn keeps_consumer_offsets(cluster: &Cluster, spu: SpuId) -> bool {
    cluster.replica_led_by(spu, CONSUMER_STORAGE_TOPIC, 0).is_some()
}

/// Whether any SPU keeps them at present.
fn are_consumer_offsets_kept(cluster: &Cluster) -> bool {
    let key = ReplicaKey::new(CONSUMER_STORAGE_TOPIC, 0_u32).to_string();
    cluster.objects.lock().partitions.get(&key).is_some_and(|partition| partition.status.is_online())
}
