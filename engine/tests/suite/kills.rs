//! Many connections killed at random moments while several partitions are written and read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::{Cluster, PATIENCE, options, receive, submit, topic};
use engine::consumer::Taken;
use engine::producer::ProducerOptions;
use rand::Rng;

const KILLS: u32 = 200;
const PARTITIONS: u32 = 3;

/// Every acknowledged record is in the log where its acknowledgement says, in the order of its partition apart from what a
/// retry repeats, and a consumer that ran meanwhile saw exactly the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn acknowledgements_and_log_agree_through_two_hundred_kills() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let name = topic(&client, PARTITIONS).await;
    let small =
        ProducerOptions::from_json(r#"{"batch_size_bytes": 4096, "max_request_size_bytes": 16384}"#).unwrap();
    let producer = client.producer(&name, small).await.unwrap();
    let live = client.consumer(&name, options(r#"{"start": {"beginning": 0}}"#)).await.unwrap();

    let over = Arc::new(AtomicBool::new(false));
    let (stop, sender) = (Arc::clone(&over), producer.clone());
    let producing = tokio::spawn(async move {
        let mut acks = Vec::new();
        let mut number = 0u32;
        while !stop.load(Ordering::Relaxed) {
            let partition = number % PARTITIONS;
            let ack = submit(&sender, None, &number.to_be_bytes(), Some(partition)).await.unwrap();
            acks.push((number, partition, ack));
            number += 1;
            if number.is_multiple_of(20) {
                tokio::time::sleep(Duration::from_micros(500)).await;
            }
        }
        acks
    });
    let reading = tokio::spawn(async move {
        let mut seen: BTreeMap<u32, Vec<(i64, u32)>> = BTreeMap::new();
        loop {
            live.ready().await;
            let Taken::Batch(batch) = live.take().expect("no error") else { continue };
            let columns = batch.columns();
            let records = seen.entry(batch.partition()).or_default();
            for i in 0..batch.len() {
                let value = &batch.data()[columns.value_starts[i] as usize..columns.value_ends[i] as usize];
                if value == b"end" {
                    return (seen, live);
                }
                records.push((columns.offsets[i], u32::from_be_bytes(value.try_into().unwrap())));
            }
        }
    });
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_micros(rand::rng().random_range(0..30_000))).await;
        cluster.server().close_connections();
    }
    over.store(true, Ordering::Relaxed);
    let acks = producing.await.unwrap();
    let mut places = Vec::new();
    for (number, partition, ack) in acks {
        let ack = tokio::time::timeout(PATIENCE, ack).await.expect("acknowledged").unwrap().unwrap();
        assert_eq!(ack.partition, partition);
        places.push((number, partition, ack.offset));
    }
    assert!(places.len() > 1000, "{} records", places.len());

    let mut total = 0;
    for partition in 0..PARTITIONS {
        let last = places.iter().filter(|place| place.1 == partition).map(|place| place.2).max().unwrap();
        total += last as usize + 1;
    }
    let reader = client.consumer(&name, options(r#"{"start": {"beginning": 0}}"#)).await.unwrap();
    let mut log: BTreeMap<u32, Vec<(i64, u32)>> = BTreeMap::new();
    for (partition, offset, _, value) in receive(&reader, total).await {
        log.entry(partition).or_default().push((offset, u32::from_be_bytes(value[..].try_into().unwrap())));
    }
    for (number, partition, offset) in &places {
        assert_eq!(log[partition][*offset as usize], (*offset, *number));
    }
    for (partition, records) in &log {
        let mut next = *partition;
        for (_, number) in records {
            assert!(*number <= next, "{next} is missing in front of {number}");
            next = next.max(*number + PARTITIONS);
        }
    }
    // The live consumer reads on until it has seen the end of every partition it still lacks.
    let ack = submit(&producer, None, b"end", Some(0)).await.unwrap();
    tokio::time::timeout(PATIENCE, ack).await.expect("acknowledged").unwrap().unwrap();
    let (seen, live) = tokio::time::timeout(PATIENCE, reading).await.expect("the end is read").unwrap();
    let mut seen = seen;
    let missing = total - seen.values().map(Vec::len).sum::<usize>();
    for (partition, offset, _, value) in receive(&live, missing).await {
        let number = u32::from_be_bytes(value[..].try_into().unwrap());
        seen.entry(partition).or_default().push((offset, number));
    }
    assert!(seen == log, "the live consumer saw something else than the log holds");
}
