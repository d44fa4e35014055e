//! Produce: every entry is checked and appended on its own, in order; the answer has one result per entry.

use std::io::{Error, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::{Buf, BytesMut};
use fluvio_controlplane_metadata::topic::CompressionAlgorithm;
use fluvio_protocol::api::RequestKind;
use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::{Decoder, Version};
use fluvio_spu_schema::Isolation;
use fluvio_spu_schema::produce::{
    PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceResponse,
};
use fluvio_spu_schema::server::smartmodule::SmartModuleInvocation;
use fluvio_types::SpuId;
use wire::batch::{Batches, Rest, set_crc};

use super::records::RecordsPlace;
use super::stream::unsupported_smart_modules;
use crate::cluster::{Cluster, Replica};
use crate::log::{Appending, NewBatch, StorageError};

/// Handles a request whose header has been read off.
pub(super) async fn produce(
    cluster: &Cluster,
    spu: SpuId,
    mut body: BytesMut,
    version: Version,
) -> anyhow::Result<ProduceResponse> {
    let request = ProduceRequest::<RecordsPlace>::decode_from(&mut &body[..], version)
        .context("a produce request that cannot be decoded")?;
    // Everything is taken apart before anything is written: an invalid request changes nothing.
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut entries = Vec::with_capacity(topic.partitions.len());
        for entry in topic.partitions {
            entries.push((entry.partition_index, take_batches(&mut body, entry.records)?));
        }
        topics.push((topic.name, entries));
    }
    let mut responses = Vec::with_capacity(topics.len());
    let mut entries = Vec::new();
    for (topic_index, (name, batches_of)) in topics.into_iter().enumerate() {
        let mut partitions = Vec::with_capacity(batches_of.len());
        for (partition_index, batches) in batches_of {
            let replica = cluster.replica_led_by(spu, &name, partition_index);
            let mut response =
                PartitionProduceResponse { partition_index, ..PartitionProduceResponse::default() };
            let refused = cluster.faults.produce_error(spu, &name, partition_index);
            match refused.and_then(|()| append(replica.as_deref(), batches, &request.smartmodules)) {
                Ok(None) => {}
                Ok(Some(appended)) => {
                    let entry_index = partitions.len();
                    entries.extend(replica.map(|replica| Entry {
                        replica,
                        appended,
                        topic_index,
                        entry_index,
                    }));
                }
                Err(error_code) => response.error_code = error_code,
            }
            partitions.push(response);
        }
        responses.push(TopicProduceResponse { name, partitions });
    }
    // All of them are on their way before the first one is waited for: one disk write may serve several.
    let mut written = Vec::with_capacity(entries.len());
    for Entry { replica, appended, topic_index, entry_index } in entries {
        let response = &mut responses[topic_index].partitions[entry_index];
        match appended.offset.done().await {
            Ok(base_offset) => {
                response.base_offset = base_offset;
                replica.note_change();
                let end = base_offset + appended.count;
                written.push(Written { replica, end, topic_index, entry_index });
            }
            Err(StorageError) => response.error_code = ErrorCode::StorageError,
        }
    }
    if request.isolation == Isolation::ReadCommitted {
        for entry in written {
            if let Err(error_code) = entry.committed(request.timeout).await {
                responses[entry.topic_index].partitions[entry.entry_index].error_code = error_code;
            }
        }
    }
    Ok(ProduceResponse { responses, ..ProduceResponse::default() })
}

/// An entry of the request on its way into the log.
struct Entry {
    replica: Arc<Replica>,
    appended: Appended,
    topic_index: usize,
    entry_index: usize,
}

/// Batches that were handed to a log.
struct Appended {
    offset: Appending,
    /// The offsets that they take up.
    count: i64,
}

/// An entry of the request that is in the log.
struct Written {
    replica: Arc<Replica>,
    /// The offset behind its last record.
    end: i64,
    /// Where its result stands in the response.
    topic_index: usize,
    entry_index: usize,
}

impl Written {
    /// Waits until all replicas have it. After the time-out it stays in the log, as on the real server.
    async fn committed(&self, timeout: Duration) -> Result<(), ErrorCode> {
        let mut ends = self.replica.log.watch();
        let reached = ends.wait_for(|end| end.deleted || end.high_watermark >= self.end);
        let Ok(reached) = tokio::time::timeout(timeout, reached).await else {
            return Err(ErrorCode::RequestTimedOut {
                kind: RequestKind::Produce,
                timeout_ms: timeout.as_millis().try_into().unwrap_or(u64::MAX),
            });
        };
        match reached {
            Ok(end) if !end.deleted => Ok(()),
            _ => Err(ErrorCode::TopicDeleted),
        }
    }
}

/// Cuts the batches of one entry out of the request, without a copy. Entries come in the order of their bytes.
fn take_batches(body: &mut BytesMut, place: RecordsPlace) -> Result<Vec<NewBatch>, Error> {
    body.advance(body.len() - place.from_end);
    let mut records = body.split_to(place.len);
    let mut walk = Batches::new(&records);
    let found: Vec<_> = walk.by_ref().collect();
    if walk.rest() != Rest::Nothing {
        return Err(Error::new(ErrorKind::InvalidData, "record set with an invalid batch"));
    }
    Ok(found.into_iter().map(|(range, header)| (records.split_to(range.len()), header)).collect())
}

fn append(
    replica: Option<&Replica>,
    mut batches: Vec<NewBatch>,
    smart_modules: &[SmartModuleInvocation],
) -> Result<Option<Appended>, ErrorCode> {
    let replica = replica.ok_or(ErrorCode::NotLeaderForPartition)?;
    replica.read_only.clone().map_or(Ok(()), Err)?;
    unsupported_smart_modules(smart_modules)?;
    if batches.is_empty() {
        return Ok(None);
    }
    if !batches.iter().all(|(_, header)| accepts(&replica.compression, header.compression())) {
        return Err(ErrorCode::CompressionError);
    }
    if batches.iter().any(|(data, _)| data.len() > replica.max_batch_bytes) {
        return Err(ErrorCode::MessageTooLarge);
    }
    for (data, _) in &mut batches {
        // The real server encodes batches anew and so repairs a wrong checksum.
        set_crc(data);
    }
    let count: i64 = batches.iter().map(|(_, header)| header.offset_count()).sum();
    Ok(Some(Appended { offset: replica.log.append(batches), count }))
}

fn accepts(topic: &CompressionAlgorithm, codec: u8) -> bool {
    match topic {
        CompressionAlgorithm::Any => codec <= 4,
        CompressionAlgorithm::None => codec == 0,
        CompressionAlgorithm::Gzip => codec == 1,
        CompressionAlgorithm::Snappy => codec == 2,
        CompressionAlgorithm::Lz4 => codec == 3,
        CompressionAlgorithm::Zstd => codec == 4,
    }
}
