//! The requests of a producer over one connection, and what their answers mean.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fluvio_spu_schema::produce::{ProduceRequest, ProduceResponse};
use fluvio_spu_schema::server::fetch_offset::{FetchOffsetPartition, FetchOffsetTopic, FetchOffsetsRequest};

use super::core::Core;
use crate::error::{Error, ErrorKind, Result};
use crate::link::{Connection, Reply};
use crate::protocol::{PartitionBatch, RecordBytes, encode_produce};
use crate::session::produce::Code;

/// Writes a produce request. Nothing was written if this fails.
pub(super) fn produce(
    connection: &Connection,
    topic: &str,
    entries: &[(u32, Bytes)],
    committed: bool,
    replication_timeout: Duration,
) -> Result<Reply<ProduceResponse>> {
    connection.request_encoded::<ProduceRequest<RecordBytes>>(|version, id, client_id| {
        let batches: Vec<PartitionBatch<'_>> = entries
            .iter()
            .map(|(partition, batch)| PartitionBatch { partition: *partition, batch })
            .collect();
        Ok(encode_produce(topic, &batches, committed, replication_timeout, version, id, client_id))
    })
}

/// Code and base offset of each batch of the request, in its order; `None` if the answer is to another request.
pub(super) fn codes_of(response: ProduceResponse, topic: &str, partitions: &[u32]) -> Option<Vec<Code>> {
    let answers: Vec<_> = response
        .responses
        .into_iter()
        .filter(|answer| answer.name == topic)
        .flat_map(|answer| answer.partitions)
        .map(|answer| (answer.partition_index, answer.error_code, answer.base_offset))
        .collect();
    let fits = answers.len() == partitions.len()
        && answers.iter().zip(partitions).all(|(answer, partition)| answer.0 == *partition);
    fits.then(|| answers.into_iter().map(|(_, code, base_offset)| (code, base_offset)).collect())
}

/// Asks whether these partitions reach as far as they were acknowledged. If one does not, the topic was deleted and
/// created again while nobody told; what this returns goes on after the topic's name.
pub(super) async fn check(
    core: Arc<Core>,
    connection: Connection,
    ends: Vec<(u32, i64)>,
) -> Result<std::result::Result<Vec<u32>, String>> {
    let partitions = || ends.iter().map(|(index, _)| *index).collect();
    let asked = ends.iter().map(|(index, _)| FetchOffsetPartition { partition_index: *index }).collect();
    let topics = vec![FetchOffsetTopic { name: core.topic.name().to_owned(), partitions: asked }];
    let answer = match connection.call(FetchOffsetsRequest { topics, ..Default::default() }).await {
        Ok(answer) => answer,
        // An SPU that cannot be asked is believed.
        Err(error) if error.kind() == ErrorKind::UnsupportedVersion => return Ok(Ok(partitions())),
        Err(error) => {
            if error.kind() == ErrorKind::Timeout {
                // What else was sent on it would wait behind this.
                connection.fail(error.clone());
            }
            return Err(error);
        }
    };
    let answers = answer.topics.into_iter().filter(|topic| topic.name == core.topic.name());
    let shorter = answers.flat_map(|topic| topic.partitions).find_map(|answer| {
        // Where it is refused, the produce request will be too, and tells why.
        let (_, end) =
            ends.iter().find(|(index, _)| *index == answer.partition_index && answer.error_code.is_ok())?;
        (answer.last_stable_offset < *end).then_some((
            answer.partition_index,
            answer.last_stable_offset,
            *end,
        ))
    });
    match shorter {
        Some((index, log_end, end)) if core.topic.keeps_all() => Ok(Err(format!(
            "was deleted and created again: the log of partition {index} ends at {log_end}, {end} was acknowledged"
        ))),
        _ => Ok(Ok(partitions())),
    }
}

/// The answer to a request in a form that names the SPU.
pub(super) fn at(core: &Core, spu: i32, error: Error) -> Error {
    if error.spu().is_some() {
        return error;
    }
    let leads = |index: u32| core.topic.leader(index).filter(|leader| leader.id == spu);
    match (0..core.topic.partition_count()).find_map(leads) {
        Some(leader) => error.with_spu(spu, &leader.address),
        None => error,
    }
}
