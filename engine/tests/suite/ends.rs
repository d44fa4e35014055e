//! Ends: flush and close while the server is gone, a client that is closed before its children, everything dropped while
//! records are on their way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::common::process::Process;
use crate::common::{Cluster, PATIENCE, impatient, options, receive, send, submit, topic};
use engine::producer::{Ack, AckHandler, Producer, ProducerOptions, Sent};
use engine::{ErrorKind, Result};

const BEGINNING: &str = r#"{"start": {"beginning": 0}}"#;

/// Counts how often it was told.
#[derive(Clone, Default)]
struct Told {
    delivered: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
}

impl Told {
    fn counts(&self) -> (usize, usize) {
        (self.delivered.load(Ordering::SeqCst), self.failed.load(Ordering::SeqCst))
    }

    fn send(&self, producer: &Producer, value: &[u8]) {
        let sent = producer.send(&mut None, None, value, None, || Ok(Box::new(self.clone())));
        assert_eq!(sent.unwrap(), Sent::Accepted);
    }
}

impl AckHandler for Told {
    fn acked(self: Box<Self>, result: Result<Ack>) {
        let count = if result.is_ok() { &self.delivered } else { &self.failed };
        count.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_without_a_server_ends_in_time_and_tells_everyone() {
    for silent in [true, false] {
        let mut server = Process::start();
        let client = impatient(&server.endpoint, Duration::from_millis(600)).await;
        let name = topic(&client, 3).await;
        let small =
            ProducerOptions::from_json(r#"{"buffer_bytes": 296000, "batch_size_bytes": 1024}"#).unwrap();
        let producer = client.producer(&name, small).await.unwrap();
        send(&producer, None, b"value").await.unwrap();
        if silent {
            server.stop()
        } else {
            server.kill()
        }
        let told = Told::default();
        // A thousand records would fit, if their batches took nothing.
        let mut accepted = 0;
        let another = || Ok(Box::new(told.clone()) as Box<dyn AckHandler>);
        while producer.send(&mut None, None, b"12345678", None, another).unwrap() == Sent::Accepted {
            accepted += 1;
        }
        assert!((900..1000).contains(&accepted), "{accepted}");
        let waiting = producer.reserve(100);
        tokio::pin!(waiting);
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        let begun = Instant::now();
        let error = producer.close().await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert!(begun.elapsed() >= Duration::from_millis(600));
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert_eq!(error.detail()["undelivered"], accepted);
        assert_eq!(told.counts(), (0, accepted));
        assert_eq!(waiting.await.unwrap_err().kind(), ErrorKind::Closed);
        producer.close().await.unwrap();
    }
}

/// A flush that is given up changes nothing: what was accepted is delivered once the server goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_flush_or_close_loses_nothing() {
    let server = Process::start();
    let client = impatient(&server.endpoint, PATIENCE).await;
    let name = topic(&client, 2).await;
    let lingering = ProducerOptions::from_json(r#"{"linger_ms": 60000}"#).unwrap();
    let producer = client.producer(&name, lingering).await.unwrap();
    let told = Told::default();
    server.stop();
    for _ in 0..100 {
        told.send(&producer, b"value");
    }
    assert!(tokio::time::timeout(Duration::from_millis(50), producer.flush()).await.is_err());
    assert!(tokio::time::timeout(Duration::from_millis(50), client.close()).await.is_err());
    server.go_on();
    assert_eq!(producer.reserve(1).await.unwrap_err().kind(), ErrorKind::Closed);
    // The first close was dropped half-way: the second one finishes its work.
    tokio::time::timeout(PATIENCE, client.close()).await.expect("closes");
    assert_eq!(told.counts(), (100, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_the_client_closes_its_children() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let name = topic(&client, 3).await;
    let lingering = ProducerOptions::from_json(r#"{"linger_ms": 60000}"#).unwrap();
    let producer = client.producer(&name, lingering).await.unwrap();
    let consumer = client.consumer(&name, options(BEGINNING)).await.unwrap();
    let told = Told::default();
    for _ in 0..50 {
        told.send(&producer, b"value");
    }
    let ready = consumer.ready();
    tokio::time::timeout(PATIENCE, client.close()).await.expect("closes");
    assert_eq!(told.counts(), (50, 0));
    tokio::time::timeout(PATIENCE, ready).await.expect("whoever waits is told");
    assert_eq!(consumer.take().unwrap_err().kind(), ErrorKind::Closed);
    let refused = producer.send(&mut None, None, b"late", None, || unreachable!());
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Closed);
    tokio::time::timeout(PATIENCE, client.close()).await.expect("closes again");
}

/// A child that is being opened while the client is closed does not escape.
#[tokio::test]
async fn nothing_is_opened_behind_a_close() {
    let cluster = Cluster::start().await;
    for _ in 0..20 {
        let client = cluster.client().await;
        let name = topic(&client, 1).await;
        let opening = client.consumer(&name, options(BEGINNING));
        tokio::pin!(opening);
        // On one thread nothing is answered before this task waits.
        assert!(futures_util::poll!(opening.as_mut()).is_pending());
        client.close().await;
        assert_eq!(opening.await.unwrap_err().kind(), ErrorKind::Closed);
        let opening = client.consumer(&name, options(BEGINNING));
        assert_eq!(opening.await.unwrap_err().kind(), ErrorKind::Closed);
    }
}

/// Everything is dropped while records are on their way and connections are killed: what was accepted is in the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_is_sent_although_everything_is_dropped() {
    let cluster = Cluster::start().await;
    let keeper = cluster.client().await;
    let name = topic(&keeper, 1).await;
    let told = Told::default();
    for round in 0..20 {
        let client = cluster.client().await;
        let producer = client.producer(&name, ProducerOptions::default()).await.unwrap();
        let consumer = client.consumer(&name, options(BEGINNING)).await.unwrap();
        for _ in 0..100 {
            told.send(&producer, b"value");
        }
        let reserving = producer.reserve(producer.buffer_bytes());
        drop(tokio::time::timeout(Duration::ZERO, reserving).await);
        if round % 3 == 0 {
            cluster.server().close_connections();
        }
        drop((client, producer, consumer));
    }
    let consumer = keeper.consumer(&name, options(BEGINNING)).await.unwrap();
    receive(&consumer, 2000).await;
    let all = async {
        while told.counts() != (2000, 0) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("every handler is called once");
}

/// The runtime ends while records wait: every handler is called.
#[test]
fn the_end_of_the_runtime_is_told() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let told = Told::default();
    let producer = runtime.block_on(async {
        let server = Process::start();
        let client = impatient(&server.endpoint, PATIENCE).await;
        let name = topic(&client, 2).await;
        let producer = client.producer(&name, ProducerOptions::default()).await.unwrap();
        server.stop();
        for _ in 0..100 {
            told.send(&producer, b"value");
        }
        drop(submit(&producer, None, b"nobody waits", None).await.unwrap());
        producer
    });
    runtime.shutdown_timeout(Duration::from_secs(10));
    assert_eq!(told.counts(), (0, 100));
    let refused = producer.send(&mut None, None, b"late", None, || unreachable!());
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Closed);
}
