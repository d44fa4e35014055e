//! What a full buffer takes of the memory, each time in a process of its own that does nothing else.

use std::pin::pin;
use std::process::Command;

use crate::common::{Cluster, connect};
use engine::Result;
use engine::admin::CreateTopic;
use engine::producer::{
    Ack, AckHandler, Deliveries, DeliveriesHandler, Many, Producer, ProducerOptions, Sent,
};
use fluvio_devserver::Fault;
use futures_util::poll;

const BUFFER: usize = 32 * 1024 * 1024;
/// What the process may take besides.
const MORE: usize = 4 * 1024 * 1024;

/// As large as what the C border keeps for a record.
struct Nobody {
    _ticket: [u64; 5],
}

impl AckHandler for Nobody {
    fn acked(self: Box<Self>, _: Result<Ack>) {}
}

impl DeliveriesHandler for Nobody {
    fn delivered(self: Box<Self>, _: Deliveries) {}
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn argument(name: &str) -> usize {
    std::env::var(name).unwrap().parse().unwrap()
}

/// Runs what measures in a process of its own, whose server does not answer, and prints what it took.
fn measure(measured: impl Future<Output = (usize, String)>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (taken, what) = runtime.block_on(measured);
    println!("MEMORY {taken} {what}");
    std::process::exit(0);
}

async fn producer(endpoint: &str) -> Producer {
    let client = connect(endpoint).await.unwrap();
    let options = format!(r#"{{"buffer_bytes": {BUFFER}, "max_request_size_bytes": 2097152}}"#);
    client.producer("memory", ProducerOptions::from_json(&options).unwrap()).await.unwrap()
}

/// Fills the buffer of a producer whose server does not answer, and says what that took.
#[test]
#[ignore = "run by the tests below in a process of its own"]
fn fill() {
    let Ok(endpoint) = std::env::var("PRODUCER_MEMORY_ENDPOINT") else { return };
    let (partitions, size, many, flushed) = (
        argument("PRODUCER_MEMORY_PARTITIONS"),
        argument("PRODUCER_MEMORY_SIZE"),
        argument("PRODUCER_MEMORY_MANY"),
        argument("PRODUCER_MEMORY_FLUSHED") == 1,
    );
    measure(async {
        let producer = producer(&endpoint).await;
        let value = vec![1u8; size];
        let lengths = vec![size as u32; many];
        let arena = value.repeat(many.max(1));
        let before = resident();
        let (mut records, mut calls) = (0usize, 0usize);
        loop {
            let partition = Some((calls % partitions) as u32);
            calls += 1;
            let handler = || Box::new(Nobody { _ticket: [0; 5] });
            let accepted = if many == 0 {
                let sent = producer.send(&mut None, None, &value, partition, || Ok(handler())).unwrap();
                usize::from(sent == Sent::Accepted)
            } else {
                let many = Many { arena: &arena, key_lengths: None, value_lengths: &lengths };
                producer.send_many(&mut None, many, partition, |_| Ok(handler())).unwrap()
            };
            if accepted == 0 {
                break;
            }
            records += if many == 0 { 1 } else { accepted };
            if flushed {
                // Which seals the batch; nobody waits for the rest.
                assert!(poll!(pin!(producer.flush())).is_pending());
            }
        }
        (resident().saturating_sub(before), format!("{records} records"))
    });
}

/// Has many wait for the flush of many partitions, and says what that takes.
#[test]
#[ignore = "run by a test below in a process of its own"]
fn wait() {
    let Ok(endpoint) = std::env::var("PRODUCER_MEMORY_ENDPOINT") else { return };
    let partitions = argument("PRODUCER_MEMORY_PARTITIONS");
    measure(async {
        let producer = producer(&endpoint).await;
        for partition in 0..partitions {
            let handler = || Ok(Box::new(Nobody { _ticket: [0; 5] }) as Box<dyn AckHandler>);
            producer.send(&mut None, None, b"value", Some(partition as u32), handler).unwrap();
        }
        let before = resident();
        let mut flushes: Vec<_> = (0..1000).map(|_| Box::pin(producer.flush())).collect();
        for flush in &mut flushes {
            assert!(poll!(flush.as_mut()).is_pending());
        }
        (resident().saturating_sub(before), format!("{} flushes", flushes.len()))
    });
}

/// What `measured` takes in a process of its own against a server that does not answer.
async fn taken(
    measured: &str,
    partitions: usize,
    size: usize,
    many: usize,
    flushed: bool,
) -> (usize, String) {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let text = format!(r#"{{"name": "memory", "partitions": {partitions}}}"#);
    client.admin().create_topic(CreateTopic::from_json(&text).unwrap()).await.unwrap();
    let silent = r#"{"kind": "never-answer", "request": "produce"}"#;
    cluster.server().inject(Fault::from_json(silent).unwrap()).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", &format!("producer_memory::{measured}"), "--ignored", "--nocapture"])
        .env("PRODUCER_MEMORY_ENDPOINT", &cluster.endpoint)
        .env("PRODUCER_MEMORY_PARTITIONS", partitions.to_string())
        .env("PRODUCER_MEMORY_SIZE", size.to_string())
        .env("PRODUCER_MEMORY_MANY", many.to_string())
        .env("PRODUCER_MEMORY_FLUSHED", u8::from(flushed).to_string());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.split_once("MEMORY ").map(|(_, rest)| rest.to_owned()));
    let line = line.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    let taken = line.split(' ').next().unwrap().parse().unwrap();
    let flushes = if flushed { ", each flushed" } else { "" };
    let what = format!("{partitions} partitions, {size} bytes, {many} at a time{flushes}: {line}");
    println!("{what}");
    (taken, what)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_buffer_takes_what_the_option_says() {
    for partitions in [1usize, 100, 1000] {
        for (size, many) in [
            (0, 0),
            (1, 0),
            (1, 1000),
            (1, 7),
            (1, 2),
            (0, 1),
            (100, 0),
            (100, 1000),
            (2000, 0),
            (5000, 0),
            (30_000, 0),
            (1024 * 1024, 0),
        ] {
            let (taken, what) = taken("fill", partitions, size, many, false).await;
            assert!(taken <= BUFFER + MORE, "{what}");
        }
    }
}

/// However little is in a batch, what it takes besides is counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tiny_batches_take_what_the_option_says() {
    for partitions in [1usize, 1000] {
        for (size, many) in [(10, 0), (0, 0), (10, 1), (10, 7), (400, 0), (3000, 0)] {
            let (taken, what) = taken("fill", partitions, size, many, true).await;
            assert!(taken <= BUFFER + MORE, "{what}");
        }
    }
}

/// Whoever waits for a flush keeps nothing by partition.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_flushes_of_a_thousand_partitions_take_little() {
    let (taken, what) = taken("wait", 1000, 0, 0, false).await;
    assert!(taken <= MORE, "{what}");
}
