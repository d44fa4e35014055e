//! Leaders that move and SPUs that go away and return, while partitions on all of them are written and read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::{Cluster, PATIENCE, options, receive, send, submit, topic};
use engine::admin::CreateTopic;
use engine::consumer::Taken;
use engine::producer::ProducerOptions;
use fluvio_devserver::{Config, Fault};
use rand::Rng;

const SPUS: [i32; 3] = [5001, 5002, 5003];
const PARTITIONS: u32 = 6;
const ROUNDS: usize = 40;

/// Every acknowledged record is in the log where its acknowledgement says, and a consumer that ran meanwhile saw exactly
/// the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_while_leaders_move_and_spus_come_and_go() {
    let spus = SPUS.len() as u16;
    let cluster = Cluster::with(Config { spus, cut_batches: true, ..Config::default() }).await;
    let client = cluster.client().await;
    let name = "moving";
    let text = format!(r#"{{"name": "{name}", "partitions": {PARTITIONS}, "replication": {spus}}}"#);
    client.admin().create_topic(CreateTopic::from_json(&text).unwrap()).await.expect("created");
    let small =
        ProducerOptions::from_json(r#"{"batch_size_bytes": 4096, "max_request_size_bytes": 16384}"#).unwrap();
    let producer = client.producer(name, small).await.unwrap();
    let live = client.consumer(name, options(r#"{"start": {"beginning": 0}}"#)).await.unwrap();

    let over = Arc::new(AtomicBool::new(false));
    let (stop, sender) = (Arc::clone(&over), producer.clone());
    let producing = tokio::spawn(async move {
        let mut acks = Vec::new();
        let mut number = 0u32;
        while !stop.load(Ordering::Relaxed) {
            let partition = number % PARTITIONS;
            acks.push((
                number,
                partition,
                submit(&sender, None, &number.to_be_bytes(), Some(partition)).await.unwrap(),
            ));
            number += 1;
            if number.is_multiple_of(20) {
                tokio::time::sleep(Duration::from_micros(500)).await;
            }
        }
        acks
    });
    let server = cluster.server();
    for round in 0..ROUNDS {
        let spu = SPUS[rand::rng().random_range(0..SPUS.len())];
        if round % 4 == 0 {
            server.stop_spu(spu).await.expect("stop");
            pause().await;
            server.start_spu(spu).await.expect("start");
        } else {
            server.move_leader(name, rand::rng().random_range(0..PARTITIONS), spu).expect("move");
        }
        pause().await;
    }
    over.store(true, Ordering::Relaxed);
    let acks = tokio::time::timeout(PATIENCE, producing).await.expect("sent").unwrap();
    let mut places = Vec::new();
    for (number, partition, ack) in acks {
        let ack = tokio::time::timeout(PATIENCE, ack).await.expect("acknowledged").unwrap().unwrap();
        places.push((number, partition, ack.offset));
    }
    assert!(places.len() > 500, "{} records", places.len());

    // What is in the log, retries included: every partition is read to its end.
    let mut ends = Vec::new();
    for partition in 0..PARTITIONS {
        let ack = submit(&producer, None, b"end", Some(partition)).await.unwrap();
        ends.push(tokio::time::timeout(PATIENCE, ack).await.expect("acknowledged").unwrap().unwrap().offset);
    }
    let total = ends.iter().map(|end| *end as usize + 1).sum();
    let reader = client.consumer(name, options(r#"{"start": {"beginning": 0}}"#)).await.unwrap();
    let log = by_partition(receive(&reader, total).await);
    for (number, partition, offset) in places {
        assert_eq!(log[&partition][offset as usize], (offset, number.to_be_bytes().to_vec()));
    }
    let seen = by_partition(receive(&live, total).await);
    assert!(seen == log, "the live consumer saw something else than the log holds");
    assert!(matches!(live.take(), Ok(Taken::Empty)));
}

/// A watch that lags behind does not keep clients from the new leader: they ask for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moved_leader_is_found_although_the_watch_says_nothing() {
    let cluster = Cluster::with(Config { spus: 2, cut_batches: true, ..Config::default() }).await;
    let (server, client) = (cluster.server(), cluster.client().await);
    let name = &topic(&client, 1).await;
    server.move_leader(name, 0, SPUS[0]).expect("move");
    let producer = client.producer(name, ProducerOptions::default()).await.unwrap();
    let consumer = client.consumer(name, options(r#"{"start": {"beginning": 0}}"#)).await.unwrap();
    assert_eq!(send(&producer, None, b"before").await.unwrap().offset, 0);
    assert_eq!(receive(&consumer, 1).await[0].1, 0);
    let silence = Fault::from_json(r#"{"kind": "delay", "request": "watch", "when": "after"}"#).unwrap();
    let silence = server.inject(silence).expect("a fault");
    // There and back: what was learnt by asking is replaced by what is learnt later.
    for (offset, spu) in (1..).zip([SPUS[1], SPUS[0]]) {
        server.move_leader(name, 0, spu).expect("move");
        let sent = tokio::time::timeout(PATIENCE, send(&producer, None, b"after")).await.expect("sent");
        assert_eq!(sent.unwrap().offset, offset);
        assert_eq!(receive(&consumer, 1).await[0].1, offset);
    }
    server.clear(silence).expect("the fault is still there");
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(rand::rng().random_range(0..25))).await;
}

fn by_partition(records: Vec<crate::common::Received>) -> BTreeMap<u32, Vec<(i64, Vec<u8>)>> {
    let mut partitions: BTreeMap<u32, Vec<_>> = BTreeMap::new();
    for (partition, offset, _, value) in records {
        partitions.entry(partition).or_default().push((offset, value));
    }
    partitions
}
