//! One produce request and what its answer means.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fluvio_protocol::link::ErrorCode;
use fluvio_spu_schema::produce::{ProduceRequest, ProduceResponse};

use super::partition::{Batch, Partition};
use crate::cluster::Cluster;
use crate::error::{Error, ErrorKind, Result};
use crate::metadata::Spu;
use crate::protocol::{PartitionBatch, RecordBytes, encode_produce};

/// A request whose answer is awaited.
pub(super) struct Request {
    pub(super) spu: i32,
    pub(super) batches: Vec<(Arc<Partition>, Batch)>,
}

/// One produce request and its answer. A connection that does not answer in time is given up: what comes on it later
/// cannot be told from what was sent again.
pub(super) async fn produce(
    cluster: Arc<Cluster>,
    leader: Option<Spu>,
    topic: String,
    entries: Vec<(u32, Bytes)>,
    committed: bool,
) -> Result<ProduceResponse> {
    let Some(leader) = leader else {
        return Err(Error::new(
            ErrorKind::Connection,
            format!("topic {topic:?} has no leader at the moment"),
        ));
    };
    let connection = cluster.produce_connection(&leader, committed).await?;
    let limit = cluster.settings.request_timeout;
    let reply = connection.request_encoded::<ProduceRequest<RecordBytes>>(|version, id, client_id| {
        let batches: Vec<PartitionBatch<'_>> = entries
            .iter()
            .map(|(partition, batch)| PartitionBatch { partition: *partition, batch })
            .collect();
        Ok(encode_produce(
            &topic,
            &batches,
            committed,
            patience(limit, batches.len()),
            version,
            id,
            client_id,
        ))
    })?;
    match tokio::time::timeout(limit, reply.answer()).await {
        Ok(answer) => answer,
        Err(_) => {
            let error = connection.timed_out(limit);
            connection.fail(error.clone());
            Err(error)
        }
    }
}

/// How long the server may wait for the replication of each batch. It waits for one after another, and has to tell of its
/// time-out before the connection is given up: what it tells was written, what is given up is sent again.
fn patience(limit: Duration, batches: usize) -> Duration {
    limit / 2 / u32::try_from(batches.max(1)).unwrap_or(u32::MAX)
}

/// Code and base offset of each batch of the request, in its order.
pub(super) fn codes_of(
    response: ProduceResponse,
    request: &Request,
    topic: &str,
) -> Result<Vec<(ErrorCode, i64)>> {
    let answers: Vec<_> = response
        .responses
        .into_iter()
        .filter(|answer| answer.name == topic)
        .flat_map(|answer| answer.partitions)
        .map(|answer| (answer.partition_index, answer.error_code, answer.base_offset))
        .collect();
    let fits = answers.len() == request.batches.len()
        && answers.iter().zip(&request.batches).all(|(answer, (partition, _))| answer.0 == partition.index);
    if fits {
        Ok(answers.into_iter().map(|(_, code, base_offset)| (code, base_offset)).collect())
    } else {
        let message = format!("SPU {} answered a produce request for other partitions", request.spu);
        Err(Error::new(ErrorKind::Protocol, message))
    }
}
