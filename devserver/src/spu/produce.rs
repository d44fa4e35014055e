//! Produce: every entry is checked and appended on its own, in order; the answer has one result per entry.

use std::io::{Error, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::{Buf, Bytes, BytesMut};
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
use wire::batch::{BatchHeader, Batches, Rest, set_crc};

use super::records::RecordsPlace;
use crate::cluster::{Cluster, Replica};
use crate::log::{Appending, NewBatch, StorageError};
use crate::smart::{Limit, Transformed, start_chain};

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
            let handed_over = match cluster.faults.produce_error(spu, &name, partition_index) {
                Ok(()) => append(cluster, replica.as_ref(), batches, &request.smartmodules, version).await,
                Err(error_code) => Err(error_code),
            };
            match handed_over {
                Ok(appended) => {
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
            // The log goes with its topic, and whatever waits for the disk then.
            Err(StorageError) if replica.log.watch().borrow().deleted => {
                response.error_code = ErrorCode::TopicDeleted;
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

/// Checks, transforms and writes the batches of one entry, in the order of the real server.
async fn append(
    cluster: &Cluster,
    replica: Option<&Arc<Replica>>,
    mut batches: Vec<NewBatch>,
    modules: &[SmartModuleInvocation],
    version: Version,
) -> Result<Appended, ErrorCode> {
    let replica = replica.ok_or(ErrorCode::NotLeaderForPartition)?;
    replica.read_only.clone().map_or(Ok(()), Err)?;
    if !modules.is_empty() {
        batches = transform(cluster, replica, batches, modules, version).await?;
    }
    if batches.is_empty() {
        return Ok(Appended { offset: Appending::Done(0), count: 0 });
    }
    if !batches.iter().all(|(_, header)| accepts(&replica.compression, header.compression())) {
        return Err(ErrorCode::CompressionError);
    }
    let Some(deduplicator) = &replica.deduplicator else {
        return write(replica, batches);
    };
    let turn = deduplicator.turn(cluster, replica).await?;
    let filtered = taken_from(turn.filter(frozen(batches)).await?)?;
    if filtered.is_empty() {
        let ends = replica.log.ends();
        let count = ends.offset - ends.high_watermark;
        turn.written();
        return Ok(Appended { offset: Appending::Done(ends.high_watermark), count });
    }
    let Appended { offset, count } = write(replica, filtered)?;
    Ok(Appended { offset: turn.until_written(offset, &cluster.tasks), count })
}

fn write(replica: &Replica, mut batches: Vec<NewBatch>) -> Result<Appended, ErrorCode> {
    if batches.iter().any(|(data, _)| data.len() > replica.max_batch_bytes) {
        return Err(ErrorCode::MessageTooLarge);
    }
    for (data, _) in &mut batches {
        // The real server encodes batches anew and so repairs a wrong checksum.
        set_crc(data);
    }
    let count: i64 = batches.iter().map(|(_, header)| header.offset_count()).sum();
    Ok(Appended { offset: replica.log.append(batches), count })
}

/// What the SmartModules of the request make of the batches: one batch, or none if no record is left.
async fn transform(
    cluster: &Cluster,
    replica: &Arc<Replica>,
    batches: Vec<NewBatch>,
    modules: &[SmartModuleInvocation],
    version: Version,
) -> Result<Vec<NewBatch>, ErrorCode> {
    let chain = start_chain(cluster, replica, modules.to_vec(), version).await?;
    let output = chain.transform(frozen(batches), Limit::NONE).await;
    let output = output.map_err(|failed| ErrorCode::Other(format!("smartmodule chain failed: {failed}")))?;
    match output.error {
        Some(error) => Err(ErrorCode::SmartModuleRuntimeError(Box::new(error))),
        None => taken_from(output),
    }
}

fn frozen(batches: Vec<NewBatch>) -> impl Iterator<Item = Result<Bytes, Error>> + Send + 'static {
    batches.into_iter().map(|(data, _)| Ok(data.freeze()))
}

fn taken_from(output: Transformed) -> Result<Vec<NewBatch>, ErrorCode> {
    let parsed = output.batch.map(|(data, _)| BatchHeader::parse(&data).map(|header| (data, header)));
    match parsed.transpose() {
        Ok(batch) => Ok(batch.into_iter().collect()),
        Err(error) => Err(ErrorCode::Other(format!("smartmodule chain failed: {error}"))),
    }
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
