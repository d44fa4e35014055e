//! Topics that are deleted and created again under a consumer, while it is connected and while its SPU is away: one clear
//! error for the consumer as a whole, no record of the new topic under the old handle, none skipped.

use engine::admin::CreateTopic;
use engine::consumer::{Consumer, Taken};
use engine::producer::ProducerOptions;
use engine::{Client, ErrorKind, Outcome};
use fluvio_devserver::Config;

use crate::common::{Cluster, PATIENCE, options, receive, send, send_many, submit};

const BEGINNING: &str = r#"{"start": {"beginning": 0}}"#;

async fn create(client: &Client, name: &str, partitions: u32, spu: i32) {
    let replicas: Vec<String> = (0..partitions).map(|_| format!("[{spu}]")).collect();
    let text = format!(r#"{{"name": "{name}", "assignment": [{}]}}"#, replicas.join(","));
    client.admin().create_topic(CreateTopic::from_json(&text).unwrap()).await.expect("created");
}

async fn write(client: &Client, name: &str, partitions: u32, what: &str, count: usize) {
    let producer = client.producer(name, ProducerOptions::default()).await.unwrap();
    for partition in 0..partitions {
        let values: Vec<Vec<u8>> = (0..count).map(|n| format!("{what} {n}").into_bytes()).collect();
        send_many(&producer, &values, Some(partition)).await;
    }
    producer.close().await.unwrap();
}

/// Takes until the end: only old records and one error.
async fn ends(consumer: &Consumer) {
    let mut errors = Vec::new();
    let end = async {
        loop {
            consumer.ready().await;
            match consumer.take() {
                Ok(Taken::Batch(batch)) => {
                    let (columns, data) = (batch.columns(), batch.data());
                    let value = &data[columns.value_starts[0] as usize..columns.value_ends[0] as usize];
                    assert!(value.starts_with(b"old"), "{:?}", String::from_utf8_lossy(value));
                }
                Ok(Taken::Empty) => {}
                Ok(Taken::End) => return,
                Err(error) => errors.push(error),
            }
        }
    };
    tokio::time::timeout(PATIENCE, end).await.expect("the consumer ends");
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0].kind(), ErrorKind::TopicDeleted, "{}", errors[0]);
}

/// While connected: with more, as many and fewer partitions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_created_again_is_another_one() {
    for (before, after) in [(1, 3), (2, 2), (100, 100), (3, 1)] {
        let cluster = Cluster::with(Config { spus: 2, cut_batches: true, ..Config::default() }).await;
        let client = cluster.client().await;
        create(&client, "again", before, 5001).await;
        let consumer = client.consumer("again", options(BEGINNING)).await.unwrap();
        write(&client, "again", before, "old", 3).await;
        receive(&consumer, 3 * before as usize).await;
        client.admin().delete_topic("again").await.unwrap();
        create(&client, "again", after, 5002).await;
        write(&cluster.client().await, "again", after, "new", 5).await;
        ends(&consumer).await;
        let fresh = cluster.client().await.consumer("again", options(BEGINNING)).await.unwrap();
        assert_eq!(receive(&fresh, 5 * after as usize).await.len(), 5 * after as usize);
    }
}

/// While the SPU is away, and the watch of the consumer's client says nothing: what tells is the last batch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_created_again_meanwhile_is_another_one() {
    for (partitions, count) in [(1, 3), (1, 2), (1, 5), (100, 3)] {
        let cluster = Cluster::with(Config { spus: 2, cut_batches: true, ..Config::default() }).await;
        let client = cluster.client().await;
        create(&client, "again", partitions, 5001).await;
        // One of them has read nothing and stands at the end.
        write(&client, "again", partitions, "old", 3).await;
        let reader = client.consumer("again", options(BEGINNING)).await.unwrap();
        receive(&reader, 3 * partitions as usize).await;
        let idle = client.consumer("again", options(r#"{"start": {"end": 0}}"#)).await.unwrap();
        // It has asked for what is in front of its position once its stream has been opened.
        write(&client, "again", partitions, "old", 1).await;
        receive(&idle, partitions as usize).await;
        receive(&reader, partitions as usize).await;
        let silence = r#"{"kind": "delay", "request": "watch", "when": "after"}"#;
        let silence = fluvio_devserver::Fault::from_json(silence).unwrap();
        cluster.server().inject(silence).expect("a fault");
        cluster.server().stop_spu(5001).await.expect("stop");
        let other = cluster.client().await;
        other.admin().delete_topic("again").await.unwrap();
        create(&other, "again", partitions, 5002).await;
        write(&other, "again", partitions, "new", count + 1).await;
        cluster.server().start_spu(5001).await.expect("start");
        ends(&reader).await;
        ends(&idle).await;
    }
}

/// The watch of the producer's client says nothing and the connection to the SPU stays: what tells is the offset that a record
/// got. Nothing more is written under the old handle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_notices_by_the_offsets() {
    let cluster = Cluster::start().await;
    let (client, other) = (cluster.client().await, cluster.client().await);
    create(&client, "again", 2, 5001).await;
    let producer = client.producer("again", ProducerOptions::default()).await.unwrap();
    for partition in [0, 1] {
        let values: Vec<Vec<u8>> = (0..3).map(|number| format!("old {number}").into_bytes()).collect();
        send_many(&producer, &values, Some(partition)).await;
    }
    let silence = r#"{"kind": "delay", "request": "watch", "when": "after"}"#;
    cluster.server().inject(fluvio_devserver::Fault::from_json(silence).unwrap()).expect("a fault");
    other.admin().delete_topic("again").await.unwrap();
    create(&other, "again", 2, 5001).await;
    let error = send(&producer, None, b"one too many").await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::TopicDeleted, Some(Outcome::Written)), "{error}");
    for _ in 0..2 {
        let error = send(&producer, None, b"no more").await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::TopicDeleted, Some(Outcome::NotSent)));
    }
    let fresh = other.producer("again", ProducerOptions::default()).await.unwrap();
    let mut offsets = Vec::new();
    for partition in [0, 1] {
        let ack = submit(&fresh, None, b"new", Some(partition)).await.unwrap();
        offsets.push(ack.await.unwrap().unwrap().offset);
    }
    offsets.sort_unstable();
    assert_eq!(offsets, [0, 1]);
}
