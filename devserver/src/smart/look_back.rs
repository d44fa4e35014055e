//! The records that a module sees before its first one: the last n of the partition, or those of a time.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use fluvio_protocol::Decoder;
use fluvio_protocol::record::Record;
use fluvio_smartengine::{Lookback, SmartModuleChainInstance};
use fluvio_spu_schema::Isolation;
use futures_util::FutureExt;

use super::batches::Input;
use super::stored::StoredBatches;
use crate::cluster::Replica;

/// Gives every module of the chain the records it asked for, of those that `isolation` may see.
pub(super) fn look_back(
    chain: &mut SmartModuleChainInstance,
    replica: &Arc<Replica>,
    isolation: Isolation,
) -> anyhow::Result<()> {
    let log = Log { replica, isolation, end: replica.log.ends().visible(isolation) };
    // The engine wants a future; reading is done when it is made.
    let looked = chain.look_back(|wanted| std::future::ready(records(&log, wanted)));
    looked.now_or_never().context("the engine waits for records that are there")?
}

/// What there is to look back on.
struct Log<'a> {
    replica: &'a Arc<Replica>,
    isolation: Isolation,
    end: i64,
}

impl Log<'_> {
    fn batches(&self, from: i64, end: i64) -> StoredBatches {
        StoredBatches::new(self.replica.clone(), self.isolation, from, end)
    }

    fn start(&self) -> i64 {
        self.replica.log.start()
    }
}

fn records(log: &Log, wanted: Lookback) -> anyhow::Result<Vec<Record>> {
    match wanted {
        Lookback::Last(last) => last_records(log, last, i64::MIN),
        Lookback::Age { age, last } => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
            let oldest = i64::try_from(now.as_millis())?
                .checked_sub(i64::try_from(age.as_millis())?)
                .context("timestamp overflow")?;
            match last {
                0 => records_since(log, oldest),
                _ => last_records(log, last, oldest),
            }
        }
    }
}

/// Of the last `last` records those that are not older than `oldest`.
fn last_records(log: &Log, last: u64, oldest: i64) -> anyhow::Result<Vec<Record>> {
    let from = log.end.saturating_sub(i64::try_from(last)?).max(log.start());
    let mut found = Vec::new();
    for batch in log.batches(from, log.end) {
        append(&mut found, &Input::read(&batch?)?, from, oldest)?;
    }
    Ok(found)
}

/// The records of the newest batches, back to the first that has only older ones.
fn records_since(log: &Log, oldest: i64) -> anyhow::Result<Vec<Record>> {
    let mut batches = Vec::new();
    let mut end = log.end;
    while end > log.start() {
        let last = log.batches(end - 1, end).next();
        let batch = Input::read(&last.context("a batch that is not there")??)?;
        if batch.header.max_timestamp < oldest {
            break;
        }
        end = batch.header.base_offset;
        batches.push(batch);
    }
    let mut found = Vec::new();
    for batch in batches.iter().rev() {
        append(&mut found, batch, i64::MIN, oldest)?;
    }
    Ok(found)
}

fn append(found: &mut Vec<Record>, batch: &Input, from: i64, oldest: i64) -> anyhow::Result<()> {
    let records = Vec::<Record>::decode_from(&mut &batch.records[..], 0)?;
    found.extend(records.into_iter().filter(|record| {
        let offset = batch.header.base_offset.wrapping_add(record.preamble.offset_delta());
        let timestamp = batch.header.first_timestamp.wrapping_add(record.get_header().get_timestamp_delta());
        offset >= from && timestamp >= oldest
    }));
    Ok(())
}
