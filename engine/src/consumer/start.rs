//! From a start such as "the end" to an offset per partition, when the consumer is opened.

use std::collections::BTreeMap;
use std::sync::Arc;

use fluvio_spu_schema::server::fetch_offset::FetchOffsetPartitionResponse;

use super::connections::offsets_request;
use super::{Core, Start};
use crate::cluster::Backoff;
use crate::error::{Error, ErrorKind, Result};
use crate::metadata::Spu;

/// The first offset to read of each partition. Waits up to the request time-out for leaders that are moving.
pub(super) async fn resolve(core: &Arc<Core>, partitions: &[u32]) -> Result<Vec<(u32, i64)>> {
    let limit = core.cluster.settings.request_timeout;
    let mut last = None;
    let attempts = async {
        let mut backoff = Backoff::reconnect();
        loop {
            match attempt(core, partitions).await {
                Err(error) if error.is_retriable() => {
                    last = Some(error);
                    tokio::time::sleep(backoff.next_delay()).await;
                    core.cluster.refresh_topic(&core.topic).await?;
                }
                outcome => return outcome,
            }
        }
    };
    match tokio::time::timeout(limit, attempts).await {
        Ok(outcome) => outcome,
        Err(_) => Err(last.unwrap_or_else(|| {
            let message = format!("no offsets of topic {:?} within {} ms", core.topic, limit.as_millis());
            Error::new(ErrorKind::Timeout, message)
        })),
    }
}

async fn attempt(core: &Arc<Core>, partitions: &[u32]) -> Result<Vec<(u32, i64)>> {
    let mut by_leader: BTreeMap<i32, (Spu, Vec<u32>)> = BTreeMap::new();
    for partition in partitions {
        let leader = core.cluster.view.leader(&core.topic, *partition).ok_or_else(|| {
            let message =
                format!("partition {partition} of topic {:?} has no leader at the moment", core.topic);
            Error::new(ErrorKind::Connection, message)
        })?;
        by_leader.entry(leader.id).or_insert_with(|| (leader, Vec::new())).1.push(*partition);
    }
    let mut positions = Vec::with_capacity(partitions.len());
    for (spu, partitions) in by_leader.into_values() {
        let connection = core.connection(&spu).await?;
        let response = connection.call(offsets_request(core.topic.clone(), &partitions)).await?;
        let answers: Vec<_> = response.topics.into_iter().flat_map(|topic| topic.partitions).collect();
        for partition in partitions {
            let answer =
                answers.iter().find(|answer| answer.partition_index == partition).ok_or_else(|| {
                    let message = format!("SPU {} did not tell the offsets of partition {partition}", spu.id);
                    Error::new(ErrorKind::Protocol, message)
                })?;
            positions.push((partition, position(core, answer)?));
        }
    }
    Ok(positions)
}

fn position(core: &Core, answer: &FetchOffsetPartitionResponse) -> Result<i64> {
    let what = format!("partition {} of topic {:?}", answer.partition_index, core.topic);
    if answer.error_code.is_error() {
        return Err(Error::from_code(&answer.error_code, &what, None));
    }
    let (first, end) = (answer.start_offset, answer.last_stable_offset);
    // The options keep every value within 63 bits.
    match core.options.start {
        Start::Beginning(skip) => Ok(first.saturating_add(skip as i64).min(end)),
        Start::End(back) => Ok(end.saturating_sub(back as i64).max(first)),
        Start::Offset(offset) => {
            let offset = offset as i64;
            if offset < first {
                let message = format!("{what}: offset {offset} was removed, the first one there is {first}");
                let error = Error::new(ErrorKind::OffsetEvicted, message);
                Err(error.with_detail("offset", offset).with_detail("next_available", first))
            } else if offset > end {
                let message = format!("{what}: offset {offset} lies beyond the end, which is {end}");
                let error = Error::new(ErrorKind::OffsetEvicted, message);
                Err(error.with_detail("offset", offset).with_detail("next_available", end))
            } else {
                Ok(offset)
            }
        }
    }
}
