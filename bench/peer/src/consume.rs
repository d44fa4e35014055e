//! Consuming with the crate.

use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::{Stream, StreamExt};

use fluvio::consumer::{ConsumerConfig, ConsumerConfigExtBuilder};
use fluvio::{Fluvio, Offset, RecordKey, TopicProducerPool};

use crate::Task;
use crate::measure::{self, Clock, Outcome};
use crate::produce;

/// A stream that has given nothing for this long has nothing more: the crate can lose the records that it waits for.
const SILENCE: Duration = Duration::from_secs(5);

/// Reads record by record to the end of the topic.
pub(crate) async fn records(client: &Fluvio, task: &Task) -> anyhow::Result<Outcome> {
    read_records(client, task, task.warm).await?;
    let clock = Clock::start(task.server_pid)?;
    let (count, end) = read_records(client, task, task.count).await?;
    clock.stop_at(end, count)
}

async fn read_records(client: &Fluvio, task: &Task, limit: usize) -> anyhow::Result<(usize, Instant)> {
    let config = ConsumerConfigExtBuilder::default()
        .topic(&task.topic)
        .partition(0)
        .offset_start(Offset::beginning())
        .disable_continuous(true)
        .build()?;
    let mut stream = pin!(client.consumer_with_config(config).await?);
    let mut seen = Seen::default();
    while seen.count < limit {
        let Some(record) = next(&mut stream).await else { break };
        seen.touch(record?.value());
        seen.note_time();
    }
    Ok(seen.finish())
}

/// Reads batch by batch to the end of the topic, and every value in them.
pub(crate) async fn batches(client: &Fluvio, task: &Task) -> anyhow::Result<Outcome> {
    read_batches(client, task, task.warm).await?;
    let clock = Clock::start(task.server_pid)?;
    let (count, end) = read_batches(client, task, task.count).await?;
    clock.stop_at(end, count)
}

// The crate has no other public way to read batches.
#[allow(deprecated)]
async fn read_batches(client: &Fluvio, task: &Task, limit: usize) -> anyhow::Result<(usize, Instant)> {
    let consumer = client.partition_consumer(&task.topic, 0).await?;
    let mut config = ConsumerConfig::builder();
    config.disable_continuous(true);
    let mut stream = pin!(consumer.stream_batches_with_config(Offset::beginning(), config.build()?).await?);
    let mut seen = Seen::default();
    while seen.count < limit {
        let Some(batch) = next(&mut stream).await else { break };
        for record in batch?.records() {
            seen.touch(record.value().as_ref());
        }
        seen.last = Instant::now();
    }
    Ok(seen.finish())
}

async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    tokio::time::timeout(SILENCE, stream.next()).await.ok().flatten()
}

/// Counts records and looks at their values, so that nothing is left out because nobody needs it.
struct Seen {
    count: usize,
    sum: usize,
    last: Instant,
}

impl Default for Seen {
    fn default() -> Self {
        Seen { count: 0, sum: 0, last: Instant::now() }
    }
}

impl Seen {
    fn touch(&mut self, value: &[u8]) {
        self.count += 1;
        self.sum += value.len() + usize::from(value.last().copied().unwrap_or_default());
    }

    /// Not for every record: that would be a part of what is measured.
    fn note_time(&mut self) {
        if self.count & 63 == 0 {
            self.last = Instant::now();
        }
    }

    fn finish(self) -> (usize, Instant) {
        std::hint::black_box(self.sum);
        (self.count, self.last)
    }
}

/// From before a send until the record comes out of a consumer, one record after another.
pub(crate) async fn live(client: &Fluvio, task: &Task) -> anyhow::Result<Outcome> {
    let producer = produce::producer(client, task).await?;
    let value = produce::values(1, task.size).remove(0);
    let config = ConsumerConfigExtBuilder::default()
        .topic(&task.topic)
        .partition(0)
        .offset_start(Offset::beginning())
        .build()?;
    let mut stream = pin!(client.consumer_with_config(config).await?);
    travel(&producer, &mut stream, &value, task.warm).await?;
    let clock = Clock::start(task.server_pid)?;
    let samples = travel(&producer, &mut stream, &value, task.count).await?;
    Ok(clock.stop(samples.len())?.with_latencies(samples))
}

async fn travel<S, R, E>(
    producer: &TopicProducerPool,
    stream: &mut S,
    value: &[u8],
    count: usize,
) -> anyhow::Result<Vec<Duration>>
where
    S: Stream<Item = Result<R, E>> + Unpin,
    E: std::error::Error + Send + Sync + 'static,
{
    let mut samples = Vec::with_capacity(count);
    for _ in 0..count {
        let started = Instant::now();
        let output = producer.send(RecordKey::NULL, value).await?;
        next(stream).await.context("the record did not arrive")??;
        samples.push(started.elapsed());
        output.wait().await?;
    }
    Ok(samples)
}

/// Threads that a client, a producer and a consumer add to the process.
pub(crate) async fn threads(client: &Fluvio, task: &Task, before: usize) -> anyhow::Result<Outcome> {
    let producer = produce::producer(client, task).await?;
    producer.send(RecordKey::NULL, "one").await?.wait().await?;
    let config = ConsumerConfigExtBuilder::default()
        .topic(&task.topic)
        .partition(0)
        .offset_start(Offset::beginning())
        .build()?;
    let mut stream = pin!(client.consumer_with_config(config).await?);
    next(&mut stream).await.context("the record did not arrive")??;
    Ok(Outcome { threads: Some(measure::threads()? - before), ..Outcome::default() })
}
