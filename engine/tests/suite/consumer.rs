//! What a consumer promises beyond complete records in order: limits of memory, isolation of partitions from each other.

use std::time::Duration;

use crate::common::{Cluster, PATIENCE, options, receive, send_many, topic};
use engine::consumer::{Consumer, Taken};
use engine::producer::ProducerOptions;
use engine::{Client, ClientOptions, ErrorKind};
use fluvio_devserver::Fault;

fn values(count: u32, size: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|number| {
            let mut value = vec![0; size];
            value[..4].copy_from_slice(&number.to_be_bytes());
            value
        })
        .collect()
}

/// The smallest frame cap there is still lets a backlog through, and a batch that cannot fit is an error that says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_frame_cap_lets_a_backlog_through() {
    let cluster = Cluster::start().await;
    let text = format!(r#"{{"endpoint": "{}", "max_frame_size_bytes": 131072}}"#, cluster.endpoint);
    let client = Client::connect(ClientOptions::from_json(&text).unwrap()).await.unwrap();
    let name = topic(&client, 1).await;
    let small = ProducerOptions::from_json(r#"{"batch_size_bytes": 16384}"#).unwrap();
    let producer = client.producer(&name, small).await.unwrap();
    let sent = values(1000, 1000);
    send_many(&producer, &sent, None).await;
    let consumer = client.consumer(&name, options(r#"{"start": {"beginning": 0}}"#)).await.unwrap();
    let received: Vec<Vec<u8>> = receive(&consumer, 1000).await.into_iter().map(|record| record.3).collect();
    assert!(received == sent);

    send_many(&producer, &[vec![1; 100_000]], None).await;
    tokio::time::timeout(PATIENCE, consumer.ready()).await.expect("is told");
    let error = consumer.take().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RecordTooLarge, "{error}");
    assert!(error.message().contains("max_frame_size_bytes"), "{error}");
}

/// Batches are held back once a partition has used its share, nothing is lost by it, and another consumer does not notice.
#[tokio::test]
async fn whoever_takes_slowly_is_bounded_and_alone() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let name = topic(&client, 2).await;
    let producer = client.producer(&name, ProducerOptions::default()).await.unwrap();
    let sent = values(20_000, 1000);
    send_many(&producer, &sent, None).await;
    let start = r#"{"start": {"beginning": 0}, "prefetch_bytes": 400000}"#;
    let slow = client.consumer(&name, options(start)).await.unwrap();
    let quick = client.consumer(&name, options(start)).await.unwrap();
    assert_eq!(receive(&quick, sent.len()).await.len(), sent.len());
    // On one thread nothing is fetched while this takes.
    let held = take_all(&slow);
    assert!((1..500_000).contains(&held), "{held} bytes are held");
    let records = receive(&slow, sent.len() - held / 1000).await;
    assert!(records.windows(2).all(|pair| pair[0].0 != pair[1].0 || pair[0].1 + 1 == pair[1].1));
}

fn take_all(consumer: &Consumer) -> usize {
    let mut bytes = 0;
    while let Taken::Batch(batch) = consumer.take().unwrap() {
        bytes += batch.len() * 1000;
    }
    bytes
}

/// A start in the middle of a batch leaves out what is in front of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_below_the_start_is_handed_out() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let name = topic(&client, 1).await;
    let producer = client.producer(&name, ProducerOptions::default()).await.unwrap();
    send_many(&producer, &values(1000, 100), None).await;
    for first in [1, 499, 999] {
        let start = format!(r#"{{"start": {{"offset": {first}}}}}"#);
        let consumer = client.consumer(&name, options(&start)).await.unwrap();
        let records = receive(&consumer, 1000 - first).await;
        assert_eq!(records.len(), 1000 - first);
        assert_eq!(records[0].1, first as i64);
        // Also when it goes on after a kill.
        cluster.server().close_connections();
        let nothing = tokio::time::timeout(Duration::from_millis(200), consumer.ready()).await;
        assert!(nothing.is_err(), "{:?}", consumer.take());
    }
}

/// A server that answers what is asked before a stream, and then drops the connection, is asked ever more slowly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_drops_every_stream_is_not_hammered() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let name = topic(&client, 1).await;
    let producer = client.producer(&name, ProducerOptions::default()).await.unwrap();
    send_many(&producer, &values(10, 10), None).await;
    let consumer = client.consumer(&name, options(r#"{"start": {"beginning": 0}}"#)).await.unwrap();
    receive(&consumer, 10).await;
    let drops = r#"{"kind": "close", "request": "stream-fetch"}"#;
    cluster.server().inject(Fault::from_json(drops).unwrap()).unwrap();
    cluster.server().close_connections();
    let opened = || cluster.server().counters().spu_total().connections_opened;
    let before = opened();
    tokio::time::sleep(Duration::from_secs(3)).await;
    // At least 25, 50, 100, ... ms lie between them; the producer has one.
    let attempts = opened() - before;
    assert!((2..=9).contains(&attempts), "{attempts}");
    cluster.server().clear_faults();
    send_many(&producer, &values(1, 10), None).await;
    receive(&consumer, 1).await;
}

/// Whoever reads what is not replicated starts by the end of the log; whoever does not, by that of what is replicated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_goes_by_what_may_be_read() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let name = topic(&client, 2).await;
    let producer = client.producer(&name, ProducerOptions::default()).await.unwrap();
    send_many(&producer, &values(3, 10), Some(0)).await;
    cluster.server().hold_high_watermark(&name, true);
    // Several batches.
    for _ in 0..3 {
        send_many(&producer, &values(2, 10), Some(0)).await;
    }
    let first = async |start: &str, isolation: &str| {
        let text = format!(r#"{{"start": {start}, "isolation": "{isolation}", "partitions": [0]}}"#);
        let consumer = client.consumer(&name, options(&text)).await?;
        let (_, offset, _, _) = receive(&consumer, 1).await.remove(0);
        Ok::<_, engine::Error>(offset)
    };
    for (start, offset) in [(r#"{"offset": 4}"#, 4), (r#"{"end": 1}"#, 8), (r#"{"beginning": 6}"#, 6)] {
        assert_eq!(first(start, "read_uncommitted").await.unwrap_or(-1), offset, "{start}");
    }
    for (start, isolation, end) in
        [(r#"{"offset": 10}"#, "read_uncommitted", 9), (r#"{"offset": 4}"#, "read_committed", 3)]
    {
        let error = first(start, isolation).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange, "{error}");
        assert_eq!(error.detail()["next_available"], end, "{error}");
    }
    assert_eq!(first(r#"{"end": 1}"#, "read_committed").await.unwrap(), 2);
    // At the end comes what is sent later.
    for (start, offset) in [(r#"{"end": 0}"#, 9), (r#"{"beginning": 20}"#, 10), (r#"{"offset": 11}"#, 11)] {
        let text = format!(r#"{{"start": {start}, "partitions": [0]}}"#);
        let consumer = client.consumer(&name, options(&text)).await.unwrap();
        send_many(&producer, &values(1, 10), Some(0)).await;
        assert_eq!(receive(&consumer, 1).await[0].1, offset, "{start}");
    }
    let text = r#"{"start": {"end": 0}, "isolation": "read_committed"}"#;
    let consumer = client.consumer(&name, options(text)).await.unwrap();
    cluster.server().hold_high_watermark(&name, false);
    assert_eq!(receive(&consumer, 1).await[0].1, 3);
}
