//! What a client costs by the number of partitions: requests and connections while an SPU is away, the time until all are
//! back, what is left when it is closed. Memory is in `memory.rs`.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use engine::consumer::Consumer;
use engine::producer::{Producer, ProducerOptions};
use engine::{Client, ClientOptions};
use fluvio_devserver::{Config, Fault};

use crate::common::{Cluster, PATIENCE, options, receive, submit, topic};

const BEGINNING: &str = r#"{"start": {"beginning": 0}}"#;
const SPU: i32 = 5001;
/// How long the SPU is away.
const AWAY: Duration = Duration::from_secs(1);
/// How long after its return everything has to be back.
const BACK: Duration = Duration::from_secs(2);

/// Writes one record to each partition, and reads all of them.
async fn exchange(producer: &Producer, consumer: &Consumer, partitions: u32, value: &[u8]) {
    let mut acks = Vec::new();
    for partition in 0..partitions {
        acks.push(submit(producer, None, value, Some(partition)).await.expect("accepted"));
    }
    let mut missing: HashSet<u32> = (0..partitions).collect();
    while !missing.is_empty() {
        for (partition, _, _, received) in receive(consumer, 1).await {
            if received == value {
                missing.remove(&partition);
            }
        }
    }
    for ack in acks {
        tokio::time::timeout(PATIENCE, ack).await.expect("acknowledged").unwrap().unwrap();
    }
}

async fn an_spu_is_away(partitions: u32) {
    let cluster = Cluster::start().await;
    let server = cluster.server();
    let client = cluster.client().await;
    let name = topic(&client, partitions).await;
    let producer = client.producer(&name, ProducerOptions::default()).await.unwrap();
    let consumer = client.consumer(&name, options(BEGINNING)).await.unwrap();
    exchange(&producer, &consumer, partitions, b"before").await;

    let before = server.counters().controller;
    server.stop_spu(SPU).await.unwrap();
    // Not a wait for something: the SPU is away for so long, and the client must not ask all the time.
    tokio::time::sleep(AWAY).await;
    server.start_spu(SPU).await.unwrap();
    let returned = Instant::now();
    exchange(&producer, &consumer, partitions, b"after").await;
    let took = returned.elapsed();
    let after = server.counters().controller;

    let requests = after.all_requests() - before.all_requests();
    let connections = after.connections_opened - before.connections_opened;
    let bytes = after.sent_bytes - before.sent_bytes;
    println!(
        "{partitions} partitions: {requests} requests, {connections} connections, {bytes} B, back after {took:?}"
    );
    assert!(requests <= 8, "{requests} requests to the SC: {before:?} {after:?}");
    assert!(connections <= 2, "{connections} connections to the SC");
    assert!(took <= BACK, "{took:?}");
    client.close().await;
    nothing_is_left(&cluster).await;
}

/// The client was closed: the server notices that at once.
async fn nothing_is_left(cluster: &Cluster) {
    let open = || {
        let counters = cluster.server().counters();
        let spus = counters.spu_total();
        (counters.controller.connections_open, spus.connections_open, spus.streams_open)
    };
    let waiting = async {
        while open() != (0, 0, 0) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let closed = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(closed.is_ok(), "left are (SC connections, SPU connections, streams) {:?}", open());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_spu_of_1_partition_is_away() {
    an_spu_is_away(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_spu_of_100_partitions_is_away() {
    an_spu_is_away(100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_spu_of_1000_partitions_is_away() {
    an_spu_is_away(1000).await;
}

/// The SPU accepts connections and says nothing, meanwhile all leaders move to another one.
async fn partitions_reconnect_together(partitions: u32) {
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
    let cluster = Cluster::with(Config { spus: 2, cut_batches: true, ..Config::default() }).await;
    let server = cluster.server();
    let client = Client::connect(ClientOptions {
        endpoint: Some(cluster.endpoint.clone()),
        connect_timeout_ms: CONNECT_TIMEOUT.as_millis() as u64,
        ..ClientOptions::default()
    })
    .await
    .unwrap();
    let name = topic(&client, partitions).await;
    for partition in 0..partitions {
        server.move_leader(&name, partition, SPU).unwrap();
    }
    let other = cluster.client().await;
    let producer = other.producer(&name, ProducerOptions::default()).await.unwrap();
    let consumer = client.consumer(&name, options(BEGINNING)).await.unwrap();
    exchange(&producer, &consumer, partitions, b"before").await;
    other.close().await;

    let silent = format!(r#"{{"kind": "never-answer", "plane": {SPU}, "request": "api-versions"}}"#);
    server.inject(Fault::from_json(&silent).unwrap()).unwrap();
    let attempts = || server.counters().spus[&SPU].connections_opened;
    let before = attempts();
    server.close_connections();
    let lost = Instant::now();
    while attempts() == before {
        assert!(lost.elapsed() < PATIENCE, "nobody connects anew");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // They wait for a handshake that will not come; now their leader is another one.
    for partition in 0..partitions {
        server.move_leader(&name, partition, SPU + 1).unwrap();
    }
    let moved = Instant::now();
    let other = cluster.client().await;
    let producer = other.producer(&name, ProducerOptions::default()).await.unwrap();
    exchange(&producer, &consumer, partitions, b"after").await;
    let took = moved.elapsed();
    println!("{partitions} partitions: back {took:?} after their leader moved");
    assert!(took <= CONNECT_TIMEOUT + Duration::from_secs(1), "{took:?}");
    client.close().await;
    other.close().await;
    nothing_is_left(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_20_partitions_of_an_spu_reconnect_together() {
    partitions_reconnect_together(20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_1000_partitions_of_an_spu_reconnect_together() {
    partitions_reconnect_together(1000).await;
}
