//! Producing with the crate.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;

use fluvio::{Fluvio, RecordKey, TopicProducerConfigBuilder, TopicProducerPool};

use crate::Task;
use crate::measure::{Clock, Outcome};

/// Distinct values of the wanted size.
pub(crate) fn values(count: usize, size: usize) -> Vec<Vec<u8>> {
    (0..count).map(|index| format!("{index:0size$}").into_bytes()[..size].to_vec()).collect()
}

/// The producer that a task asks for.
pub(crate) async fn producer(client: &Fluvio, task: &Task) -> anyhow::Result<TopicProducerPool> {
    let Some(batch_size) = task.batch_size else {
        return client.topic_producer(&task.topic).await;
    };
    let config = TopicProducerConfigBuilder::default().batch_size(batch_size).build()?;
    client.topic_producer_with_config(&task.topic, config).await
}

/// Sends chunk by chunk: all records of it, flush, then every output is awaited.
pub(crate) async fn bulk(client: &Fluvio, task: &Task) -> anyhow::Result<Outcome> {
    let producer = producer(client, task).await?;
    let values = values(task.chunk, task.size);
    send_all(&producer, &values, task.warm).await?;
    let clock = Clock::start(task.server_pid)?;
    let sent = send_all(&producer, &values, task.count).await?;
    clock.stop(sent)
}

async fn send_all(producer: &TopicProducerPool, values: &[Vec<u8>], count: usize) -> anyhow::Result<usize> {
    let mut sent = 0;
    while sent < count {
        let chunk = &values[..values.len().min(count - sent)];
        let mut outputs = Vec::with_capacity(chunk.len());
        for value in chunk {
            outputs.push(producer.send(RecordKey::NULL, value.clone()).await?);
        }
        producer.flush().await?;
        for output in outputs {
            output.wait().await?;
            sent += 1;
        }
    }
    Ok(sent)
}

/// One record at a time: send, then wait for its ack.
pub(crate) async fn one_at_a_time(client: &Fluvio, task: &Task) -> anyhow::Result<Outcome> {
    let producer = producer(client, task).await?;
    let values = values(1, task.size);
    acknowledged(&producer, &values[0], task.warm).await?;
    let clock = Clock::start(task.server_pid)?;
    let samples = acknowledged(&producer, &values[0], task.count).await?;
    Ok(clock.stop(samples.len())?.with_latencies(samples))
}

async fn acknowledged(
    producer: &TopicProducerPool,
    value: &[u8],
    count: usize,
) -> anyhow::Result<Vec<Duration>> {
    let mut samples = Vec::with_capacity(count);
    for _ in 0..count {
        let started = Instant::now();
        producer.send(RecordKey::NULL, value).await?.wait().await?;
        samples.push(started.elapsed());
    }
    Ok(samples)
}

/// Many tasks, each of which sends and waits for its own ack.
pub(crate) async fn concurrent(client: &Fluvio, task: &Task) -> anyhow::Result<Outcome> {
    let producer = producer(client, task).await?;
    let values = values(1, task.size);
    let each = |count: usize| {
        let (producer, value) = (&producer, &values[0]);
        (0..task.tasks).map(move |_| acknowledged(producer, value, count / task.tasks))
    };
    try_join_all(each(task.warm)).await?;
    let clock = Clock::start(task.server_pid)?;
    let samples: Vec<Duration> = try_join_all(each(task.count)).await?.concat();
    Ok(clock.stop(samples.len())?.with_latencies(samples))
}
