//! Starts that mean what is there, and retention that removes it before it is read.

use std::time::Duration;

use crate::common::{Cluster, PATIENCE, options, receive, send, topic};
use engine::admin::CreateTopic;
use engine::consumer::{Consumer, Taken};
use engine::producer::ProducerOptions;
use engine::{Error, ErrorKind};
use fluvio_devserver::{Config, Fault};

/// Streams are asked for and not opened, until the faults are cleared.
const NO_STREAM: &str = r#"{"kind": "delay", "request": "stream-fetch"}"#;

fn hold_streams(cluster: &Cluster) {
    cluster.server().inject(Fault::from_json(NO_STREAM).unwrap()).unwrap();
}

fn streams_asked_for(cluster: &Cluster) -> u64 {
    cluster.server().counters().spu_total().requests_of("stream-fetch")
}

/// Waits until one more stream was asked for.
async fn one_more(cluster: &Cluster, before: u64) {
    tokio::time::timeout(PATIENCE, async {
        while streams_asked_for(cluster) == before {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("a stream is asked for");
}

async fn failure(consumer: &Consumer) -> Error {
    tokio::time::timeout(PATIENCE, consumer.ready()).await.expect("is told");
    match consumer.take() {
        Err(error) => error,
        Ok(taken) => panic!("{taken:?}"),
    }
}

/// What a relative start meant is removed before its stream is opened: reading begins with what is left. An offset that was
/// named is missed, and so is what comes behind a record that was read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relative_start_moves_with_what_is_removed() {
    for (start, relative) in [
        (r#"{"beginning": 0}"#, true),
        (r#"{"beginning": 2}"#, true),
        (r#"{"end": 2}"#, true),
        (r#"{"end": 0}"#, true),
        (r#"{"offset": 2}"#, false),
    ] {
        let cluster = Cluster::start().await;
        let client = cluster.client().await;
        let name = topic(&client, 1).await;
        let producer = client.producer(&name, ProducerOptions::default()).await.unwrap();
        for _ in 0..5 {
            send(&producer, None, b"removed").await.unwrap();
        }
        hold_streams(&cluster);
        let asked = streams_asked_for(&cluster);
        let consumer = client.consumer(&name, options(&format!(r#"{{"start": {start}}}"#))).await.unwrap();
        one_more(&cluster, asked).await;
        send(&producer, None, b"removed").await.unwrap();
        cluster.server().evict(&name).await.unwrap();
        send(&producer, None, b"left").await.unwrap();
        cluster.server().clear_faults();
        if !relative {
            let error = failure(&consumer).await;
            assert_eq!(error.kind(), ErrorKind::OffsetEvicted, "{start}: {error}");
            assert_eq!(error.detail()["next_available"], 6);
            continue;
        }
        let records = receive(&consumer, 1).await;
        assert_eq!((records[0].1, &*records[0].3), (6, &b"left"[..]), "{start}");

        hold_streams(&cluster);
        let asked = streams_asked_for(&cluster);
        cluster.server().close_connections();
        one_more(&cluster, asked).await;
        send(&producer, None, b"missed").await.unwrap();
        cluster.server().evict(&name).await.unwrap();
        send(&producer, None, b"behind it").await.unwrap();
        cluster.server().clear_faults();
        let error = failure(&consumer).await;
        assert_eq!(error.kind(), ErrorKind::OffsetEvicted, "{start}: {error}");
        assert_eq!(error.detail()["next_available"], 8);
        assert!(matches!(consumer.take(), Ok(Taken::End)));
    }
}

/// The same by the size of a partition, while it is written to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_by_size_overtakes_a_relative_start() {
    let retention_interval = Duration::from_millis(10);
    let cluster = Cluster::with(Config { retention_interval, cut_batches: true, ..Config::default() }).await;
    let client = cluster.client().await;
    let small = r#"{"name": "small", "segment_size_bytes": 2500, "max_partition_size_bytes": 5000}"#;
    client.admin().create_topic(CreateTopic::from_json(small).unwrap()).await.unwrap();
    let producer = client.producer("small", ProducerOptions::default()).await.unwrap();
    send(&producer, None, &[0; 1000]).await.unwrap();
    hold_streams(&cluster);
    let consumer = client.consumer("small", options(r#"{"start": {"beginning": 0}}"#)).await.unwrap();
    let absolute = options(r#"{"start": {"offset": 0}}"#);
    let removed = async {
        loop {
            let sent = send(&producer, None, &[0; 1000]).await.unwrap();
            match client.consumer("small", absolute.clone()).await {
                Ok(present) => present.close().await,
                Err(error) if error.kind() == ErrorKind::OffsetEvicted => return sent.offset,
                Err(error) => panic!("{error}"),
            }
        }
    };
    let last = tokio::time::timeout(PATIENCE, removed).await.expect("the oldest segment goes");
    cluster.server().clear_faults();
    let mut offsets: Vec<i64> = Vec::new();
    while offsets.last().is_none_or(|offset| *offset < last) {
        offsets.extend(receive(&consumer, 1).await.iter().map(|record| record.1));
    }
    assert!(offsets[0] > 0, "{offsets:?}");
    assert!(offsets.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{offsets:?}");
}
