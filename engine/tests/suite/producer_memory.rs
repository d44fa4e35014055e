//! What a full buffer takes of the memory, each time in a process of its own that does nothing else.

use std::process::Command;

use crate::common::{Cluster, connect};
use engine::Result;
use engine::admin::CreateTopic;
use engine::producer::{Ack, AckHandler, Deliveries, DeliveriesHandler, Many, ProducerOptions, Sent};
use fluvio_devserver::Fault;

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

/// Fills the buffer of a producer whose server does not answer, and says what that took.
#[test]
#[ignore = "run by the test below in a process of its own"]
fn fill() {
    let Ok(endpoint) = std::env::var("PRODUCER_MEMORY_ENDPOINT") else { return };
    let argument = |name: &str| std::env::var(name).unwrap().parse::<usize>().unwrap();
    let (partitions, size, many) = (
        argument("PRODUCER_MEMORY_PARTITIONS"),
        argument("PRODUCER_MEMORY_SIZE"),
        argument("PRODUCER_MEMORY_MANY"),
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let client = connect(&endpoint).await.unwrap();
        let options = format!(r#"{{"buffer_bytes": {BUFFER}, "max_request_size_bytes": 2097152}}"#);
        let producer =
            client.producer("memory", ProducerOptions::from_json(&options).unwrap()).await.unwrap();
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
        }
        let more = resident().saturating_sub(before);
        println!("MEMORY {more} {records}");
        std::process::exit(0);
    });
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
            let cluster = Cluster::start().await;
            let client = cluster.client().await;
            let text = format!(r#"{{"name": "memory", "partitions": {partitions}}}"#);
            client.admin().create_topic(CreateTopic::from_json(&text).unwrap()).await.unwrap();
            let silent = r#"{"kind": "never-answer", "request": "produce"}"#;
            cluster.server().inject(Fault::from_json(silent).unwrap()).unwrap();
            let endpoint = cluster.endpoint.clone();
            let output = tokio::task::spawn_blocking(move || {
                Command::new(std::env::current_exe().unwrap())
                    .args(["--exact", "producer_memory::fill", "--ignored", "--nocapture"])
                    .env("PRODUCER_MEMORY_ENDPOINT", endpoint)
                    .env("PRODUCER_MEMORY_PARTITIONS", partitions.to_string())
                    .env("PRODUCER_MEMORY_SIZE", size.to_string())
                    .env("PRODUCER_MEMORY_MANY", many.to_string())
                    .output()
                    .unwrap()
            });
            let output = output.await.unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let line =
                text.lines().find_map(|line| line.split_once("MEMORY ").map(|(_, rest)| rest.to_owned()));
            let line = line.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
            let taken: usize = line.split(' ').next().unwrap().parse().unwrap();
            println!("{partitions} partitions, {size} bytes, {many} at a time: {line}");
            assert!(
                taken <= BUFFER + MORE,
                "{partitions} partitions, records of {size} bytes, {many} at a time: {line}"
            );
        }
    }
}
