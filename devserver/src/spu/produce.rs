//! Produce: every entry is checked and appended on its own, in order; the answer has one result per entry.

use std::io::{Error, ErrorKind};

use anyhow::Context;
use bytes::{Buf, BytesMut};
use fluvio_controlplane_metadata::topic::CompressionAlgorithm;
use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::{Decoder, Version};
use fluvio_spu_schema::produce::{
    PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceResponse,
};
use fluvio_spu_schema::server::smartmodule::SmartModuleInvocation;
use wire::batch::{Batches, Rest, set_crc};

use super::records::RecordsPlace;
use super::stream::unsupported_smart_modules;
use crate::cluster::{Cluster, Replica};
use crate::log::NewBatch;

/// Handles a request whose header has been read off.
pub(super) fn produce(
    cluster: &Cluster,
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
    for (name, entries) in topics {
        let partitions = entries
            .into_iter()
            .map(|(partition_index, batches)| {
                let replica = cluster.replica(&name, partition_index);
                let (error_code, base_offset) =
                    match append(replica.as_deref(), batches, &request.smartmodules) {
                        Ok(base_offset) => (ErrorCode::None, base_offset),
                        Err(error_code) => (error_code, 0),
                    };
                PartitionProduceResponse {
                    partition_index,
                    error_code,
                    base_offset,
                    ..PartitionProduceResponse::default()
                }
            })
            .collect();
        responses.push(TopicProduceResponse { name, partitions });
    }
    Ok(ProduceResponse { responses, ..ProduceResponse::default() })
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
) -> Result<i64, ErrorCode> {
    let replica = replica.ok_or(ErrorCode::NotLeaderForPartition)?;
    unsupported_smart_modules(smart_modules)?;
    if batches.is_empty() {
        return Ok(0);
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
    Ok(replica.log.append(batches))
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
