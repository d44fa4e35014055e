//! From a start such as "the end" to an offset per partition, when the consumer is opened.

use std::collections::BTreeMap;

use fluvio_spu_schema::server::fetch_offset::FetchOffsetPartitionResponse;

use futures_util::future::try_join_all;

use super::driver::Parts;
use super::{Start, log_end, requests};
use crate::directory::Spu;
use crate::error::{Error, ErrorKind, Result};
use crate::link::Backoff;
use crate::producer::Isolation;
use crate::session::Position;

/// The first offset to read of each partition. Waits up to the request time-out for leaders that are moving.
pub(super) async fn resolve(parts: &Parts, partitions: &[u32]) -> Result<Vec<(u32, Position)>> {
    let limit = parts.cluster.settings.request_timeout;
    let mut last = None;
    let attempts = async {
        let mut backoff = Backoff::reconnect();
        loop {
            match attempt(parts, partitions).await {
                Err(error) if error.is_retriable() => {
                    last = Some(error);
                    tokio::time::sleep(backoff.next_delay()).await;
                    parts.topic.look_up().await?;
                }
                outcome => return outcome,
            }
        }
    };
    match tokio::time::timeout(limit, attempts).await {
        Ok(outcome) => outcome,
        Err(_) => Err(last.unwrap_or_else(|| {
            let message =
                format!("no offsets of topic {:?} within {} ms", parts.topic.name(), limit.as_millis());
            Error::new(ErrorKind::Timeout, message).with_topic(parts.topic.name())
        })),
    }
}

async fn attempt(parts: &Parts, partitions: &[u32]) -> Result<Vec<(u32, Position)>> {
    let mut by_leader: BTreeMap<i32, (Spu, Vec<u32>)> = BTreeMap::new();
    for partition in partitions {
        let leader = parts.topic.leader(*partition).ok_or_else(|| {
            let message = format!(
                "partition {partition} of topic {:?} has no leader at the moment",
                parts.topic.name()
            );
            Error::new(ErrorKind::Connection, message).with_partition(parts.topic.name(), *partition)
        })?;
        by_leader.entry(leader.id).or_insert_with(|| (leader, Vec::new())).1.push(*partition);
    }
    let asked = by_leader.into_values().map(|(spu, partitions)| async move {
        let connection = parts.links.to(&spu).connection().await?;
        let response = connection.call(requests::offsets(parts.topic.name(), &partitions)).await?;
        let answers = response.topics.into_iter().flat_map(|topic| topic.partitions);
        let answers: BTreeMap<_, _> = answers.map(|answer| (answer.partition_index, answer)).collect();
        let beyond = answers.values().filter(|answer| reaches_beyond(parts, answer));
        let beyond = beyond.map(|answer| (answer.partition_index, answer.last_stable_offset));
        let ends = log_end::find(&connection, parts.topic.name(), beyond).await?;
        let positions = partitions.into_iter().map(|partition| match answers.get(&partition) {
            Some(answer) => Ok((partition, position(parts, answer, ends.get(&partition).copied())?)),
            None => {
                let message = format!("SPU {} did not tell the offsets of partition {partition}", spu.id);
                let error = Error::new(ErrorKind::Protocol, message).with_spu(spu.id, &spu.address);
                Err(error.with_partition(parts.topic.name(), partition))
            }
        });
        positions.collect::<Result<Vec<_>>>()
    });
    Ok(try_join_all(asked).await?.concat())
}

/// Whether the start depends on what is in the log and not yet replicated: the server tells no end but that of what is.
fn reaches_beyond(parts: &Parts, answer: &FetchOffsetPartitionResponse) -> bool {
    let (first, stable) = (answer.start_offset, answer.last_stable_offset);
    parts.options.isolation == Isolation::ReadUncommitted
        && answer.error_code.is_ok()
        && match parts.options.start {
            Start::Beginning(skip) => first.saturating_add(skip as i64) > stable,
            Start::End(_) => true,
            Start::Offset(offset) => offset as i64 > stable,
        }
}

/// `log_end` is where the log ends, if that counts and is not the end that the answer tells.
fn position(parts: &Parts, answer: &FetchOffsetPartitionResponse, log_end: Option<i64>) -> Result<Position> {
    let what = format!("partition {} of topic {:?}", answer.partition_index, parts.topic.name());
    let here = |error: Error| error.with_partition(parts.topic.name(), answer.partition_index);
    if answer.error_code.is_error() {
        return Err(here(Error::from_code(&answer.error_code, &what, None)));
    }
    let (first, end) = (answer.start_offset, log_end.unwrap_or(answer.last_stable_offset));
    // The options keep every value within 63 bits.
    match parts.options.start {
        Start::Beginning(skip) => Ok(Position::Relative(first.saturating_add(skip as i64).min(end))),
        Start::End(back) => Ok(Position::Relative(end.saturating_sub(back as i64).max(first))),
        Start::Offset(offset) => {
            let offset = offset as i64;
            if offset < first {
                let message = format!("{what}: offset {offset} was removed, the first one there is {first}");
                let error = Error::new(ErrorKind::OffsetEvicted, message);
                Err(here(error).with_detail("offset", offset).with_detail("next_available", first))
            } else if offset > end {
                let message = format!("{what}: offset {offset} lies beyond the end, which is {end}");
                let error = Error::new(ErrorKind::OffsetOutOfRange, message);
                Err(here(error).with_detail("offset", offset).with_detail("next_available", end))
            } else {
                Ok(Position::Absolute(offset))
            }
        }
    }
}
