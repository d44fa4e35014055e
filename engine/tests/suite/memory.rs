//! How much memory a client holds, each in a process of its own: at most what the option says and 4 MiB more, whatever the
//! number of partitions and the size of records.
//!
//! The process is this test program again, told by the environment to measure. What it is asked to hold it says itself once
//! the server sends or takes no more: the tests wait for that, not for time.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use engine::producer::{ProducerOptions, RECORD_OVERHEAD};
use fluvio_devserver::Fault;

use crate::common::{Cluster, PATIENCE, connect, options, send_many, submit, topic};

/// What may come on top of an option, in KiB.
const ALLOWANCE: u64 = 4 * 1024;
/// What an idle consumer may hold, in KiB.
const IDLE: u64 = 512;
/// So many idle consumers are measured together: one alone would be lost in the noise.
const CONSUMERS: u64 = 32;
/// As long as nothing passes for so long, everything is as it stays.
const QUIET: Duration = Duration::from_millis(500);
/// The task of a measuring process.
const TASK: &str = "FLUVIO_TEST_MEMORY_TASK";

/// Resident memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the status of this process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
}

/// A process that measures.
struct Measured {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Measured {
    /// `task`: what to open, the topic, and its options.
    fn start(endpoint: &str, task: [&str; 3]) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["memory::measures", "--exact", "--ignored", "--nocapture", "--quiet"])
            .env(TASK, [&[endpoint], &task[..]].concat().join("\n"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let orders = child.stdin.take().expect("stdin");
        let answers = BufReader::new(child.stdout.take().expect("stdout"));
        let mut measured = Measured { child, orders, answers };
        measured.answer("ready");
        measured
    }

    /// Waits for what it says next under this name.
    fn answer(&mut self, name: &str) -> u64 {
        let mut line = String::new();
        loop {
            line.clear();
            let read = self.answers.read_line(&mut line).expect("readable");
            assert!(read > 0, "the process has ended before it said {name:?}");
            if let Some((_, value)) = line.rsplit_once(&format!("{name}=")) {
                return value.trim().parse().expect("a number");
            }
        }
    }

    /// How much more it holds than before, in KiB.
    fn growth(&mut self) -> u64 {
        writeln!(self.orders, "tell").expect("it listens");
        self.answer("growth")
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The measuring process: opens what it is told to, and says how much it has grown when it is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the other tests of this file start it"]
async fn measures() {
    let task = std::env::var(TASK).expect("a task");
    let [endpoint, kind, name, text] = task.split('\n').collect::<Vec<_>>()[..] else {
        panic!("no task: {task}");
    };
    let client = connect(endpoint).await.expect("connects");
    // Everything that is needed once is there before the measurement.
    let warm = topic(&client, 1).await;
    let producer = client.producer(&warm, ProducerOptions::default()).await.unwrap();
    submit(&producer, None, b"warm", None).await.unwrap().await.unwrap().unwrap();
    drop(client.producer(name, ProducerOptions::default()).await.unwrap());
    let before = resident();
    let mut consumers = Vec::new();
    let mut producers = Vec::new();
    match kind {
        "consumer" => consumers.push(client.consumer(name, options(text)).await.unwrap()),
        "consumers" => {
            for _ in 0..CONSUMERS {
                let consumer = client.consumer(name, options(text)).await.unwrap();
                crate::common::receive(&consumer, 1).await;
                consumers.push(consumer);
            }
        }
        "producer" => {
            let size: usize = text.split(' ').nth(1).expect("a size").parse().unwrap();
            let count: u32 = text.split(' ').nth(2).expect("a count").parse().unwrap();
            let options = ProducerOptions::from_json(text.split(' ').next().expect("options")).unwrap();
            let (value, room) = (vec![b'v'; size], options.buffer_bytes);
            let producer = client.producer(name, options).await.unwrap();
            // A little less than what fits, so that nothing waits for room.
            for number in 0..(room / (size + RECORD_OVERHEAD)) as u32 - 64 {
                submit(&producer, None, &value, Some(number % count)).await.unwrap();
            }
            producers.push(producer);
        }
        other => panic!("{other} is no task"),
    }
    println!("\nready=1");
    for order in std::io::stdin().lines() {
        assert_eq!(order.expect("an order"), "tell");
        println!("\ngrowth={}", resident().saturating_sub(before));
    }
}

/// A topic with so many bytes of values in it, spread over its partitions.
async fn filled(cluster: &Cluster, partitions: u32, size: usize, bytes: usize) -> String {
    let client = cluster.client().await;
    let name = topic(&client, partitions).await;
    let producer = client.producer(&name, ProducerOptions::default()).await.unwrap();
    let each = (bytes / size.max(1)).div_ceil(partitions as usize);
    let values = vec![vec![b'v'; size]; each];
    for partition in 0..partitions {
        send_many(&producer, &values, Some(partition)).await;
    }
    client.close().await;
    name
}

/// Waits until the server has sent and received nothing for a while.
async fn quiet(cluster: &Cluster) {
    let passed = || {
        let total = cluster.server().counters().spu_total();
        total.sent_bytes + total.received_bytes
    };
    let started = Instant::now();
    let (mut last, mut since) = (passed(), Instant::now());
    while since.elapsed() < QUIET {
        assert!(started.elapsed() < PATIENCE, "it goes on and on");
        tokio::time::sleep(Duration::from_millis(10)).await;
        if passed() != last {
            (last, since) = (passed(), Instant::now());
        }
    }
}

/// A consumer whose records nobody takes.
async fn prefetch(partitions: u32, size: usize, mebibytes: u64) {
    let cluster = Cluster::start().await;
    // As much again as it may hold, and a batch for each partition.
    let bytes = (2 * mebibytes as usize) << 20;
    let name = filled(&cluster, partitions, size, bytes).await;
    let text = format!(r#"{{"start": {{"beginning": 0}}, "prefetch_bytes": {}}}"#, mebibytes << 20);
    let mut measured = Measured::start(&cluster.endpoint, ["consumer", &name, &text]);
    quiet(&cluster).await;
    let growth = measured.growth();
    println!("prefetch {mebibytes} MiB, {partitions} partitions, {size} B: {growth} KiB");
    assert!(growth <= mebibytes * 1024 + ALLOWANCE, "{growth} KiB with a prefetch of {mebibytes} MiB");
}

/// A producer whose records nobody acknowledges.
async fn buffer(partitions: u32, size: usize, mebibytes: u64) {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let name = topic(&client, partitions).await;
    client.close().await;
    let fault = format!(r#"{{"kind": "produce-error", "code": "NotLeaderForPartition", "topic": "{name}"}}"#);
    cluster.server().inject(Fault::from_json(&fault).unwrap()).unwrap();
    let text =
        format!(r#"{{"buffer_bytes":{},"retry_initial_ms":5000}} {size} {partitions}"#, mebibytes << 20);
    let mut measured = Measured::start(&cluster.endpoint, ["producer", &name, &text]);
    let growth = measured.growth();
    println!("buffer {mebibytes} MiB, {partitions} partitions, {size} B: {growth} KiB");
    assert!(growth <= mebibytes * 1024 + ALLOWANCE, "{growth} KiB with a buffer of {mebibytes} MiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_prefetch_of_1000_partitions_is_kept() {
    prefetch(1000, 1000, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefetch_of_100_partitions_is_kept() {
    prefetch(100, 100, 16).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_prefetch_of_tiny_records_is_kept() {
    prefetch(1, 1, 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_buffer_of_1000_partitions_is_kept() {
    buffer(1000, 100, 32).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_buffer_of_tiny_records_is_kept() {
    buffer(1, 1, 32).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_consumer_holds_next_to_nothing() {
    let cluster = Cluster::start().await;
    let name = filled(&cluster, 1, 100, 1 << 20).await;
    let text = r#"{"start": {"end": 1}}"#;
    let mut measured = Measured::start(&cluster.endpoint, ["consumers", &name, text]);
    quiet(&cluster).await;
    let each = measured.growth() / CONSUMERS;
    println!("an idle consumer: {each} KiB");
    assert!(each <= IDLE, "{each} KiB");
}
